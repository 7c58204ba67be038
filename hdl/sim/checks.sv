// SPDX-License-Identifier: Apache-2.0
// verilator lint_off DECLFILENAME
// What must never happen in the card, bound to it from outside: in the library with waveforms (make hdl TRACE=1), where
// a check that fails ends the program with its message. tests/card/test_checks.py runs the fuzzers with them.

// The way from a receive clock into the core clock.
module rx_port_checks (
  input logic rx_clk_i,
  input logic rx_rst_ni,
  input logic rx_valid,
  input logic rx_full,
  input logic clk_i,
  input logic rst_ni,
  input logic fifo_bad,
  input logic flow_bad,
  input logic stamp_overflow,
  input logic stamp_take,
  input logic stamp_valid
);
  always_ff @(posedge rx_clk_i) begin
    if (rx_rst_ni) assert (!(rx_valid && rx_full)) else $fatal(1, "%m: an entry was lost");
  end
  always_ff @(posedge clk_i) begin
    if (rst_ni) begin
      assert (!fifo_bad && !flow_bad) else $fatal(1, "%m: pointers that cannot be");
      assert (!stamp_overflow) else $fatal(1, "%m: a stamp's place was taken");
      assert (!stamp_take || stamp_valid) else $fatal(1, "%m: a frame without its stamp");
    end
  end
endmodule
bind rx_port rx_port_checks u_checks (
  .rx_clk_i, .rx_rst_ni, .rx_valid, .rx_full, .clk_i, .rst_ni, .fifo_bad, .flow_bad, .stamp_overflow, .stamp_take,
  .stamp_valid
);

module profile_words_checks (
  input logic rx_clk_i,
  input logic rx_rst_ni,
  input logic words_valid,
  input logic words_full
);
  always_ff @(posedge rx_clk_i) begin
    if (rx_rst_ni) assert (!(words_valid && words_full)) else $fatal(1, "%m: a word was lost");
  end
endmodule
bind profile_words profile_words_checks u_checks (.rx_clk_i, .rx_rst_ni, .words_valid, .words_full);

module port_counters_checks (
  input logic clk_i,
  input logic rst_ni,
  input logic event_i,
  input logic full
);
  always_ff @(posedge clk_i) begin
    if (rst_ni) assert (!(event_i && full)) else $fatal(1, "%m: an event was lost");
  end
endmodule
bind port_counters port_counters_checks u_checks (.clk_i, .rst_ni, .event_i, .full);

// Of those that share something one has its turn.
module turn_checks #(
  parameter int unsigned Width = 1
) (
  input logic clk_i,
  input logic rst_ni,
  input logic [Width-1:0] turns
);
  always_ff @(posedge clk_i) begin
    if (rst_ni) assert ((turns & (turns - Width'(1))) == '0) else $fatal(1, "%m: two at once: %b", turns);
  end
endmodule
bind frame_digest turn_checks #(.Width(Ports)) u_checks (.clk_i, .rst_ni, .turns(done_o));
bind tx_fetch turn_checks #(.Width(Ports)) u_checks (.clk_i, .rst_ni, .turns(valid_o));
