// SPDX-License-Identifier: Apache-2.0
// Sum modulo 2^128 of 64-bit products at multiples of 32 bits: the accumulator of hash.h's level 2.
//
// Clock: clk_i, no reset: first_i with valid_i starts from zero. A product counts column_i * 32 bits up.
// Latency: low_o has a product one clock after valid_i, high_o two. One product a clock, no back-pressure.
module limb_sum (
  input  logic        clk_i,
  input  logic        valid_i,
  input  logic        first_i,
  input  logic [1:0]  column_i,
  input  logic [63:0] product_i,
  output logic [63:0] low_o,
  output logic [63:0] high_o
);
  logic [63:0] low_q, high_q, low_part, high_part, high_part_q;
  logic [64:0] low_sum;
  logic carry_q, valid_q, first_q;

  always_comb begin
    low_part = '0;
    high_part = '0;
    unique case (column_i)
      2'd0: low_part = product_i;
      2'd1: begin
        low_part = {product_i[31:0], 32'b0};
        high_part = {32'b0, product_i[63:32]};
      end
      2'd2: high_part = product_i;
      default: high_part = {product_i[31:0], 32'b0};
    endcase
  end
  assign low_sum = {1'b0, first_i ? 64'b0 : low_q} + {1'b0, low_part};

  always_ff @(posedge clk_i) if (valid_i || valid_q) begin
    if (valid_i) low_q <= low_sum[63:0];
    carry_q <= low_sum[64];
    high_part_q <= high_part;
    valid_q <= valid_i;
    first_q <= first_i;
    if (valid_q) high_q <= (first_q ? 64'b0 : high_q) + high_part_q + {63'b0, carry_q};
  end
  assign low_o = low_q;
  assign high_o = high_q;
endmodule
