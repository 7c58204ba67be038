// SPDX-License-Identifier: Apache-2.0
// Carries stamp requests from a receive clock into card time, each by its number.
//
// Clock: the core clock, which card time counts. A change of toggle_i is seen through two flip-flops; the
// stamp is card time at the edge that sees it, two to three core periods after the change: a quantisation
// error uniform over one period when the clocks drift through each other, always within half a period (and
// the first flip-flop's undecided window) of its mean. Nothing is subtracted here: the constant is exported.
// Rounding to 2^-32 s: up from RoundFrom / 256 of a unit on, so that the stamp less the exported constant, a
// whole number of units, is card time less the exact one (28 ns, 120.259 units) rounded to nearest.
// gray_i is the number of the last request, in Gray code; it changes with toggle_i and is looked at a cycle later (the
// instant has one wire, whose delay is the same for each stamp). Each stamp waits at its number until number_i asks for it
// (valid_o: it is there) and take_i takes it away, with all that were requested before it: those have lost their
// frames. Requests that come too fast to be told apart have one stamp or none, at the last one's number; the
// others' frames find none. A number that comes again before its stamp was taken gets none: overflow_o for a cycle, a
// fault. gmii_rx keeps requests at least four of its cycles apart, and its FIFO brings a frame's end later
// than its stamp; frame_store takes each with its frame's end. flush_i: all that waits is forgotten.
module stamp_capture
  import twinstamp_pkg::*;
#(
  parameter int unsigned EpochBits = 8,
  parameter logic [7:0]  RoundFrom = 8'd194  // (1/2 + 0.259) * 256
) (
  input  logic                 clk_i,
  input  logic                 rst_ni,
  input  logic                 flush_i,
  input  logic                 toggle_i,
  input  logic                 late_i,
  input  logic [StampBits-1:0] gray_i,
  input  logic                 gray_late_i,
  input  logic [63:0]          now_q32_i,
  input  logic [7:0]           now_fraction_i,
  input  logic [EpochBits-1:0] epoch_i,
  input  logic [StampBits-1:0] number_i,
  output logic                 valid_o,
  output logic [63:0]          stamp_q32_o,
  output logic [EpochBits-1:0] epoch_o,
  input  logic                 take_i,
  output logic                 overflow_o
);
  localparam int unsigned Places = 2**StampBits;
  logic toggle, toggle_q;
  logic [StampBits-1:0] gray, number;
  sync_2ff u_sync (.clk_i, .rst_ni, .late_i, .d_i(toggle_i), .q_o(toggle));
  sync_2ff #(.Width(StampBits)) u_number (.clk_i, .rst_ni, .late_i(gray_late_i), .d_i(gray_i), .q_o(gray));
  for (genvar i = 0; i < int'(StampBits); i++) begin : gen_number
    assign number[i] = ^gray[StampBits-1:i];
  end

  logic [63:0] stamps [Places];
  logic [EpochBits-1:0] epochs [Places];
  logic [Places-1:0] waits_q, newer;
  // The stamp is rounded in the cycle of its request, and kept in the next.
  logic request, request_q, taken_q, again;
  logic [StampBits-1:0] taken_number_q, latest_q;
  logic [63:0] stamp_q;
  logic [EpochBits-1:0] epoch_q;
  assign request = toggle != toggle_q;
  assign again = waits_q[number];
  // Behind what was taken, in the order of requests.
  always_comb begin
    for (int unsigned i = 0; i < Places; i++) begin
      automatic logic [StampBits-1:0] behind = StampBits'(i) - taken_number_q;
      newer[i] = behind != '0 && behind <= StampBits'(latest_q - taken_number_q);
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      toggle_q <= 1'b0;
      request_q <= 1'b0;
      waits_q <= '0;
      taken_q <= 1'b0;
      taken_number_q <= '0;
      latest_q <= '0;
      overflow_o <= 1'b0;
    end else begin
      toggle_q <= toggle;
      request_q <= request;
      taken_q <= take_i;
      overflow_o <= request_q && again && !flush_i;
      if (take_i) taken_number_q <= number_i;
      if (flush_i) waits_q <= '0;
      else begin
        if (taken_q) waits_q <= waits_q & newer;
        if (request_q && !again) waits_q[number] <= 1'b1;
      end
      if (request_q) latest_q <= number;
    end
  end
  always_ff @(posedge clk_i) begin
    if (request) begin
      stamp_q <= now_q32_i + 64'(now_fraction_i >= RoundFrom);
      epoch_q <= epoch_i;
    end
    if (request_q && !again) begin
      stamps[number] <= stamp_q;
      epochs[number] <= epoch_q;
    end
  end
  assign valid_o = waits_q[number_i];
  assign stamp_q32_o = stamps[number_i];
  assign epoch_o = epochs[number_i];
endmodule
