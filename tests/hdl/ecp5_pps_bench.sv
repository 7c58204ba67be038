// SPDX-License-Identifier: Apache-2.0
// A pulse at every picosecond step of a cycle through the ECP5 sampler: the place in the word follows the pulse in
// steps of a nanosecond; and a word through the serialiser.
`timescale 1ps/1ps
module ecp5_pps_bench;
  logic clk = 0, fast_clk = 0, rst_n = 0, pps = 0, out;
  logic [7:0] word, sent = 0;
  always #2000 fast_clk = ~fast_clk;
  always #4000 clk = ~clk;  // from the same PLL: its edges are rising ones of fast_clk
  pps_sampler u_sampler (.clk_i(clk), .fast_clk_i(fast_clk), .rst_ni(rst_n), .pps_i({pps, pps}), .word_o(word));
  pps_serialiser u_serialiser (.clk_i(clk), .fast_clk_i(fast_clk), .rst_ni(rst_n), .word_i(sent), .pps_o(out));

  longint edge_ps, place, first, least, most, rise;
  longint out_ps;
  always @(posedge out) out_ps = $time;
  int ones;
  initial #100_000_000 $fatal(1, "no end: word %b, out %b", word, out);
  initial begin
    least = 64'd1 << 60;
    most = -(64'd1 << 60);
    #100_000 rst_n = 1;
    #100_000;
    for (int k = 0; k < 200; k++) begin
      @(posedge clk);
      #(40 * k + 17) pps = 1;
      edge_ps = $time;
      // The end of the word's first cycle that shows it, less its ones: the edge, and a constant.
      do @(negedge clk); while (word == 0);
      ones = $countones(word);
      if (word != 8'(8'hFF << (8 - ones))) $fatal(1, "word %b is not ordered", word);
      place = $time - 4000 - 1000 * ones;
      if (place - edge_ps < least) least = place - edge_ps;
      if (place - edge_ps > most) most = place - edge_ps;
      @(negedge clk);
      if (word != 8'hFF) $fatal(1, "word %b after the edge", word);
      pps = 0;
      #100_000;
    end
    if (most - least > 1000 || most - least < 900) $fatal(1, "error from %0d to %0d ps", least, most);

    first = 0;
    for (int p = 0; p < 8; p++) begin
      @(negedge clk) sent = 8'(8'hFF << p);
      @(posedge clk) edge_ps = $time;
      @(negedge clk) sent = 8'hFF;
      #50_000 rise = out_ps - edge_ps;
      if (p == 0) first = rise;
      if (rise - first != 2000 * (p / 2)) $fatal(1, "sample %0d leaves after %0d ps, the first after %0d", p, rise, first);
      @(negedge clk) sent = 0;
      #100_000;
    end
    $display("sampler %0d..%0d ps, serialiser %0d ps: good", least, most, first);
    $finish;
  end
endmodule
