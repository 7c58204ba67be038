// SPDX-License-Identifier: Apache-2.0
// One port's messages under the duplicate profiles `vlan` and `routing`: frame_normaliser, and its words across into
// the core clock. Of a frame whose profile is another one it makes nothing.
//
// Clocks: rx_clk_i (the port's receive clock) and clk_i (core). valid_i, data_i, first_i, last_i and profile_i as
// gmii_rx gives them; the words as frame_normaliser does, three to four core clocks later.
// Back-pressure: ready_i, from a FIFO of 64 words. Overflow: overflow_o until the flush that it asks for; the port's
// digests are wrong until then (profile_digest is never that slow). rx_flush_i, flush_i: async_fifo's.
module profile_words (
  input  logic        rx_clk_i,
  input  logic        rx_rst_ni,
  input  logic        rx_flush_i,
  input  logic [1:0]  profile_i,   // of the frame: 0 and 1 exact, 2 vlan, 3 routing
  input  logic        valid_i,
  input  logic [7:0]  data_i,
  input  logic        first_i,
  input  logic        last_i,

  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic        flush_i,
  input  logic        wanted_i,    // the card's profile is one of the two; only for simulation
  output logic        valid_o,
  output logic        end_o,
  output logic [63:0] word_o,
  input  logic        ready_i,
  output logic        overflow_o,

  // Simulation: see sync_2ff.
  input  logic        wlate_i,
  input  logic        rlate_i
);
  logic on, on_q, words_valid, words_end, words_full, lost_q, lost, bad;
  logic [63:0] words;
  assign on = first_i ? profile_i[1] : on_q;
  always_ff @(posedge rx_clk_i or negedge rx_rst_ni) begin
    if (!rx_rst_ni) begin
      on_q <= 1'b0;
      lost_q <= 1'b0;
    end else begin
      if (valid_i) on_q <= on;
      if (rx_flush_i) lost_q <= 1'b0;
      else if (words_valid && words_full) lost_q <= 1'b1;
    end
  end

  frame_normaliser u_normaliser (
    .clk_i(rx_clk_i), .rst_ni(rx_rst_ni), .routing_i(profile_i[0]),
    .valid_i(valid_i && on), .data_i, .first_i, .last_i(last_i && on_q),
    .valid_o(words_valid), .end_o(words_end), .word_o(words)
  );
  async_fifo #(.Width(65), .DepthLog2(6)) u_fifo (
    .wclk_i(rx_clk_i), .wrst_ni(rx_rst_ni), .wflush_i(rx_flush_i), .wvalid_i(words_valid), .wdata_i({words_end, words}),
    .wfull_o(words_full), .wlate_i,
    .rclk_i(clk_i), .rrst_ni(rst_ni), .rflush_i(flush_i), .rbad_o(bad), .rvalid_o(valid_o), .rdata_o({end_o, word_o}), .rready_i(ready_i),
    .rlate_i
  );
  sync_2ff u_overflow (.clk_i, .rst_ni, .late_i(1'b0), .d_i(lost_q), .q_o(lost));
  assign overflow_o = lost || bad;

  // For simulation (hdl/sim/edge.cpp).
  logic asleep;
  assign asleep = !wanted_i && !profile_i[1] && !on_q && !valid_o;
endmodule
