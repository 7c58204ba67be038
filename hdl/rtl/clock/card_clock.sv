// SPDX-License-Identifier: Apache-2.0
// Card time: seconds of TAI, 32.32, from an accumulator with 72 fraction bits, stepped by the core clock.
//
// Clock: the core clock. now_q32_o is the accumulator's upper part at this edge, cut off at 2^-32 s;
// now_fraction_o the next eight bits, for whoever rounds. Monotone: rate and slew only
// change what is added, and what is added is always positive (increment at least 7.68 ns, slew step at most
// 3.73 ns). load_i sets a new time when neither locked_i nor armed_i, and starts a new epoch; otherwise it
// is refused (refused_o pulses). Latency: an adjustment acts two cycles after its write.
module card_clock (
  input  logic         clk_i,
  input  logic         rst_ni,
  input  logic         increment_write_i,
  input  logic [47:0]  increment_q72_i,
  input  logic         slew_write_i,
  input  logic [63:0]  slew_amount_q64_i,
  input  logic [35:0]  slew_step_q64_i,
  input  logic         load_i,
  input  logic [63:0]  load_q32_i,
  input  logic         locked_i,
  input  logic         armed_i,
  output logic [103:0] now_q72_o,
  output logic [63:0]  now_q32_o,
  output logic [7:0]   now_fraction_o,
  output logic [48:0]  added_q72_o,   // what the last edge added
  output logic [63:0]  slew_left_q64_o,
  output logic [31:0]  epoch_o,
  output logic         load_refused_o,
  output logic         increment_refused_o
);
  localparam logic [47:0] NominalQ72 = 48'h225C17D04DAD;  // 8 ns

  logic [103:0] now_q;
  logic [47:0] increment_q;
  logic [48:0] addend_q;
  logic [63:0] left_q;
  logic [31:0] epoch_q;
  logic increment_written_q, slew_written_q;

  logic signed [64:0] step, left;
  logic [35:0] step_size;
  assign step_size = slew_step_q64_i == '0 ? 36'd1 : slew_step_q64_i;
  assign left = $signed({left_q[63], left_q});
  always_comb begin
    step = '0;
    if (left > 65'sd0) step = left < $signed({29'b0, step_size}) ? left : $signed({29'b0, step_size});
    if (left < 65'sd0) step = -left < $signed({29'b0, step_size}) ? left : -$signed({29'b0, step_size});
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      now_q <= '0;
      increment_q <= NominalQ72;
      addend_q <= 49'(NominalQ72);
      left_q <= '0;
      epoch_q <= '0;
      added_q72_o <= '0;
      increment_written_q <= 1'b0;
      slew_written_q <= 1'b0;
      load_refused_o <= 1'b0;
      increment_refused_o <= 1'b0;
    end else begin
      load_refused_o <= 1'b0;
      increment_refused_o <= 1'b0;
      increment_written_q <= increment_write_i;
      slew_written_q <= slew_write_i;
      if (increment_written_q) begin
        if (increment_q72_i[47:40] >= 8'h21 && increment_q72_i[47:40] <= 8'h23) increment_q <= increment_q72_i;
        else increment_refused_o <= 1'b1;
      end
      addend_q <= 49'(increment_q) + {step[40:0], 8'b0};
      left_q <= slew_written_q ? slew_amount_q64_i : 64'(left - step);
      now_q <= now_q + 104'(addend_q);
      added_q72_o <= addend_q;
      if (load_i) begin
        if (locked_i || armed_i) load_refused_o <= 1'b1;
        else begin
          now_q <= {load_q32_i, 40'b0};
          epoch_q <= epoch_q + 32'd1;
        end
      end
    end
  end

  assign now_q72_o = now_q;
  assign now_q32_o = now_q[103:40];
  assign now_fraction_o = now_q[39:32];
  assign slew_left_q64_o = left_q;
  assign epoch_o = epoch_q;
endmodule
