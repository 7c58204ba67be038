// SPDX-License-Identifier: Apache-2.0
// Bench of test_rgmii: the two adapters apart, each with the wire side of its DDR registers at the ports.
`timescale 1ps / 1ps
module rgmii_bench (
  input  logic       clk,
  input  logic       rst_n,

  input  logic [7:0] txd,
  input  logic       tx_en, tx_er,
  output logic [4:0] tx_rise, tx_fall,

  input  logic [4:0] rx_rise, rx_fall,
  output logic [7:0] rxd,
  output logic       rx_dv, rx_er,
  output logic       status_valid, link, full_duplex,
  output logic [1:0] speed
);
  rgmii_tx u_tx (
    .clk_i(clk), .rst_ni(rst_n), .txd_i(txd), .tx_en_i(tx_en), .tx_er_i(tx_er), .rise_o(tx_rise), .fall_o(tx_fall)
  );
  rgmii_rx u_rx (
    .clk_i(clk), .rst_ni(rst_n), .rise_i(rx_rise), .fall_i(rx_fall), .rxd_o(rxd), .rx_dv_o(rx_dv), .rx_er_o(rx_er),
    .status_valid_o(status_valid), .link_o(link), .speed_o(speed), .full_duplex_o(full_duplex)
  );
endmodule
