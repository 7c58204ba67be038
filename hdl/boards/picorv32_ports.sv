// SPDX-License-Identifier: Apache-2.0
// Ports of the soft core as soft_core uses them, for synthesis only: Yosys reads the core itself with its own
// Verilog reader, which knows full_case (tools/synth.sh).
(* blackbox *)
module picorv32 #(
  parameter bit ENABLE_COUNTERS = 1'b1, ENABLE_COUNTERS64 = 1'b1, BARREL_SHIFTER = 1'b0, ENABLE_MUL = 1'b0,
  parameter bit ENABLE_PCPI = 1'b0, TWO_CYCLE_COMPARE = 1'b0, TWO_CYCLE_ALU = 1'b0,
  parameter bit ENABLE_FAST_MUL = 1'b0, ENABLE_DIV = 1'b0, CATCH_MISALIGN = 1'b1, CATCH_ILLINSN = 1'b1,
  parameter bit REGS_INIT_ZERO = 1'b0,
  parameter logic [31:0] STACKADDR = 32'hFFFFFFFF
) (
  input  logic clk, resetn,
  output logic trap, mem_valid, mem_instr,
  input  logic mem_ready,
  output logic [31:0] mem_addr, mem_wdata,
  output logic [3:0] mem_wstrb,
  input  logic [31:0] mem_rdata,
  output logic mem_la_read, mem_la_write,
  output logic [31:0] mem_la_addr, mem_la_wdata,
  output logic [3:0] mem_la_wstrb,
  output logic pcpi_valid,
  output logic [31:0] pcpi_insn, pcpi_rs1, pcpi_rs2,
  input  logic pcpi_wr,
  input  logic [31:0] pcpi_rd,
  input  logic pcpi_wait, pcpi_ready,
  input  logic [31:0] irq,
  output logic [31:0] eoi,
  output logic trace_valid,
  output logic [35:0] trace_data
);
endmodule
