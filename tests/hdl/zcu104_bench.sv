// SPDX-License-Identifier: Apache-2.0
// The ZCU104's pins with models of its cells: a pulse at steps of 40 ps of a cycle through the sampler, a word for
// each of its samples through the output, and random GMII from one port's transmitter into its receiver.
`timescale 1ps/1ps
module zcu104_bench;
  logic clk = 0, clk90 = 0, clk500 = 0, rst_n = 0, pps = 0, out;
  logic [7:0] word, sent = 0;
  // All at once, as one MMCM makes them.
  int unsigned step = 0;
  initial forever begin
    #1000 step++;
    {clk500, clk, clk90} = {step % 2 == 0, step % 8 >= 4, step % 8 >= 6 || step % 8 < 2};
  end
  pps_fabric_sampler u_sampler (.clk_i(clk), .clk500_i(clk500), .pps_i(pps), .word_o(word));
  pps_fabric_output u_output (.clk_i(clk), .clk500_i(clk500), .rst_ni(rst_n), .word_i(sent), .pps_o(out));

  logic txc, tx_ctl, rx_clk, rx_dv, rx_er, tx_en = 0, tx_er = 0;
  logic [3:0] td;
  logic [7:0] rxd, txd = 0;
  rgmii_pins #(.RxDelayPs(600)) u_pins (
    .rst_ni(rst_n), .clk_i(clk), .clk90_i(clk90), .rxc_i(txc), .rd_i(td), .rx_ctl_i(tx_ctl),
    .txc_o(txc), .td_o(td), .tx_ctl_o(tx_ctl), .rx_clk_o(rx_clk), .rxd_o(rxd), .rx_dv_o(rx_dv), .rx_er_o(rx_er),
    .txd_i(txd), .tx_en_i(tx_en), .tx_er_i(tx_er)
  );
  // What was sent comes back in order; the way from txd to rxd is measured, and constant.
  logic [9:0] queue [$];
  int unsigned compared = 0;
  logic compare = 0;
  always @(negedge clk) if (compare) begin
    txd = 8'($urandom);
    tx_en = 1'($urandom);
    tx_er = 1'($urandom);
    queue.push_back({tx_en, tx_er, txd});
  end
  always @(negedge rx_clk) if (compare && queue.size() > 4) begin
    if (compared == 0) while (queue[0] != {rx_dv, rx_er, rxd} && queue.size() > 0) void'(queue.pop_front());
    if (queue.size() == 0) $fatal(1, "nothing that was sent comes back");
    if (queue[0] != {rx_dv, rx_er, rxd})
      $fatal(1, "received %h, sent %h, after %0d", {rx_dv, rx_er, rxd}, queue[0], compared);
    void'(queue.pop_front());
    compared++;
  end

  longint edge_ps, place, first, least, most, rise, latency;
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
      do @(negedge clk); while (word == 0);
      ones = $countones(word);
      if (word != 8'(8'hFF << (8 - ones))) $fatal(1, "word %b is not ordered", word);
      // The earliest sample that is 1, as if the last one were taken at the edge that shows the word.
      latency = ($time - 4000) - 1000 * (ones - 1) - edge_ps;
      if (latency < least) least = latency;
      if (latency > most) most = latency;
      @(negedge clk);
      if (word != 8'hFF) $fatal(1, "word %b after the edge", word);
      pps = 0;
      #100_000;
    end
    if (most - least > 1000 || most - least < 900) $fatal(1, "error from %0d to %0d ps", least, most);
    // As its header says: the last sample 5 ns before the edge that shows it; the pulse up to 1 ns before a sample.
    if (least < 5000 || most > 6000) $fatal(1, "samples are %0d to %0d ps late", least, most);

    first = 0;
    for (int p = 0; p < 8; p++) begin
      @(negedge clk) sent = 8'(8'hFF << p);
      @(posedge clk) edge_ps = $time;
      @(negedge clk) sent = 8'hFF;
      #50_000 rise = out_ps - edge_ps;
      if (p == 0) first = rise;
      if (rise - first != 1000 * p) $fatal(1, "sample %0d leaves after %0d ps, the first after %0d", p, rise, first);
      @(negedge clk) sent = 0;
      #100_000;
      if (out) $fatal(1, "the pulse does not end");
    end

    compare = 1;
    #20_000_000;
    compare = 0;
    if (compared < 2000) $fatal(1, "only %0d bytes came back", compared);
    $display("sampler %0d..%0d ps, output %0d ps, %0d bytes: good", least, most, first, compared);
    $finish;
  end
endmodule
