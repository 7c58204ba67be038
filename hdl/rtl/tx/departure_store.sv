// SPDX-License-Identifier: Apache-2.0
// Departure stamps of all ports as records without bytes, for the packer, like a frame_store.
//
// Clock: the core clock. 128 records; one that finds no room is not taken and stays with its gmii_tx, which
// counts it as lost when the next one comes.
module departure_store
  import twinstamp_pkg::*;
#(
  parameter int unsigned Ports = 4,
  parameter int unsigned StoreLog2 = 15       // width of the pointers only
) (
  input  logic             clk_i,
  input  logic             rst_ni,
  input  logic             store_i,
  input  logic [7:0]       epoch_i,
  input  logic [7:0]       link_epoch_i [Ports],
  input  logic [Ports-1:0] valid_i,
  output logic [Ports-1:0] ready_o,
  input  logic [63:0]      q32_i [Ports],
  input  logic [63:0]      cookie_i [Ports],
  input  logic [15:0]      length_i [Ports],
  input  logic [Ports-1:0] late_i,

  output logic [StoreLog2-3:0] committed_o,
  input  logic [StoreLog2-3:0] taken_i,
  input  logic                 read_i,
  input  logic [StoreLog2-4:0] read_address_i,
  output logic [63:0]          read_data_o
);
  localparam int unsigned A = StoreLog2 - 3;
  localparam int unsigned PortBits = Ports > 1 ? $clog2(Ports) : 1;
  logic [63:0] memory [512];
  logic [A:0] committed_q;
  logic [1:0] word_q;
  logic writing_q;
  logic [PortBits-1:0] port_q, next_port;
  always_comb begin
    next_port = port_q;
    for (int unsigned i = Ports; i > 0; i--) begin
      automatic logic [PortBits:0] sum = (PortBits+1)'(port_q) + (PortBits+1)'(i);
      automatic logic [PortBits-1:0] candidate =
          PortBits'(sum >= (PortBits+1)'(Ports) ? sum - (PortBits+1)'(Ports) : sum);
      if (valid_i[candidate]) next_port = candidate;
    end
  end
  logic room;
  assign room = (committed_q - taken_i) <= (A+1)'(508);

  logic [15:0] flags;
  logic [63:0] word;
  always_comb begin
    flags = '0;
    flags[FlagTx] = 1'b1;
    flags[FlagLate] = late_i[port_q];
    flags[15:8] = link_epoch_i[port_q];
    unique case (word_q)
      2'd0: word = {flags, epoch_i, 8'(port_q), length_i[port_q], 16'd0};
      2'd1: word = q32_i[port_q];
      2'd2: word = cookie_i[port_q];
      default: word = '0;
    endcase
  end
  always_ff @(posedge clk_i) begin
    if (writing_q) memory[{committed_q[8:2], word_q}] <= word;
    if (read_i) read_data_o <= memory[read_address_i[8:0]];
  end
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      committed_q <= '0;
      word_q <= '0;
      writing_q <= 1'b0;
      port_q <= '0;
    end else if (writing_q) begin
      word_q <= word_q + 2'd1;
      if (word_q == 2'd3) begin
        writing_q <= 1'b0;
        committed_q <= committed_q + (A+1)'(RecordHeaderWords);
      end
    end else if (valid_i != '0 && room && store_i) begin
      writing_q <= 1'b1;
      port_q <= next_port;
    end
  end
  always_comb begin
    ready_o = '0;
    ready_o[port_q] = writing_q && word_q == 2'd3;
  end
  assign committed_o = committed_q;
endmodule
