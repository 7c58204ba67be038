// SPDX-License-Identifier: Apache-2.0
// Carries GMII bytes from one clock to another of nearly the same frequency.
//
// Clocks: in_clk_i to out_clk_i, 200 ppm apart at most. A frame starts Delay periods after its first byte has
// crossed and then runs without a pause, so frames of 9 KiB neither run dry nor fill it; gaps change by what
// the clocks differ. A frame that runs dry all the same goes on with an error code; one that finds it full
// loses bytes: out of specification both.
module gmii_elastic #(
  parameter int unsigned Delay = 5
) (
  input  logic       in_clk_i,
  input  logic       in_rst_ni,
  input  logic [7:0] data_i,
  input  logic       en_i,
  input  logic       er_i,
  input  logic       out_clk_i,
  input  logic       out_rst_ni,
  output logic [7:0] data_o,
  output logic       en_o,
  output logic       er_o,
  output logic       idle_o,  // simulation: empty, on both sides
  input  logic [1:0] late_i   // simulation: [0] into in_clk_i, [1] into out_clk_i
);
  // One entry for each byte, one without en behind the last.
  logic en_q, valid, ready, running_q;
  logic [9:0] entry;
  logic [2:0] wait_q;
  always_ff @(posedge in_clk_i or negedge in_rst_ni) begin
    if (!in_rst_ni) en_q <= 1'b0;
    else en_q <= en_i;
  end
  async_fifo #(.Width(10), .DepthLog2(4)) u_fifo (
    .wclk_i(in_clk_i), .wrst_ni(in_rst_ni), .wflush_i(1'b0), .wvalid_i(en_i || en_q), .wdata_i({en_i, er_i, data_i}), .wfull_o(),
    .wlate_i(late_i[0]),
    .rclk_i(out_clk_i), .rrst_ni(out_rst_ni), .rflush_i(1'b0), .rbad_o(), .rvalid_o(valid), .rdata_o(entry), .rready_i(ready),
    .rlate_i(late_i[1])
  );
  assign ready = running_q;
  assign idle_o = !en_i && !en_q && !valid && !running_q && !en_o;
  always_ff @(posedge out_clk_i or negedge out_rst_ni) begin
    if (!out_rst_ni) begin
      running_q <= 1'b0;
      wait_q <= '0;
      data_o <= '0;
      en_o <= 1'b0;
      er_o <= 1'b0;
    end else begin
      data_o <= '0;
      en_o <= 1'b0;
      er_o <= 1'b0;
      if (!running_q) begin
        wait_q <= valid ? wait_q + 3'd1 : '0;
        if (valid && wait_q == 3'(Delay)) running_q <= 1'b1;
      end else begin
        wait_q <= '0;
        if (!valid) {en_o, er_o, data_o} <= {1'b1, 1'b1, 8'h0F};
        else if (entry[9]) {en_o, er_o, data_o} <= entry;
        else running_q <= 1'b0;
      end
    end
  end
endmodule
