// SPDX-License-Identifier: Apache-2.0
// Behaviour of the UltraScale+ cells that hdl/boards/zcu104 uses, as UG571 and UG974 draw them. Only the parameters
// and modes that are used there.
`timescale 1ps/1ps
// verilator lint_off DECLFILENAME
// verilator lint_off UNUSEDPARAM
// verilator lint_off UNUSEDSIGNAL
// verilator lint_off MULTIDRIVEN
module BUFG (input logic I, output logic O);
  assign O = I;
endmodule

module IDELAYCTRL #(parameter SIM_DEVICE = "ULTRASCALE") (input logic REFCLK, RST, output logic RDY);
  always @(posedge REFCLK) RDY <= !RST;
endmodule

module IDELAYE3 #(
  parameter CASCADE = "NONE", DELAY_FORMAT = "TIME", DELAY_SRC = "IDATAIN", DELAY_TYPE = "FIXED",
  parameter int DELAY_VALUE = 0,
  parameter real REFCLK_FREQUENCY = 300.0,
  parameter SIM_DEVICE = "ULTRASCALE_PLUS", UPDATE_MODE = "ASYNC"
) (
  input  logic IDATAIN, DATAIN, CASC_IN, CASC_RETURN, CLK, RST, CE, INC, LOAD, EN_VTC,
  input  logic [8:0] CNTVALUEIN,
  output logic DATAOUT, CASC_OUT,
  output logic [8:0] CNTVALUEOUT
);
  assign CASC_OUT = 1'b0;
  assign CNTVALUEOUT = '0;
  always @(IDATAIN) DATAOUT <= #(DELAY_VALUE) IDATAIN;
endmodule

module IDDRE1 #(
  parameter DDR_CLK_EDGE = "OPPOSITE_EDGE", parameter bit IS_CB_INVERTED = 1'b0, IS_C_INVERTED = 1'b0
) (input logic C, CB, R, D, output logic Q1, Q2);
  // Both of one period at the rising edge that ends it.
  logic rise, fall;
  initial if (DDR_CLK_EDGE != "SAME_EDGE_PIPELINED" || !IS_CB_INVERTED || IS_C_INVERTED) $fatal(1, "IDDRE1: mode");
  always @(posedge C) begin
    rise <= D;
    Q1 <= R ? 1'b0 : rise;
    Q2 <= R ? 1'b0 : fall;
  end
  always @(negedge CB) fall <= D;
endmodule

module ODDRE1 #(
  parameter bit IS_C_INVERTED = 1'b0, IS_D1_INVERTED = 1'b0, IS_D2_INVERTED = 1'b0, SRVAL = 1'b0,
  parameter SIM_DEVICE = "ULTRASCALE_PLUS"
) (input logic C, SR, D1, D2, output logic Q);
  logic second;
  always @(posedge C) begin
    Q <= SR ? SRVAL : D1;
    second <= SR ? SRVAL : D2;
  end
  always @(negedge C) Q <= second;
endmodule
