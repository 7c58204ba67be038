// SPDX-License-Identifier: Apache-2.0
// 32 x 32 bit multiplier for one product a clock, made for 18-bit multipliers.
//
// Clock: clk_i, no reset (no state but the pipeline). Latency: product_o belongs to the operands of three
// clocks before, of which each has enable_i. No back-pressure.
module mul32 (
  input  logic        clk_i,
  input  logic        enable_i,
  input  logic [31:0] a_i,
  input  logic [31:0] b_i,
  output logic [63:0] product_o
);
  logic [31:0] ll_q, lh_q, hl_q, hh_q;
  logic [63:0] outer_q, product_q;
  logic [32:0] middle_q;

  always_ff @(posedge clk_i) if (enable_i) begin
    ll_q <= {16'b0, a_i[15:0]} * {16'b0, b_i[15:0]};
    lh_q <= {16'b0, a_i[15:0]} * {16'b0, b_i[31:16]};
    hl_q <= {16'b0, a_i[31:16]} * {16'b0, b_i[15:0]};
    hh_q <= {16'b0, a_i[31:16]} * {16'b0, b_i[31:16]};
    outer_q <= {hh_q, ll_q};
    middle_q <= {1'b0, lh_q} + {1'b0, hl_q};
    product_q <= {outer_q[63:16] + {15'b0, middle_q}, outer_q[15:0]};
  end
  assign product_o = product_q;
endmodule
