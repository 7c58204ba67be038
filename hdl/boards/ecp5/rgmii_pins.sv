// SPDX-License-Identifier: Apache-2.0
// ECP5: one port's RGMII pins, DDR registers in the pins' own cells and delays of 25 ps a tap (FPGA-TN-02035,
// FPGA-DS-02012), against the card's GMII.
//
// Clocks: clk_i (core, transmit), rx_clk_i (the port's RX_CLK pin). RxTaps: delay of RX_CTL and RD, as long as the
// clock's way from its pin to the registers, so that both arrive as they came: the PHY delays RX_CLK by 2 ns, to the
// middle of a bit. TxTaps: delay of TX_CLK against TX_CTL and TD; 0 where the PHY does that, too.
// docs/board-versa.md has the timing.
module rgmii_pins #(
  parameter int unsigned RxTaps = 80,
  parameter int unsigned TxTaps = 80
) (
  input  logic       clk_i,
  input  logic       rst_ni,
  input  logic       rx_clk_i,
  input  logic       rx_rst_ni,
  input  logic [3:0] rxd_i,
  input  logic       rx_ctl_i,
  output logic       txc_o,
  output logic [3:0] txd_o,
  output logic       tx_ctl_o,

  output logic [7:0] gmii_rxd_o,
  output logic       gmii_rx_dv_o,
  output logic       gmii_rx_er_o,
  input  logic [7:0] gmii_txd_i,
  input  logic       gmii_tx_en_i,
  input  logic       gmii_tx_er_i
);
  if (RxTaps > 127 || TxTaps > 127) $fatal(1, "rgmii_pins: RxTaps and TxTaps must be 0 to 127");
  logic [4:0] pins, late, rise, fall, tx_rise, tx_fall;
  logic clock;
  assign pins = {rx_ctl_i, rxd_i};
  for (genvar i = 0; i < 5; i++) begin : gen_pin
    DELAYG #(.DEL_MODE("USER_DEFINED"), .DEL_VALUE(RxTaps)) u_delay (.A(pins[i]), .Z(late[i]));
    IDDRX1F u_in (.D(late[i]), .SCLK(rx_clk_i), .RST(1'b0), .Q0(rise[i]), .Q1(fall[i]));
  end
  for (genvar i = 0; i < 4; i++) begin : gen_data
    ODDRX1F u_out (.SCLK(clk_i), .RST(1'b0), .D0(tx_rise[i]), .D1(tx_fall[i]), .Q(txd_o[i]));
  end
  ODDRX1F u_ctl (.SCLK(clk_i), .RST(1'b0), .D0(tx_rise[4]), .D1(tx_fall[4]), .Q(tx_ctl_o));
  ODDRX1F u_clock (.SCLK(clk_i), .RST(1'b0), .D0(1'b1), .D1(1'b0), .Q(clock));
  DELAYG #(.DEL_MODE("USER_DEFINED"), .DEL_VALUE(TxTaps)) u_late_clock (.A(clock), .Z(txc_o));

  logic unused_valid, unused_link, unused_duplex;
  logic [1:0] unused_speed;
  rgmii_rx u_rx (
    .clk_i(rx_clk_i), .rst_ni(rx_rst_ni), .rise_i(rise), .fall_i(fall), .rxd_o(gmii_rxd_o),
    .rx_dv_o(gmii_rx_dv_o), .rx_er_o(gmii_rx_er_o), .status_valid_o(unused_valid), .link_o(unused_link),
    .speed_o(unused_speed), .full_duplex_o(unused_duplex)
  );
  rgmii_tx u_tx (
    .clk_i, .rst_ni, .txd_i(gmii_txd_i), .tx_en_i(gmii_tx_en_i), .tx_er_i(gmii_tx_er_i), .rise_o(tx_rise),
    .fall_o(tx_fall)
  );
endmodule
