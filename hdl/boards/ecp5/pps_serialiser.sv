// SPDX-License-Identifier: Apache-2.0
// ECP5: the word of pps_output onto a pin, every other sample of it: steps of 2 ns at 125 MHz.
//
// fast_clk_i: 250 MHz, in step with clk_i; the pin's cell sends two samples a cycle of it (ODDRX1F, FPGA-TN-02035), so
// any pin does. Of each two samples the later one is sent for both, so a rising edge leaves up to 1 ns early, 0.5 ns in
// the mean; that and the constant latency go into pps.output_delay (docs/pps.md). Not run on a board.
module pps_serialiser (
  input  logic       clk_i,
  input  logic       fast_clk_i,
  input  logic       rst_ni,
  input  logic [7:0] word_i,
  output logic       pps_o
);
  logic [3:0] word_q;
  logic toggle_q, seen_q, seen_again_q;
  logic [1:0] pair_q, second_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      word_q <= '0;
      toggle_q <= 1'b0;
    end else begin
      word_q <= {word_i[7], word_i[5], word_i[3], word_i[1]};
      toggle_q <= !toggle_q;
    end
  end
  // The fast cycle in which a new toggle is first seen takes the word, which is as new; the next one its other half.
  always_ff @(posedge fast_clk_i) begin
    seen_q <= toggle_q;
    seen_again_q <= seen_q;
    if (seen_q != seen_again_q) {second_q, pair_q} <= word_q;
    else pair_q <= second_q;
  end
  ODDRX1F u_out (.SCLK(fast_clk_i), .RST(1'b0), .D0(pair_q[0]), .D1(pair_q[1]), .Q(pps_o));
  logic unused;
  assign unused = &{word_i[6], word_i[4], word_i[2], word_i[0]};
endmodule
