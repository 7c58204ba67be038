// SPDX-License-Identifier: Apache-2.0
// stamp_capture: every request is stamped once, with card time two or three core edges after it, and found under its
// number and no other, also where frames in between are never asked for.
// The receive side is any register that keeps its value for three core periods at least, at most fifteen requests
// ahead (toggle and number may each be seen a period late);
// card time counts edges, 16 units each, and every other one is to be rounded up. One request, chosen freely,
// is watched; which numbers are asked for, in order, is free too.
module stamp_capture_formal
  import twinstamp_pkg::*;
(
  input logic clk_i,
  input logic request_i,
  input logic late_i,
  input logic gray_late_i,
  input logic ready_i,
  input logic [1:0] skip_i,
  input logic watch_i
);
  logic rst_n = 1'b0;
  always_ff @(posedge clk_i) rst_n <= 1'b1;

  // Edge n of the core clock samples the number as it stands before that edge: changes between edges n-1 and n
  // are what a step of this model shows. asked_q: requests so far; taken_q: the last number that was taken.
  logic [1:0] recent_q = '0;
  logic [15:0] now_q = '0;
  logic [5:0] asked_q = '0, taken_q = '0, asked, want;
  logic ask, valid, overflow, take;
  logic [63:0] stamp;
  logic [7:0] epoch;
  assign ask = rst_n && request_i && recent_q == '0 && 6'(asked_q - taken_q) < 6'd15;
  assign asked = asked_q + 6'(ask);
  // The next one, or up to three later where those have been requested.
  assign want = 6'(asked_q - taken_q) > 6'(skip_i) ? taken_q + 6'd1 + 6'(skip_i) : taken_q + 6'd1;
  assign take = rst_n && valid && ready_i && asked_q != taken_q;
  always_ff @(posedge clk_i) begin
    now_q <= now_q + 16'd1;
    recent_q <= {recent_q[0], ask};
    asked_q <= asked;
    if (take) taken_q <= want;
  end

  stamp_capture u_capture (
    .clk_i, .rst_ni(rst_n), .flush_i(1'b0), .toggle_i(asked[0]), .late_i,
    .gray_i(asked[3:0] ^ asked[3:0] >> 1), .gray_late_i,
    .now_q32_i({44'b0, now_q, 4'b0}), .now_fraction_i(now_q[0] ? 8'd194 : 8'd193), .epoch_i(now_q[15:8]),
    .number_i(want[3:0]), .valid_o(valid), .stamp_q32_o(stamp), .epoch_o(epoch), .take_i(take),
    .overflow_o(overflow)
  );

  // The watched request: its number and its edge. A watch ends when its stamp, or a later one, is taken.
  logic watched_q = 1'b0;
  logic [5:0] number_q = '0;
  logic [15:0] edge_q = '0;
  always_ff @(posedge clk_i) begin
    if (watched_q && take && 6'(want - number_q) < 6'd32) watched_q <= 1'b0;
    else if (!watched_q && ask && watch_i) begin
      watched_q <= 1'b1;
      number_q <= asked;
      edge_q <= now_q;
    end
  end

  logic [15:0] age;
  assign age = now_q - edge_q;

  always_comb begin
    if (rst_n) begin
      assert (!overflow);
      // Nothing stands under a number that was not requested.
      if (asked_q == taken_q) assert (!valid);
      if (valid && watched_q && want == number_q) begin
        assert (stamp[63:20] == '0 && (stamp[19:4] == 16'(edge_q + 16'd2) || stamp[19:4] == 16'(edge_q + 16'd3)));
        assert (stamp[3:0] == {3'b0, stamp[4]});
        assert (epoch == stamp[19:12]);
      end
      if (watched_q && want == number_q && age >= 16'd5) assert (valid);
    end
    cover (rst_n && asked_q == 6'd15 && taken_q == 6'd0 && age == 16'd6 && watched_q && number_q == 6'd15);
    cover (rst_n && watched_q && take && want == number_q && stamp[19:4] == edge_q + 16'd2);
    cover (rst_n && watched_q && take && want == number_q && stamp[19:4] == edge_q + 16'd3);
    cover (rst_n && watched_q && take && want == number_q && number_q == 6'd18 && taken_q == 6'd14);
  end
endmodule
