// SPDX-License-Identifier: Apache-2.0
// RGMII to GMII at 1000 Mb/s, behind the board's DDR registers (RGMII 2.0, 3.4 and table 4).
//
// Clock: clk_i, the port's RX_CLK. rise_i and fall_i are {RX_CTL, RD[3:0]} at its rising edge and at the falling
// edge that follows, both there at once: IDDRE1 "SAME_EDGE_PIPELINED" (Q1, Q2), IDDRX1F (Q0, Q1).
// Latency: one edge of clk_i from both samples to the GMII outputs. It is constant, and belongs to the board's
// constants like the DDR register's own (docs/card.md: stamps begin at the card's GMII pins).
// RX_CTL is RX_DV at the rising edge and RX_DV xor RX_ER at the falling one. While neither is there, the PHY says on
// RD what the link is: status_valid_o; some PHYs do so only when told to, others send zeros.
// At 10 and 100 Mb/s both edges carry the same nibble: nothing here puts two together, and the card receives at
// 1000 Mb/s only.
// Owed by the integrator: that the DDR registers sample in the middle of the eye.
module rgmii_rx (
  input  logic       clk_i,
  input  logic       rst_ni,
  input  logic [4:0] rise_i,
  input  logic [4:0] fall_i,
  output logic [7:0] rxd_o,
  output logic       rx_dv_o,
  output logic       rx_er_o,

  output logic       status_valid_o,  // the three below are of this cycle
  output logic       link_o,
  output logic [1:0] speed_o,         // 0: 10, 1: 100, 2: 1000 Mb/s
  output logic       full_duplex_o
);
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) {rx_dv_o, rx_er_o, rxd_o} <= '0;
    else {rx_dv_o, rx_er_o, rxd_o} <= {rise_i[4], rise_i[4] ^ fall_i[4], fall_i[3:0], rise_i[3:0]};
  end
  // With RX_ER alone RD is a code: false carrier, carrier extension.
  assign status_valid_o = !rx_dv_o && !rx_er_o;
  assign link_o = rxd_o[0];
  assign speed_o = rxd_o[2:1];
  assign full_duplex_o = rxd_o[3];
endmodule
