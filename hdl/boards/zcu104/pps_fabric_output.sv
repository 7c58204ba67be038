// SPDX-License-Identifier: Apache-2.0
// The word of pps_output onto a pin, in steps of 1 ns at 125 MHz, from plain registers: for pins of HD banks, which
// have no serialiser.
//
// clk500_i (500 MHz) and clk_i come from one MMCM, their rising edges together. Even samples leave at rising edges of
// clk500_i, odd ones at falling ones; the pin has either of them, so rising edges are exact to the two registers'
// difference and falling ones up to 1 ns late. Latency from the word to the pin: constant (reset sets its phase),
// goes into pps.output_delay (docs/pps.md). Not run on a board.
module pps_fabric_output (
  input  logic       clk_i,
  input  logic       clk500_i,
  input  logic       rst_ni,
  input  logic [7:0] word_i,
  output logic       pps_o
);
  logic [7:0] word_q, shift_q;
  logic turn_q, seen_q, before_q, even_q, odd_next_q, odd_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      turn_q <= 1'b0;
      word_q <= '0;
    end else begin
      turn_q <= !turn_q;
      word_q <= word_i;
    end
  end
  // A turn says that word_q is new; it is taken two periods later, when it has long been there.
  always_ff @(posedge clk500_i) begin
    seen_q <= turn_q;
    before_q <= seen_q;
    shift_q <= seen_q != before_q ? word_q : {2'b00, shift_q[7:2]};
    even_q <= shift_q[0];
    odd_next_q <= shift_q[1];
  end
  always_ff @(negedge clk500_i) odd_q <= odd_next_q;
  assign pps_o = even_q || odd_q;
endmodule
