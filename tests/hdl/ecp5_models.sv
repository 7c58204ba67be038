// SPDX-License-Identifier: Apache-2.0
// Behaviour of the ECP5 cells that hdl/boards/ecp5 uses, as FPGA-TN-02035 draws them: Q0 is the earlier sample.
`timescale 1ps/1ps
module DELAYG #(parameter DEL_MODE = "USER_DEFINED", parameter int DEL_VALUE = 0) (input logic A, output logic Z);
  always @(A) Z <= #(DEL_VALUE * 25) A;
endmodule

module IDDRX1F (
  input  logic D, SCLK, RST,
  output logic Q0, Q1
);
  logic rise, fall;
  always @(negedge SCLK) fall <= D;
  // The sample of the rising edge before this one, and of the falling edge between.
  always @(posedge SCLK) begin
    rise <= D;
    {Q1, Q0} <= RST ? '0 : {fall, rise};
  end
endmodule

module ODDRX1F (
  input  logic D0, D1, SCLK, RST,
  output logic Q
);
  logic second;
  always @(posedge SCLK) begin
    Q <= RST ? 1'b0 : D0;
    second <= D1;
  end
  always @(negedge SCLK) Q <= RST ? 1'b0 : second;
endmodule
