// SPDX-License-Identifier: Apache-2.0
// FIFO between two clocks, Gray-coded pointers (Cummings, SNUG 2002).
//
// Write side wclk_i, read side rclk_i; each side's reset is released in its own clock. An entry can be read
// three to four rclk_i edges after it was written. Overflow policy: a write while wfull_o is not taken; the
// writer must look. Depth: 2^DepthLog2, 2 to 10. rdata_o is valid while rvalid_o (first word falls through);
// rready_i takes it. wflush_i and rflush_i empty their sides and keep them so: both must be high for four periods of
// either clock together, whatever the pointers say. rbad_o: the pointers cannot be right (a clock had an edge
// that was none). Owed by the integrator: as sync_2ff, for both pointers; rdata_o comes from registers
// of the write clock that are stable while rvalid_o.
module async_fifo #(
  parameter int unsigned Width = 8,
  parameter int unsigned DepthLog2 = 4
) (
  input  logic             wclk_i,
  input  logic             wrst_ni,
  input  logic             wflush_i,
  input  logic             wvalid_i,
  input  logic [Width-1:0] wdata_i,
  output logic             wfull_o,
  input  logic             wlate_i,

  input  logic             rclk_i,
  input  logic             rrst_ni,
  input  logic             rflush_i,
  output logic             rbad_o,
  output logic             rvalid_o,
  output logic [Width-1:0] rdata_o,
  input  logic             rready_i,
  input  logic             rlate_i
);
  if (DepthLog2 < 2 || DepthLog2 > 10) $fatal(1, "async_fifo: DepthLog2 must be 2 to 10");

  localparam int unsigned P = DepthLog2 + 1;
  (* ram_style = "distributed" *) logic [Width-1:0] memory [2**DepthLog2];
  logic [P-1:0] wptr_q, wgray_q, rptr_q, rgray_q, wgray_r, rgray_w;
  logic [P-1:0] wptr_d, rptr_d;

  assign wfull_o = wgray_q == {~rgray_w[P-1:P-2], rgray_w[P-3:0]};
  assign wptr_d = wptr_q + P'(wvalid_i && !wfull_o);
  always_ff @(posedge wclk_i or negedge wrst_ni) begin
    if (!wrst_ni) begin
      wptr_q  <= '0;
      wgray_q <= '0;
    end else if (wflush_i) begin
      wptr_q  <= '0;
      wgray_q <= '0;
    end else begin
      wptr_q  <= wptr_d;
      wgray_q <= wptr_d ^ (wptr_d >> 1);
    end
  end
  always_ff @(posedge wclk_i) begin
    if (wvalid_i && !wfull_o) memory[wptr_q[DepthLog2-1:0]] <= wdata_i;
  end

  assign rvalid_o = rgray_q != wgray_r;
  assign rdata_o = memory[rptr_q[DepthLog2-1:0]];
  assign rptr_d = rptr_q + P'(rvalid_o && rready_i);
  always_ff @(posedge rclk_i or negedge rrst_ni) begin
    if (!rrst_ni) begin
      rptr_q  <= '0;
      rgray_q <= '0;
    end else if (rflush_i) begin
      rptr_q  <= '0;
      rgray_q <= '0;
    end else begin
      rptr_q  <= rptr_d;
      rgray_q <= rptr_d ^ (rptr_d >> 1);
    end
  end

  logic [P-1:0] written, level_q;
  for (genvar i = 0; i < int'(P); i++) begin : gen_written
    assign written[i] = ^wgray_r[P-1:i];
  end
  always_ff @(posedge rclk_i or negedge rrst_ni) begin
    if (!rrst_ni) level_q <= '0;
    else level_q <= rflush_i ? '0 : written - rptr_q;
  end
  assign rbad_o = level_q[P-1] && level_q[P-2:0] != '0;

  sync_2ff #(.Width(P)) u_w2r (
    .clk_i(rclk_i), .rst_ni(rrst_ni), .late_i(rlate_i), .d_i(wgray_q), .q_o(wgray_r)
  );
  sync_2ff #(.Width(P)) u_r2w (
    .clk_i(wclk_i), .rst_ni(wrst_ni), .late_i(wlate_i), .d_i(rgray_q), .q_o(rgray_w)
  );
endmodule
