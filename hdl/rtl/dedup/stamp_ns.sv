// SPDX-License-Identifier: Apache-2.0
// A stamp in integer nanoseconds, as the driver has it: less its port's constant, rounded to nearest, ties up.
//
// Clock: the core clock. Latency: valid_o eight cycles after the cycle that takes a stamp (valid_i and ready_o);
// the results stay until ready_i. One stamp at a time.
// time_o = round(10^9 (q32_i - constant_q32_i) / 2^32); low_o = time_o - window_ns_i, not below 0.
module stamp_ns (
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic        valid_i,
  output logic        ready_o,
  input  logic [63:0] q32_i,
  input  logic [31:0] constant_q32_i,
  input  logic [61:0] window_ns_i,
  output logic        valid_o,
  input  logic        ready_i,
  output logic [61:0] time_o,
  output logic [61:0] low_o
);
  logic [7:1]  step_q;
  logic [31:0] half_q;        // of the stamp: seconds, then fraction; a register of the multiplier's own
  logic [63:0] stamp_q, product;
  logic [61:0] seconds_q;     // in ns
  logic [62:0] low;
  logic valid_q;
  assign ready_o = step_q == '0 && (!valid_q || ready_i);
  mul32 u_multiply (
    .clk_i, .enable_i(step_q != '0),
    .a_i(half_q), .b_i(32'd1_000_000_000), .product_o(product)
  );
  assign low = {1'b0, time_o} - {1'b0, window_ns_i};

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      step_q <= '0;
      stamp_q <= '0;
      seconds_q <= '0;
      time_o <= '0;
      low_o <= '0;
      valid_q <= 1'b0;
    end else begin
      step_q <= {step_q[6:1], valid_i && ready_o};
      if (ready_i) valid_q <= 1'b0;
      if (valid_i && ready_o) stamp_q <= q32_i - {32'b0, constant_q32_i};
      if (step_q[5]) seconds_q <= product[61:0];
      if (step_q[6]) time_o <= seconds_q + {30'b0, product[63:32]} + {61'b0, product[31]};
      if (step_q[7]) low_o <= low[62] ? '0 : low[61:0];
      if (step_q[7]) valid_q <= 1'b1;
    end
  end
  always_ff @(posedge clk_i) half_q <= step_q[1] ? stamp_q[63:32] : stamp_q[31:0];
  assign valid_o = valid_q;
endmodule
