// SPDX-License-Identifier: Apache-2.0
// Bench of test_stats: the counters of both directions, latched together as the card does it.
`timescale 1ps / 1ps
module stats_bench
  import twinstamp_pkg::*;
  import twinstamp_tx_pkg::*;
(
  input  logic        clk,
  input  logic        rst_n,
  input  logic        latch,
  output logic        flip,
  output logic        busy,
  input  logic        tx_event, tx_launch, tx_late, tx_malformed,
  input  logic [20:0] tx_end,
  input  logic        rx_event, rx_giant, rx_stored, rx_dropped, rx_discard,
  input  logic [32:0] rx_end,
  output logic        tx_overflow, rx_overflow,
  input  logic        read,
  input  logic [4:0]  address,
  output logic [63:0] tx_data, rx_data
);
  logic latch_q, tx_ready, rx_ready, tx_busy, rx_busy;
  assign flip = latch_q && tx_ready && rx_ready;
  assign busy = latch_q || tx_busy || rx_busy;
  always_ff @(posedge clk or negedge rst_n) begin
    if (!rst_n) latch_q <= 1'b0;
    else if (latch) latch_q <= 1'b1;
    else if (flip) latch_q <= 1'b0;
  end
  tx_counters u_tx (
    .clk_i(clk), .rst_ni(rst_n), .event_i(tx_event), .event_end_i(tx_end), .event_launch_i(tx_launch),
    .event_late_i(tx_late), .malformed_i(tx_malformed), .flip_i(flip), .ready_o(tx_ready), .busy_o(tx_busy),
    .overflow_o(tx_overflow), .read_i(read), .read_address_i(address), .read_data_o(tx_data)
  );
  port_counters u_rx (
    .clk_i(clk), .rst_ni(rst_n), .event_i(rx_event), .event_end_i(rx_end), .event_giant_i(rx_giant),
    .event_stored_i(rx_stored), .event_dropped_i(rx_dropped), .discard_i(rx_discard),
    .sent_i(1'b0), .sent_length_i('0), .flip_i(flip),
    .ready_o(rx_ready), .busy_o(rx_busy), .overflow_o(rx_overflow), .read_i(read), .read_address_i(address),
    .read_data_o(rx_data)
  );
endmodule
