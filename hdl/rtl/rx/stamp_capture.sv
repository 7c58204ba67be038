// SPDX-License-Identifier: Apache-2.0
// Carries stamp requests from a receive clock into card time.
//
// Clock: the core clock, which card time counts. A change of toggle_i is seen through two flip-flops; the
// stamp is card time at the edge that sees it, two to three core periods after the change: a quantisation
// error uniform over one period when the clocks drift through each other, always within half a period (and
// the first flip-flop's undecided window) of its mean. Nothing is subtracted here: the constant is exported.
// Rounding to 2^-32 s: up from RoundFrom / 256 of a unit on, so that the stamp less the exported constant, a
// whole number of units, is card time less the exact one (28 ns, 120.259 units) rounded to nearest.
// Stamps wait in order, eight at most; gmii_rx keeps requests at least four of its cycles apart, frame_store
// takes each with its frame's end, so the queue cannot fill (overflow_o says if it did: a fault).
module stamp_capture #(
  parameter int unsigned EpochBits = 8,
  parameter logic [7:0]  RoundFrom = 8'd194  // (1/2 + 0.259) * 256
) (
  input  logic                 clk_i,
  input  logic                 rst_ni,
  input  logic                 toggle_i,
  input  logic                 late_i,
  input  logic [63:0]          now_q32_i,
  input  logic [7:0]           now_fraction_i,
  input  logic [EpochBits-1:0] epoch_i,
  output logic                 valid_o,
  output logic [63:0]          stamp_q32_o,
  output logic [EpochBits-1:0] epoch_o,
  input  logic                 ready_i,
  output logic                 overflow_o
);
  logic toggle, toggle_q;
  sync_2ff u_sync (.clk_i, .rst_ni, .late_i, .d_i(toggle_i), .q_o(toggle));

  logic [63:0] stamps [8];
  logic [EpochBits-1:0] epochs [8];
  logic [3:0] wptr_q, rptr_q;
  // The stamp is rounded in the cycle of its request, and kept in the next.
  logic request, request_q, full;
  logic [63:0] stamp_q;
  logic [EpochBits-1:0] epoch_q;
  assign request = toggle != toggle_q;
  assign full = wptr_q == {~rptr_q[3], rptr_q[2:0]};

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      toggle_q <= 1'b0;
      request_q <= 1'b0;
      wptr_q <= '0;
      rptr_q <= '0;
      overflow_o <= 1'b0;
    end else begin
      toggle_q <= toggle;
      request_q <= request;
      if (request_q && !full) wptr_q <= wptr_q + 4'd1;
      if (request_q && full) overflow_o <= 1'b1;
      if (valid_o && ready_i) rptr_q <= rptr_q + 4'd1;
    end
  end
  always_ff @(posedge clk_i) begin
    if (request) begin
      stamp_q <= now_q32_i + 64'(now_fraction_i >= RoundFrom);
      epoch_q <= epoch_i;
    end
    if (request_q && !full) begin
      stamps[wptr_q[2:0]] <= stamp_q;
      epochs[wptr_q[2:0]] <= epoch_q;
    end
  end
  assign valid_o = wptr_q != rptr_q;
  assign stamp_q32_o = stamps[rptr_q[2:0]];
  assign epoch_o = epochs[rptr_q[2:0]];
endmodule
