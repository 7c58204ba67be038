// SPDX-License-Identifier: Apache-2.0
// Card time: seconds of TAI, 32.32, from an accumulator with 72 fraction bits, stepped by the core clock.
//
// Clock: the core clock. now_q32_o is the accumulator's upper part at this edge, cut off at 2^-32 s;
// now_fraction_o the next eight bits, for whoever rounds. Monotone: rate and slew only
// change what is added, and what is added is always positive (increment at least 7.68 ns, slew step at most
// 3.73 ns). next_q32_o: what now_q32_o will be a cycle later (but for a load), for whoever compares ahead.
// load_i sets a new time when neither locked_i nor armed_i, starts a new epoch and ends a slew under way, which
// was meant for the old time; otherwise it is refused (refused_o pulses) and changes nothing. Latency: an
// adjustment acts four cycles after its write.
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
  output logic [63:0]  next_q32_o,
  output logic [48:0]  added_q72_o,   // what the last edge added
  output logic [7:0]   now_fraction_o,
  output logic [63:0]  slew_left_q64_o,
  output logic [31:0]  epoch_o,
  output logic         load_refused_o,
  output logic         increment_refused_o
);
  localparam logic [47:0] NominalQ72 = 48'h225C17D04DAD;  // 8 ns

  // The accumulator runs a cycle ahead of card time.
  logic [103:0] next_q, now_q;
  logic [47:0] increment_q;
  logic [48:0] addend_q, adding_q;
  logic [63:0] left_q;
  logic [31:0] epoch_q;
  logic increment_written_q, slew_written_q;

  // A step is what is left of the slew, at most slew_step_q64_i. Whether a whole step is left is worked out a cycle
  // ahead: |left| against one step, or two where one is being taken. After a write, of the amount or of the step, a
  // cycle goes by without a step. (-x is ~(x - 1): one addition each.)
  logic [35:0] step_size, size_q, less_q;   // less_q: size_q - 1
  logic negative, fresh_q, whole_q, whole;
  logic [64:0] against;
  logic beyond;                             // the sign of what is left, less that
  logic [63:0] towards;
  logic [40:0] step;
  assign step_size = slew_step_q64_i == '0 ? 36'd1 : slew_step_q64_i;
  assign negative = left_q[63];
  assign against = whole_q && !fresh_q ? {28'b0, less_q, 1'b1} : {29'b0, less_q};
  assign beyond = 1'(({negative, left_q} + (negative ? against : ~against)) >> 64);
  assign whole = (whole_q || fresh_q) && beyond == negative;
  assign towards = fresh_q ? '0 : negative ? {28'b0, size_q} : {28'hFFFFFFF, ~less_q};
  always_comb begin
    if (fresh_q) step = '0;
    else if (whole_q) step = negative ? {5'h1F, ~less_q} : {5'b0, size_q};
    else step = left_q[40:0];
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      next_q <= 104'(NominalQ72);
      now_q <= '0;
      increment_q <= NominalQ72;
      addend_q <= 49'(NominalQ72);
      adding_q <= 49'(NominalQ72);
      left_q <= '0;
      epoch_q <= '0;
      size_q <= 36'd1;
      less_q <= '0;
      {whole_q, fresh_q} <= '0;
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
      size_q <= step_size;
      less_q <= step_size - 36'd1;
      fresh_q <= slew_written_q || step_size != size_q;
      whole_q <= whole;
      left_q <= slew_written_q ? slew_amount_q64_i : whole_q || fresh_q ? left_q + towards : '0;
      addend_q <= 49'(increment_q) + {step, 8'b0};
      adding_q <= addend_q;
      next_q <= next_q + 104'(addend_q);
      now_q <= next_q;
      added_q72_o <= adding_q;
      if (load_i) begin
        if (locked_i || armed_i) load_refused_o <= 1'b1;
        else begin
          now_q <= {load_q32_i, 40'b0};
          next_q <= {load_q32_i, 40'b0} + 104'(increment_q);
          addend_q <= 49'(increment_q);
          left_q <= '0;
          {whole_q, fresh_q} <= '0;
          epoch_q <= epoch_q + 32'd1;
        end
      end
    end
  end

  assign now_q72_o = now_q;
  assign now_q32_o = now_q[103:40];
  assign next_q32_o = next_q[103:40];
  assign now_fraction_o = now_q[39:32];
  assign slew_left_q64_o = left_q;
  assign epoch_o = epoch_q;
endmodule
