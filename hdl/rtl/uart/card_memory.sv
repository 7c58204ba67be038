// SPDX-License-Identifier: Apache-2.0
// On-chip memory in the place of the host's: an AXI4 slave for the card's bursts, and a port for the bridge.
//
// Clock: clk_i (core). Both ports may use it in the same cycle; a word that both touch at once, one of them
// writing, may have any value. Addresses outside answer SLVERR and change nothing. One burst at a time in each direction, INCR,
// 64 bits wide, which is all that the card makes.
module card_memory #(
  parameter int unsigned WordsLog2 = 13,
  parameter logic [63:0] Base = 64'h1_0000_0000
) (
  input  logic        clk_i,
  input  logic        rst_ni,

  input  logic        s_axi_awvalid,
  output logic        s_axi_awready,
  input  logic [63:0] s_axi_awaddr,
  input  logic [7:0]  s_axi_awlen,
  input  logic        s_axi_wvalid,
  output logic        s_axi_wready,
  input  logic [63:0] s_axi_wdata,
  input  logic        s_axi_wlast,
  output logic        s_axi_bvalid,
  input  logic        s_axi_bready,
  output logic [1:0]  s_axi_bresp,
  input  logic        s_axi_arvalid,
  output logic        s_axi_arready,
  input  logic [63:0] s_axi_araddr,
  input  logic [7:0]  s_axi_arlen,
  output logic        s_axi_rvalid,
  input  logic        s_axi_rready,
  output logic [63:0] s_axi_rdata,
  output logic [1:0]  s_axi_rresp,
  output logic        s_axi_rlast,

  input  logic                 write_i,
  input  logic [WordsLog2-1:0] address_i,
  input  logic [63:0]          data_i,
  output logic [63:0]          data_o
);
  localparam logic [1:0] Okay = 2'd0, SlvErr = 2'd2;
  localparam int unsigned W = WordsLog2;
  function automatic logic outside(input logic [63:0] address, input logic [7:0] len);
    return address[63:W+3] != Base[63:W+3] || address[2:0] != '0 ||
           {1'b0, address[W+2:3]} + (W+1)'(len) >= (W+1)'(2**W);
  endfunction

  // True dual port: the card on one side, its reads and writes taking turns, the bridge on the other.
  logic [63:0] memory [2**W];
  logic card_write, card_read;
  logic [W-1:0] card_address;
  logic [63:0] card_q;
  always_ff @(posedge clk_i) begin
    if (card_write) memory[card_address] <= s_axi_wdata;
    card_q <= memory[card_address];
  end
  always_ff @(posedge clk_i) begin
    if (write_i) memory[address_i] <= data_i;
    data_o <= memory[address_i];
  end

  logic writing_q, write_bad_q, b_q;
  logic [W-1:0] write_at_q;
  assign s_axi_awready = !writing_q && !b_q;
  assign s_axi_wready = writing_q;
  assign s_axi_bvalid = b_q;
  assign s_axi_bresp = write_bad_q ? SlvErr : Okay;
  assign card_write = writing_q && s_axi_wvalid && !write_bad_q;

  logic reading_q, read_bad_q, fresh_q, r_q;
  logic [W-1:0] read_at_q;
  logic [7:0] left_q;
  logic [63:0] held_q;
  assign s_axi_arready = !reading_q;
  // A word is fetched in a cycle without a write, then offered until it is taken.
  assign card_read = reading_q && !fresh_q && !r_q && !card_write;
  assign card_address = card_write ? write_at_q : read_at_q;
  assign s_axi_rvalid = r_q;
  assign s_axi_rdata = held_q;
  assign s_axi_rresp = read_bad_q ? SlvErr : Okay;
  assign s_axi_rlast = left_q == 8'd0;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      {writing_q, write_bad_q, b_q, reading_q, read_bad_q, fresh_q, r_q} <= '0;
      write_at_q <= '0;
      read_at_q <= '0;
      left_q <= '0;
      held_q <= '0;
    end else begin
      if (s_axi_awvalid && s_axi_awready) begin
        writing_q <= 1'b1;
        write_bad_q <= outside(s_axi_awaddr, s_axi_awlen);
        write_at_q <= s_axi_awaddr[W+2:3];
      end
      if (writing_q && s_axi_wvalid) begin
        write_at_q <= write_at_q + W'(1);
        if (s_axi_wlast) begin
          writing_q <= 1'b0;
          b_q <= 1'b1;
        end
      end
      if (b_q && s_axi_bready) b_q <= 1'b0;

      if (s_axi_arvalid && s_axi_arready) begin
        reading_q <= 1'b1;
        read_bad_q <= outside(s_axi_araddr, s_axi_arlen);
        read_at_q <= s_axi_araddr[W+2:3];
        left_q <= s_axi_arlen;
      end
      fresh_q <= card_read;
      if (card_read) read_at_q <= read_at_q + W'(1);
      if (fresh_q) begin
        held_q <= card_q;
        r_q <= 1'b1;
      end
      if (r_q && s_axi_rready) begin
        r_q <= 1'b0;
        left_q <= left_q - 8'd1;
        if (left_q == 8'd0) reading_q <= 1'b0;
      end
    end
  end
endmodule
