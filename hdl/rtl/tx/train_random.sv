// SPDX-License-Identifier: Apache-2.0
// Philox2x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC11).
//
// Clock: the core clock. start_i takes counter and key; done_o is high from 20 cycles later on, until the next
// start, with the two words. A start while it runs begins anew.
module train_random (
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic        start_i,
  input  logic [31:0] counter_low_i,
  input  logic [31:0] counter_high_i,
  input  logic [31:0] key_i,
  output logic        done_o,
  output logic [31:0] word0_o,
  output logic [31:0] word1_o
);
  localparam logic [31:0] Multiplier = 32'hD256D193;
  localparam logic [31:0] Weyl = 32'h9E3779B9;
  logic [31:0] x0_q, x1_q, key_q;
  logic [31:0] ll_q, lh_q, hl_q, hh_q;   // products of halves
  logic [63:0] product;
  assign product = {{hh_q, ll_q[31:16]} + {15'b0, {1'b0, lh_q} + {1'b0, hl_q}}, ll_q[15:0]};
  logic [3:0] round_q;
  logic half_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      x0_q <= '0;
      x1_q <= '0;
      key_q <= '0;
      {ll_q, lh_q, hl_q, hh_q} <= '0;
      round_q <= 4'd10;
      half_q <= 1'b0;
    end else if (start_i) begin
      x0_q <= counter_low_i;
      x1_q <= counter_high_i;
      key_q <= key_i;
      round_q <= '0;
      half_q <= 1'b0;
    end else if (round_q != 4'd10) begin
      half_q <= !half_q;
      if (!half_q) begin
        ll_q <= {16'b0, x0_q[15:0]} * {16'b0, Multiplier[15:0]};
        lh_q <= {16'b0, x0_q[15:0]} * {16'b0, Multiplier[31:16]};
        hl_q <= {16'b0, x0_q[31:16]} * {16'b0, Multiplier[15:0]};
        hh_q <= {16'b0, x0_q[31:16]} * {16'b0, Multiplier[31:16]};
      end else begin
        x0_q <= product[63:32] ^ key_q ^ x1_q;
        x1_q <= product[31:0];
        key_q <= key_q + Weyl;
        round_q <= round_q + 4'd1;
      end
    end
  end
  assign done_o = round_q == 4'd10;
  assign word0_o = x0_q;
  assign word1_o = x1_q;
endmodule
