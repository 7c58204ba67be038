// SPDX-License-Identifier: Apache-2.0
// GMII to RGMII at 1000 Mb/s, before the board's DDR registers (RGMII 2.0, 3.4 and table 3).
//
// Clock: clk_i, the transmit clock. rise_o and fall_o are {TX_CTL, TD[3:0]} for its rising edge and for the falling
// edge that follows: ODDRE1 (D1, D2), ODDRX1F (D0, D1). TX_CTL is TX_EN, then TX_EN xor TX_ER.
// The clock pin goes through a DDR register of its own (1, 0), so that it has the delay of the data; the 2 ns
// between data and clock edge are added by the PHY, or by sending the clock from a clock a quarter later.
// Latency: one edge of clk_i, constant. No back-pressure.
// Owed by the integrator: equal delays of all five data pins and the clock pin.
module rgmii_tx (
  input  logic       clk_i,
  input  logic       rst_ni,
  input  logic [7:0] txd_i,
  input  logic       tx_en_i,
  input  logic       tx_er_i,
  output logic [4:0] rise_o,
  output logic [4:0] fall_o
);
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) {rise_o, fall_o} <= '0;
    else begin
      rise_o <= {tx_en_i, txd_i[3:0]};
      fall_o <= {tx_en_i ^ tx_er_i, txd_i[7:4]};
    end
  end
endmodule
