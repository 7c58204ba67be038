// SPDX-License-Identifier: Apache-2.0
// ECP5: eight samples of the PPS line per core clock cycle, 1 ns apart at 125 MHz, for pps_capture.
//
// The line goes to two pins, pps_i[0] and pps_i[1], side by side and with equal lengths on the board. Each pin is
// sampled at both edges of eclk_i (250 MHz, edge clock; clk_i from it by CLKDIVF "2.0") and geared 4:1 in the pin's
// own cell (IDDRX2F, FPGA-TN-02035). The second pin passes a delay of DelayTaps, 25 ps each, first: its samples
// show the line 1 ns earlier and go between the others. The delay is not regulated: with a tap 20 % off, every
// other sample lies 0.2 ns beside its place, which widens the capture's error by as much and moves its mean by half.
// Latency: from a sample to the word a constant number of cycles of the gearing, which goes into pps.cable_delay
// together with the pin (docs/pps.md says how it is measured). word_o: earliest sample in bit 0.
// Not run on a board.
module pps_sampler #(
  parameter int unsigned DelayTaps = 40
) (
  input  logic       clk_i,
  input  logic       eclk_i,
  input  logic       rst_ni,
  input  logic [1:0] pps_i,
  output logic [7:0] word_o
);
  if (DelayTaps > 127) $fatal(1, "pps_sampler: DelayTaps must be 0 to 127");
  logic late;
  logic [3:0] direct, delayed;
  logic [7:0] word_q;
  DELAYG #(.DEL_MODE("USER_DEFINED"), .DEL_VALUE(DelayTaps)) u_delay (.A(pps_i[1]), .Z(late));
  IDDRX2F u_direct (
    .D(pps_i[0]), .SCLK(clk_i), .ECLK(eclk_i), .RST(!rst_ni), .ALIGNWD(1'b0),
    .Q0(direct[0]), .Q1(direct[1]), .Q2(direct[2]), .Q3(direct[3])
  );
  IDDRX2F u_delayed (
    .D(late), .SCLK(clk_i), .ECLK(eclk_i), .RST(!rst_ni), .ALIGNWD(1'b0),
    .Q0(delayed[0]), .Q1(delayed[1]), .Q2(delayed[2]), .Q3(delayed[3])
  );
  // Two registers: a sample taken in the line's change settles in them.
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      word_q <= '0;
      word_o <= '0;
    end else begin
      for (int i = 0; i < 4; i++) begin
        word_q[2*i] <= delayed[i];
        word_q[2*i+1] <= direct[i];
      end
      word_o <= word_q;
    end
  end
endmodule
