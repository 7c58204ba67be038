// SPDX-License-Identifier: Apache-2.0
// Bench of test_zcu104_ip: what Vivado gets (twinstamp_card_ip), with models of the cells. Cables between the ports 0
// and 1 and between 2 and 3; the serial line's and the PPS's output go into their inputs. MDIO is pulled up, a bus is
// driven by nobody else.
`timescale 1ps / 1ps
module zcu104_ip_bench (
  input  logic         resetn,
  output logic         clk,
  input  logic         s_axil_awvalid,
  output logic         s_axil_awready,
  input  logic [16:0]  s_axil_awaddr,
  input  logic [2:0]   s_axil_awprot,
  input  logic         s_axil_wvalid,
  output logic         s_axil_wready,
  input  logic [31:0]  s_axil_wdata,
  input  logic [3:0]   s_axil_wstrb,
  output logic         s_axil_bvalid,
  input  logic         s_axil_bready,
  output logic [1:0]   s_axil_bresp,
  input  logic         s_axil_arvalid,
  output logic         s_axil_arready,
  input  logic [16:0]  s_axil_araddr,
  input  logic [2:0]   s_axil_arprot,
  output logic         s_axil_rvalid,
  input  logic         s_axil_rready,
  output logic [31:0]  s_axil_rdata,
  output logic [1:0]   s_axil_rresp,
  output logic         m_axi_awvalid,
  input  logic         m_axi_awready,
  output logic [63:0]  m_axi_awaddr,
  output logic [7:0]   m_axi_awlen,
  output logic [2:0]   m_axi_awsize,
  output logic [1:0]   m_axi_awburst,
  output logic [3:0]   m_axi_awcache,
  output logic [2:0]   m_axi_awprot,
  output logic         m_axi_wvalid,
  input  logic         m_axi_wready,
  output logic [63:0]  m_axi_wdata,
  output logic [7:0]   m_axi_wstrb,
  output logic         m_axi_wlast,
  input  logic         m_axi_bvalid,
  output logic         m_axi_bready,
  input  logic [1:0]   m_axi_bresp,
  output logic         m_axi_arvalid,
  input  logic         m_axi_arready,
  output logic [63:0]  m_axi_araddr,
  output logic [7:0]   m_axi_arlen,
  output logic [2:0]   m_axi_arsize,
  output logic [1:0]   m_axi_arburst,
  output logic [3:0]   m_axi_arcache,
  output logic [2:0]   m_axi_arprot,
  input  logic         m_axi_rvalid,
  output logic         m_axi_rready,
  input  logic [63:0]  m_axi_rdata,
  input  logic [1:0]   m_axi_rresp,
  input  logic         m_axi_rlast,
  // What cocotbext-axi wants and the card has not.
  output logic         m_axi_awid, m_axi_arid,
  input  logic         m_axi_bid, m_axi_rid,
  output logic [3:0]   phy_reset_n,
  output logic [3:0]   mdio,
  output logic         irq
);
  assign m_axi_awid = 1'b0;
  assign m_axi_arid = 1'b0;
  logic clk90, clk500, clk300 = 0;
  int unsigned step = 0;
  initial forever begin
    #1000 step++;
    {clk500, clk, clk90} = {step % 2 == 0, step % 8 >= 4, step % 8 >= 6 || step % 8 < 2};
  end
  initial forever #1667 clk300 = ~clk300;

  logic [3:0] txc, tx_ctl, o, t, i;
  logic [3:0] td0, td1, td2, td3;
  logic serial, pps;
  assign mdio = o | t;
  assign i = mdio;
  twinstamp_card_ip #(.PhyResetLog2(6)) u_ip (
    .aclk(clk), .aresetn(resetn), .clk90, .clk300, .clk500,
    .s_axil_awvalid, .s_axil_awready, .s_axil_awaddr, .s_axil_awprot, .s_axil_wvalid, .s_axil_wready,
    .s_axil_wdata, .s_axil_wstrb, .s_axil_bvalid, .s_axil_bready, .s_axil_bresp, .s_axil_arvalid,
    .s_axil_arready, .s_axil_araddr, .s_axil_arprot, .s_axil_rvalid, .s_axil_rready, .s_axil_rdata,
    .s_axil_rresp, .m_axi_awvalid, .m_axi_awready, .m_axi_awaddr, .m_axi_awlen, .m_axi_awsize, .m_axi_awburst,
    .m_axi_awcache, .m_axi_awprot, .m_axi_wvalid, .m_axi_wready, .m_axi_wdata, .m_axi_wstrb, .m_axi_wlast,
    .m_axi_bvalid, .m_axi_bready, .m_axi_bresp, .m_axi_arvalid, .m_axi_arready, .m_axi_araddr, .m_axi_arlen,
    .m_axi_arsize, .m_axi_arburst, .m_axi_arcache, .m_axi_arprot, .m_axi_rvalid, .m_axi_rready, .m_axi_rdata,
    .m_axi_rresp, .m_axi_rlast,
    .rgmii0_rxc(txc[1]), .rgmii0_rd(td1), .rgmii0_rx_ctl(tx_ctl[1]),
    .rgmii1_rxc(txc[0]), .rgmii1_rd(td0), .rgmii1_rx_ctl(tx_ctl[0]),
    .rgmii2_rxc(txc[3]), .rgmii2_rd(td3), .rgmii2_rx_ctl(tx_ctl[3]),
    .rgmii3_rxc(txc[2]), .rgmii3_rd(td2), .rgmii3_rx_ctl(tx_ctl[2]),
    .rgmii0_txc(txc[0]), .rgmii0_td(td0), .rgmii0_tx_ctl(tx_ctl[0]),
    .rgmii1_txc(txc[1]), .rgmii1_td(td1), .rgmii1_tx_ctl(tx_ctl[1]),
    .rgmii2_txc(txc[2]), .rgmii2_td(td2), .rgmii2_tx_ctl(tx_ctl[2]),
    .rgmii3_txc(txc[3]), .rgmii3_td(td3), .rgmii3_tx_ctl(tx_ctl[3]),
    .mdio0_mdc(), .mdio0_i(i[0]), .mdio0_o(o[0]), .mdio0_t(t[0]),
    .mdio1_mdc(), .mdio1_i(i[1]), .mdio1_o(o[1]), .mdio1_t(t[1]),
    .mdio2_mdc(), .mdio2_i(i[2]), .mdio2_o(o[2]), .mdio2_t(t[2]),
    .mdio3_mdc(), .mdio3_i(i[3]), .mdio3_o(o[3]), .mdio3_t(t[3]),
    .phy_reset_n, .ref_clk_oe(), .ref_clk_fsel(), .pps_in(pps), .pps_out(pps), .uart_rxd(serial), .uart_txd(serial),
    .irq
  );
endmodule
