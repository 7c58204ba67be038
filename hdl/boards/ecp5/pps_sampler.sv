// SPDX-License-Identifier: Apache-2.0
// ECP5: eight samples of the PPS line per core clock cycle, 1 ns apart at 125 MHz, for pps_capture.
//
// The line goes to two pins, pps_i[0] and pps_i[1], side by side and with equal lengths on the board; any pins do,
// those of the top banks too, which have no gearing. Each is sampled at both edges of fast_clk_i (250 MHz, in step
// with clk_i: both from one PLL) in the pin's own cell (IDDRX1F, FPGA-TN-02035). The second pin passes a delay of
// DelayTaps, 25 ps each, first: its samples show the line 1 ns earlier and go between the others. The delay is not
// regulated: with a tap 20 % off, every other sample lies 0.2 ns beside its place, which widens the capture's
// error by as much and moves its mean by half.
// Latency: from a sample to the word a constant number of cycles, which goes into pps.cable_delay together with the
// pin (docs/pps.md says how it is measured). word_o: earliest sample in bit 0.
// Which of the two fast cycles in a core cycle comes first is known from a toggle of clk_i, seen in fast_clk_i: the
// order is the same after every reset. Not run on a board.
module pps_sampler #(
  parameter int unsigned DelayTaps = 40
) (
  input  logic       clk_i,
  input  logic       fast_clk_i,
  input  logic       rst_ni,
  input  logic [1:0] pps_i,
  output logic [7:0] word_o
);
  if (DelayTaps > 127) $fatal(1, "pps_sampler: DelayTaps must be 0 to 127");
  logic late;
  logic [1:0] direct, delayed;   // at the rising edge, then at the falling one
  DELAYG #(.DEL_MODE("USER_DEFINED"), .DEL_VALUE(DelayTaps)) u_delay (.A(pps_i[1]), .Z(late));
  IDDRX1F u_direct (.D(pps_i[0]), .SCLK(fast_clk_i), .RST(1'b0), .Q0(direct[0]), .Q1(direct[1]));
  IDDRX1F u_delayed (.D(late), .SCLK(fast_clk_i), .RST(1'b0), .Q0(delayed[0]), .Q1(delayed[1]));

  // Four samples each fast cycle; a core cycle's first four wait for the others. No reset: what is there settles in
  // a few cycles.
  logic toggle_q, seen_q, seen_again_q;
  logic [3:0] four_q, first_q;
  logic [7:0] both_q, word_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) toggle_q <= 1'b0;
    else toggle_q <= !toggle_q;
  end
  always_ff @(posedge fast_clk_i) begin
    seen_q <= toggle_q;
    seen_again_q <= seen_q;
    four_q <= {direct[1], delayed[1], direct[0], delayed[0]};
    if (seen_q != seen_again_q) first_q <= four_q;
    else both_q <= {four_q, first_q};
  end
  // Two registers: a sample taken in the line's change settles in them.
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      word_q <= '0;
      word_o <= '0;
    end else begin
      word_q <= both_q;
      word_o <= word_q;
    end
  end
endmodule
