// SPDX-License-Identifier: Apache-2.0
// Bench of test_phy: link and management against a PHY model whose answers take 300 ns; the PHY's data paths;
// the loopback switch on pins of its own.
`timescale 1ps / 1ps
module phy_bench (
  input  logic        clk,
  input  logic        rst_n,
  input  logic        rx_clk,
  input  logic        tx_clk,

  input  logic [31:0] poll,
  input  logic        command, command_write,
  input  logic [4:0]  command_phy, command_register,
  input  logic [15:0] command_data,
  output logic        busy, error, link, full_duplex, answers,
  output logic [15:0] data,
  output logic [1:0]  speed,
  output logic [31:0] ups,
  output logic        mdc,
  output logic        mdio,             // as on the wire, with its pull-up
  output logic        master_drives,

  input  logic        cable,
  input  logic [15:0] partner,
  input  logic [1:0]  partner_gigabit,
  output logic        phy_link_up,
  output logic [7:0]  tx_latency, rx_latency,
  input  logic [7:0]  p_txd,
  input  logic        p_tx_en, p_tx_er,
  output logic [7:0]  p_rxd,
  output logic        p_rx_dv, p_rx_er,
  output logic [7:0]  medium_out,
  output logic        medium_out_en, medium_out_er,
  input  logic [7:0]  medium_in,
  input  logic        medium_in_en, medium_in_er,

  input  logic        near, far,
  input  logic [7:0]  mac_txd,
  input  logic        mac_tx_en, mac_tx_er,
  output logic [7:0]  pin_txd,
  output logic        pin_tx_en, pin_tx_er,
  input  logic [7:0]  pin_rxd,
  input  logic        pin_rx_dv, pin_rx_er,
  output logic [7:0]  mac_rxd,
  output logic        mac_rx_dv, mac_rx_er
);
  logic master_o, master_oe, phy_o, phy_oe, phy_late;
  assign master_drives = master_oe;
  initial phy_late = 1'b1;
  always @(phy_o or phy_oe) phy_late <= #300000 (phy_o || !phy_oe);
  assign mdio = (master_o || !master_oe) && phy_late;

  phy_link u_link (
    .clk_i(clk), .rst_ni(rst_n), .poll_i(poll), .phy_i(5'd1),
    .command_i(command), .command_write_i(command_write), .command_phy_i(command_phy),
    .command_register_i(command_register), .command_data_i(command_data),
    .busy_o(busy), .data_o(data), .error_o(error), .link_o(link), .speed_o(speed),
    .full_duplex_o(full_duplex), .answers_o(answers), .ups_o(ups),
    .mdc_o(mdc), .mdio_o(master_o), .mdio_oe_o(master_oe), .mdio_i(mdio)
  );
  phy_model #(.Address(5'd1), .Seed(32'd77), .BaseCycles(3), .SpreadCycles(8), .NegotiationCycles(500)) u_phy (
    .clk_i(clk), .rst_ni(rst_n), .mdc_i(mdc), .mdio_i(mdio), .mdio_o(phy_o), .mdio_oe_o(phy_oe),
    .cable_i(cable), .partner_i(partner), .partner_gigabit_i(partner_gigabit), .link_o(phy_link_up),
    .tx_latency_o(tx_latency), .rx_latency_o(rx_latency),
    .txd_i(p_txd), .tx_en_i(p_tx_en), .tx_er_i(p_tx_er), .rxd_o(p_rxd), .rx_dv_o(p_rx_dv), .rx_er_o(p_rx_er),
    .medium_o({medium_out_en, medium_out_er, medium_out}), .medium_i({medium_in_en, medium_in_er, medium_in})
  );
  logic late_rx, late_tx;
  late_gen u_late_rx (.from_clk_i(tx_clk), .late_o(late_rx));
  late_gen u_late_tx (.from_clk_i(rx_clk), .late_o(late_tx));
  logic tx_rst_n, rx_rst_n;
  reset_sync u_tx_reset (.clk_i(tx_clk), .rst_ni(rst_n), .rst_no(tx_rst_n));
  reset_sync u_rx_reset (.clk_i(rx_clk), .rst_ni(rst_n), .rst_no(rx_rst_n));
  gmii_loopback u_loopback (
    .tx_rst_ni(tx_rst_n), .rx_rst_ni(rx_rst_n), .near_i(near), .far_i(far),
    .tx_clk_i(tx_clk), .mac_txd_i(mac_txd), .mac_tx_en_i(mac_tx_en), .mac_tx_er_i(mac_tx_er),
    .txd_o(pin_txd), .tx_en_o(pin_tx_en), .tx_er_o(pin_tx_er),
    .rx_clk_i(rx_clk), .rxd_i(pin_rxd), .rx_dv_i(pin_rx_dv), .rx_er_i(pin_rx_er),
    .mac_rxd_o(mac_rxd), .mac_rx_dv_o(mac_rx_dv), .mac_rx_er_o(mac_rx_er),
    .late_i({late_rx, late_tx})
  );
endmodule
