// SPDX-License-Identifier: Apache-2.0
// Behaviour of the ECP5 cells that hdl/boards/ecp5 uses, as FPGA-TN-02035 draws them: Q0 is the earliest sample.
`timescale 1ps/1ps
module DELAYG #(parameter DEL_MODE = "USER_DEFINED", parameter int DEL_VALUE = 0) (input logic A, output logic Z);
  always @(A) Z <= #(DEL_VALUE * 25) A;
endmodule

module IDDRX2F (
  input  logic D, SCLK, ECLK, RST, ALIGNWD,
  output logic Q0, Q1, Q2, Q3
);
  logic [3:0] shift;
  always @(ECLK) shift <= {D, shift[3:1]};
  // The four samples up to the one before this edge: a constant, known latency.
  always @(posedge SCLK) {Q3, Q2, Q1, Q0} <= RST ? '0 : shift;
endmodule

module ODDRX2F (
  input  logic D0, D1, D2, D3, SCLK, ECLK, RST,
  output logic Q
);
  logic [3:0] shift;
  always @(ECLK) begin
    Q <= RST ? 1'b0 : shift[0];
    shift <= {1'b0, shift[3:1]};
  end
  always @(posedge SCLK) #1 shift <= {D3, D2, D1, D0};
endmodule
