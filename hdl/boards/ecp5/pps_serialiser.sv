// SPDX-License-Identifier: Apache-2.0
// ECP5: the word of pps_output onto a pin, every other sample of it: steps of 2 ns at 125 MHz.
//
// eclk_i: 250 MHz, edge clock; clk_i from it by CLKDIVF "2.0". Of each two samples the later one is sent for both, so
// a rising edge leaves up to 1 ns early, 0.5 ns in the mean; that and the gearing's constant latency go into
// pps.output_delay (docs/pps.md). Not run on a board.
module pps_serialiser (
  input  logic       clk_i,
  input  logic       eclk_i,
  input  logic       rst_ni,
  input  logic [7:0] word_i,
  output logic       pps_o
);
  logic [3:0] word_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) word_q <= '0;
    else word_q <= {word_i[7], word_i[5], word_i[3], word_i[1]};
  end
  logic unused;
  assign unused = &{word_i[6], word_i[4], word_i[2], word_i[0]};
  ODDRX2F u_out (
    .SCLK(clk_i), .ECLK(eclk_i), .RST(!rst_ni),
    .D0(word_q[0]), .D1(word_q[1]), .D2(word_q[2]), .D3(word_q[3]), .Q(pps_o)
  );
endmodule
