// SPDX-License-Identifier: Apache-2.0
// stamp_capture: every change of the request is stamped once, in order, with card time two or three core
// edges after it; nothing is lost where the receive side keeps requests apart and takes its stamps.
// The receive side is any register that keeps its value for two core periods at least; card time counts
// edges, 16 units each, and every other one is to be rounded up. One request, chosen freely, is watched.
module stamp_capture_formal (
  input logic clk_i,
  input logic request_i,
  input logic late_i,
  input logic ready_i,
  input logic watch_i
);
  logic rst_n = 1'b0;
  always_ff @(posedge clk_i) rst_n <= 1'b1;

  // Edge n of the core clock samples toggle_i as it stands before that edge: changes between edges n-1 and n
  // are what a step of this model shows.
  logic toggle_q = 1'b0, recent_q = 1'b0;
  logic [15:0] now_q = '0;
  logic [3:0] asked_q = '0, taken_q = '0;
  logic ask;
  logic valid, overflow;
  logic [63:0] stamp;
  logic [7:0] epoch;
  assign ask = rst_n && request_i && !recent_q && 4'(asked_q - taken_q) != 4'd8;
  logic toggle;
  assign toggle = toggle_q ^ ask;
  always_ff @(posedge clk_i) begin
    now_q <= now_q + 16'd1;
    toggle_q <= toggle;
    recent_q <= ask;
    if (ask) asked_q <= asked_q + 4'd1;
    if (rst_n && valid && ready_i) taken_q <= taken_q + 4'd1;
  end

  stamp_capture u_capture (
    .clk_i, .rst_ni(rst_n), .toggle_i(toggle), .late_i, .now_q32_i({44'b0, now_q, 4'b0}),
    .now_fraction_i(now_q[0] ? 8'd194 : 8'd193), .epoch_i(now_q[15:8]),
    .valid_o(valid), .stamp_q32_o(stamp), .epoch_o(epoch), .ready_i, .overflow_o(overflow)
  );

  // The watched request: its number and its edge. A watch ends when its stamp is taken.
  logic watched_q = 1'b0;
  logic [3:0] number_q = '0;
  logic [15:0] edge_q = '0;
  always_ff @(posedge clk_i) begin
    if (watched_q && rst_n && valid && ready_i && taken_q == number_q) watched_q <= 1'b0;
    else if (!watched_q && ask && watch_i) begin
      watched_q <= 1'b1;
      number_q <= asked_q;
      edge_q <= now_q;
    end
  end

  logic [15:0] age;
  assign age = now_q - edge_q;

  always_comb begin
    if (rst_n) begin
      assert (!overflow);
      if (valid) assert (taken_q != asked_q);
      if (valid && watched_q && taken_q == number_q) begin
        assert (stamp[63:20] == '0 && (stamp[19:4] == 16'(edge_q + 16'd2) || stamp[19:4] == 16'(edge_q + 16'd3)));
        assert (stamp[3:0] == {3'b0, stamp[4]});
        assert (epoch == stamp[19:12]);
      end
      if (watched_q && taken_q == number_q && age == 16'd5) assert (valid);
    end
    cover (rst_n && asked_q == 4'd8 && taken_q == 4'd0 && age == 16'd6 && watched_q && number_q == 4'd7);
    cover (rst_n && watched_q && valid && taken_q == number_q && stamp[19:4] == edge_q + 16'd2);
    cover (rst_n && watched_q && valid && taken_q == number_q && stamp[19:4] == edge_q + 16'd3);
  end
endmodule
