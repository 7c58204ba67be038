// SPDX-License-Identifier: Apache-2.0
// For proofs of what stands around async_fifo, on one clock: same ports and depth, entries pass in one period.
// That async_fifo itself behaves like a FIFO is proved on its own.
module async_fifo #(
  parameter int unsigned Width = 8,
  parameter int unsigned DepthLog2 = 4
) (
  input  logic             wclk_i,
  input  logic             wrst_ni,
  input  logic             wvalid_i,
  input  logic [Width-1:0] wdata_i,
  output logic             wfull_o,
  input  logic             wlate_i,
  input  logic             rclk_i,
  input  logic             rrst_ni,
  output logic             rvalid_o,
  output logic [Width-1:0] rdata_o,
  input  logic             rready_i,
  input  logic             rlate_i
);
  logic [Width-1:0] memory [2**DepthLog2];
  logic [DepthLog2:0] w_q, r_q;
  assign wfull_o = w_q == {~r_q[DepthLog2], r_q[DepthLog2-1:0]};
  assign rvalid_o = w_q != r_q;
  assign rdata_o = memory[r_q[DepthLog2-1:0]];
  always_ff @(posedge wclk_i or negedge wrst_ni) begin
    if (!wrst_ni) begin
      w_q <= '0;
      r_q <= '0;
    end else begin
      if (wvalid_i && !wfull_o) w_q <= w_q + (DepthLog2+1)'(1);
      if (rvalid_o && rready_i) r_q <= r_q + (DepthLog2+1)'(1);
    end
  end
  always_ff @(posedge wclk_i) begin
    if (wvalid_i && !wfull_o) memory[w_q[DepthLog2-1:0]] <= wdata_i;
  end
endmodule
