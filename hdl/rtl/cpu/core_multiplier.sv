// SPDX-License-Identifier: Apache-2.0
// The soft core's multiplications (RISC-V M: MUL, MULH, MULHSU, MULHU) as a co-processor of picorv32, pipelined for
// 18-bit multipliers: picorv32's own fast one does them in one cycle, which is too long at 125 MHz on an ECP5.
//
// Clock: clk_i (that of the core). Latency: ready_o five cycles after valid_i. rs1_i and rs2_i hold until then.
module core_multiplier (
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic        valid_i,
  input  logic [31:0] insn_i,
  input  logic [31:0] rs1_i,
  input  logic [31:0] rs2_i,
  output logic        ready_o,
  output logic [31:0] rd_o
);
  logic ours_q, ready_q;
  logic [2:0] count_q;
  logic [31:0] correction_q, rd_q;
  logic [63:0] product;
  mul32 u_multiply (.clk_i, .enable_i(ours_q), .a_i(rs1_i), .b_i(rs2_i), .product_o(product));
  // Of two's complement numbers the upper half is less by the other one for each that is negative.
  logic signed1, signed2;
  assign signed1 = insn_i[13:12] != 2'b11;   // all but MULHU (MUL's lower half is the same either way)
  assign signed2 = insn_i[13:12] == 2'b01;   // MULH
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      {ours_q, ready_q} <= '0;
      count_q <= '0;
      correction_q <= '0;
      rd_q <= '0;
    end else begin
      ours_q <= valid_i && !ready_q && insn_i[6:0] == 7'b0110011 && insn_i[31:25] == 7'b0000001 && !insn_i[14];
      count_q <= ours_q && !ready_q ? count_q + 3'd1 : '0;
      correction_q <= (signed1 && rs1_i[31] ? rs2_i : '0) + (signed2 && rs2_i[31] ? rs1_i : '0);
      rd_q <= insn_i[13:12] == 2'b00 ? product[31:0] : product[63:32] - correction_q;
      ready_q <= ours_q && !ready_q && count_q == 3'd3;
    end
  end
  assign ready_o = ready_q;
  assign rd_o = rd_q;
endmodule
