// SPDX-License-Identifier: Apache-2.0
// Two flip-flops against metastability, for one bit or for a Gray-coded vector.
//
// Clocks: clk_i is the receiving domain; d_i comes from registers of another one.
// Latency: two edges of clk_i; one more when d_i changes so near an edge that the first flip-flop still
// catches the old value. Simulation chooses that with late_i (high at an edge that follows a change of the
// sending domain too closely, at random); synthesis ties it to 0.
// Owed by the integrator: max delay from the sending register of one receiving period (bus skew for vectors).
module sync_2ff #(
  parameter int unsigned Width = 1,
  parameter logic [Width-1:0] ResetValue = '0
) (
  input  logic             clk_i,
  input  logic             rst_ni,
  input  logic             late_i,
  input  logic [Width-1:0] d_i,
  output logic [Width-1:0] q_o
);
  (* ASYNC_REG = "TRUE" *) logic [Width-1:0] first_q;
  (* ASYNC_REG = "TRUE" *) logic [Width-1:0] second_q;
  // What stood there an edge ago: only a change can be missed, and once. Gone where late_i is 0.
  logic [Width-1:0] before_q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      first_q  <= ResetValue;
      second_q <= ResetValue;
      before_q <= ResetValue;
    end else begin
      first_q <= late_i ? before_q : d_i;
      before_q <= d_i;
      second_q <= first_q;
    end
  end
  assign q_o = second_q;
endmodule
