// SPDX-License-Identifier: Apache-2.0
// Eight samples of the PPS line per core clock cycle, 1 ns apart at 125 MHz, for pps_capture, in plain registers.
//
// For pins without a deserialiser: those of HD banks, the only ones that take 3.3 V (UG571, table 2-19). clk500_i
// (500 MHz) and clk_i come from one MMCM, their rising edges together. The line is sampled at both edges of clk500_i.
// Where the samples lie between one another depends on the duty cycle of clk500_i and on how the two ways from the
// pin to even_q and odd_q differ: the constraint owed is a bound on both, and the timing report says what they are; half
// their difference widens the capture's error. Latency: the latest sample of word_o is taken 5 ns before the edge of
// clk_i that first shows it in word_o, less the way from the pin; a constant for pps.cable_delay (docs/pps.md).
// word_o: earliest sample in bit 0. Not run on a board.
module pps_fabric_sampler (
  input  logic       clk_i,
  input  logic       clk500_i,
  input  logic       pps_i,
  output logic [7:0] word_o
);
  // Even samples at the rising edge, odd ones at the falling one, 1 ns later.
  (* ASYNC_REG = "TRUE" *) logic even_q, odd_q;
  (* ASYNC_REG = "TRUE" *) logic [1:0] second_q;
  logic [7:0] shift_q;
  always_ff @(posedge clk500_i) even_q <= pps_i;
  always_ff @(negedge clk500_i) odd_q <= pps_i;
  always_ff @(posedge clk500_i) begin
    second_q <= {odd_q, even_q};
    shift_q <= {second_q, shift_q[7:2]};
  end
  always_ff @(posedge clk_i) word_o <= shift_q;
endmodule
