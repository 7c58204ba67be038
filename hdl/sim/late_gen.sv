// SPDX-License-Identifier: Apache-2.0
// Simulation only: the undecided window of a crossing. An edge of to_clk within Window behind an edge of
// from_clk may catch the old value; late_o says so, at random, for sync_2ff.
`timescale 1ps / 1ps
module late_gen #(
  parameter int unsigned WindowPs = 200
) (
  input  logic from_clk_i,
  output logic late_o
);
  initial late_o = 1'b0;
  always @(posedge from_clk_i) begin
    late_o = 1'($urandom_range(1));
    #(WindowPs);
    late_o = 1'b0;
  end
endmodule
