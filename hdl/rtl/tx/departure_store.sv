// SPDX-License-Identifier: Apache-2.0
// Departure stamps of all ports as records without bytes, for the packer, like a frame_store: of port p the
// host's frames are source p, its trains' packets source Ports + p.
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
  input  logic [2*Ports-1:0] valid_i,
  output logic [2*Ports-1:0] ready_o,
  input  logic [63:0]      q32_i [2*Ports],
  input  logic [63:0]      cookie_i [2*Ports],
  input  logic [15:0]      length_i [2*Ports],
  input  logic [2*Ports-1:0] late_i,
  input  logic [63:0]      delay_q32_i [Ports],   // of the trains' packets

  output logic [StoreLog2-3:0] committed_o,
  input  logic [StoreLog2-3:0] taken_i,
  input  logic                 read_i,
  input  logic [StoreLog2-4:0] read_address_i,
  output logic [63:0]          read_data_o
);
  localparam int unsigned A = StoreLog2 - 3;
  localparam int unsigned Sources = 2 * Ports;
  localparam int unsigned SourceBits = $clog2(Sources);
  localparam int unsigned PortBits = Ports > 1 ? $clog2(Ports) : 1;
  logic [63:0] memory [512];
  logic [A:0] committed_q;
  logic [1:0] word_q;
  logic writing_q;
  logic [SourceBits-1:0] source_q;
  // The next one after the last that has something.
  logic [SourceBits-1:0] next_source;
  rr_pick #(.N(Sources)) u_turn (.last_i(source_q), .valid_i, .next_o(next_source));
  logic of_train;
  logic [PortBits-1:0] port;
  assign of_train = source_q >= SourceBits'(Ports);
  assign port = PortBits'(of_train ? source_q - SourceBits'(Ports) : source_q);
  logic room;
  assign room = (committed_q - taken_i) <= (A+1)'(508);

  logic [15:0] flags;
  logic [63:0] word;
  always_comb begin
    flags = '0;
    flags[FlagTx] = 1'b1;
    flags[FlagLate] = late_i[source_q];
    flags[15:8] = link_epoch_i[port];
    unique case (word_q)
      2'd0: word = {flags, epoch_i, 8'(port), length_i[source_q], 16'd0};
      2'd1: word = q32_i[source_q];
      2'd2: word = cookie_i[source_q];
      default: word = of_train ? delay_q32_i[port] : '0;
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
      source_q <= '0;
    end else if (writing_q) begin
      word_q <= word_q + 2'd1;
      if (word_q == 2'd3) begin
        writing_q <= 1'b0;
        committed_q <= committed_q + (A+1)'(RecordHeaderWords);
      end
    end else if (valid_i != '0 && room && store_i) begin
      writing_q <= 1'b1;
      source_q <= next_source;
    end
  end
  always_comb begin
    ready_o = '0;
    ready_o[source_q] = writing_q && word_q == 2'd3;
  end
  assign committed_o = committed_q;
endmodule
