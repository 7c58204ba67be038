// SPDX-License-Identifier: Apache-2.0
// The card on a ZCU104 with a four-port RGMII FMC card: what tools/package_ip.py packages for Vivado.
//
// Clocks: aclk (125 MHz: core, AXI, transmit), clk90 (aclk, 2 ns later), clk300 (reference of the input delays),
// clk500 (500 MHz, PPS), all of one MMCM; aresetn belongs to aclk. Ports are flat vectors with the names that a block
// design knows. AXI4-Lite slave for the registers; AXI4 master, 64 bits, bursts that increase, cacheable and
// allocating, non-secure: behind a port that is coherent (S_AXI_HPC) the processor's caches see what is written.
// irq: a level (ring.interrupt). Buffers of pins are the block design's; mdio…_t is 1 while the PHY may drive.
// ref_clk_oe, ref_clk_fsel: the FMC card's clock generator on, and at 125 MHz.
// phy_reset_n: low for 2^PhyResetLog2 cycles of aclk (16.8 ms) after reset, as the 88E1510 wants at least 10.
// Not run on a board.
module twinstamp_zcu104 #(
  parameter int unsigned StoreLog2 = 15,
  parameter int unsigned BuildId = 0,
  parameter int unsigned FlowHash = 1,
  // Input delays of the ports, in ps: see rgmii_pins.
  parameter int unsigned RxDelayPs0 = 600,
  parameter int unsigned RxDelayPs1 = 1100,
  parameter int unsigned RxDelayPs2 = 600,
  parameter int unsigned RxDelayPs3 = 1000,
  parameter int unsigned PhyResetLog2 = 21
) (
  input  logic        aclk,
  input  logic        aresetn,
  input  logic        clk90,
  input  logic        clk300,
  input  logic        clk500,

  input  logic        s_axil_awvalid,
  output logic        s_axil_awready,
  input  logic [16:0] s_axil_awaddr,
  input  logic [2:0]  s_axil_awprot,
  input  logic        s_axil_wvalid,
  output logic        s_axil_wready,
  input  logic [31:0] s_axil_wdata,
  input  logic [3:0]  s_axil_wstrb,
  output logic        s_axil_bvalid,
  input  logic        s_axil_bready,
  output logic [1:0]  s_axil_bresp,
  input  logic        s_axil_arvalid,
  output logic        s_axil_arready,
  input  logic [16:0] s_axil_araddr,
  input  logic [2:0]  s_axil_arprot,
  output logic        s_axil_rvalid,
  input  logic        s_axil_rready,
  output logic [31:0] s_axil_rdata,
  output logic [1:0]  s_axil_rresp,

  output logic        m_axi_awvalid,
  input  logic        m_axi_awready,
  output logic [63:0] m_axi_awaddr,
  output logic [7:0]  m_axi_awlen,
  output logic [2:0]  m_axi_awsize,
  output logic [1:0]  m_axi_awburst,
  output logic [3:0]  m_axi_awcache,
  output logic [2:0]  m_axi_awprot,
  output logic        m_axi_wvalid,
  input  logic        m_axi_wready,
  output logic [63:0] m_axi_wdata,
  output logic [7:0]  m_axi_wstrb,
  output logic        m_axi_wlast,
  input  logic        m_axi_bvalid,
  output logic        m_axi_bready,
  input  logic [1:0]  m_axi_bresp,
  output logic        m_axi_arvalid,
  input  logic        m_axi_arready,
  output logic [63:0] m_axi_araddr,
  output logic [7:0]  m_axi_arlen,
  output logic [2:0]  m_axi_arsize,
  output logic [1:0]  m_axi_arburst,
  output logic [3:0]  m_axi_arcache,
  output logic [2:0]  m_axi_arprot,
  input  logic        m_axi_rvalid,
  output logic        m_axi_rready,
  input  logic [63:0] m_axi_rdata,
  input  logic [1:0]  m_axi_rresp,
  input  logic        m_axi_rlast,

  input  logic        rgmii0_rxc,
  input  logic [3:0]  rgmii0_rd,
  input  logic        rgmii0_rx_ctl,
  output logic        rgmii0_txc,
  output logic [3:0]  rgmii0_td,
  output logic        rgmii0_tx_ctl,
  output logic        mdio0_mdc,
  input  logic        mdio0_i,
  output logic        mdio0_o,
  output logic        mdio0_t,
  input  logic        rgmii1_rxc,
  input  logic [3:0]  rgmii1_rd,
  input  logic        rgmii1_rx_ctl,
  output logic        rgmii1_txc,
  output logic [3:0]  rgmii1_td,
  output logic        rgmii1_tx_ctl,
  output logic        mdio1_mdc,
  input  logic        mdio1_i,
  output logic        mdio1_o,
  output logic        mdio1_t,
  input  logic        rgmii2_rxc,
  input  logic [3:0]  rgmii2_rd,
  input  logic        rgmii2_rx_ctl,
  output logic        rgmii2_txc,
  output logic [3:0]  rgmii2_td,
  output logic        rgmii2_tx_ctl,
  output logic        mdio2_mdc,
  input  logic        mdio2_i,
  output logic        mdio2_o,
  output logic        mdio2_t,
  input  logic        rgmii3_rxc,
  input  logic [3:0]  rgmii3_rd,
  input  logic        rgmii3_rx_ctl,
  output logic        rgmii3_txc,
  output logic [3:0]  rgmii3_td,
  output logic        rgmii3_tx_ctl,
  output logic        mdio3_mdc,
  input  logic        mdio3_i,
  output logic        mdio3_o,
  output logic        mdio3_t,
  output logic [3:0]  phy_reset_n,
  output logic        ref_clk_oe,
  output logic        ref_clk_fsel,

  input  logic        pps_in,
  output logic        pps_out,
  input  logic        uart_rxd,
  output logic        uart_txd,
  output logic        irq
);
  localparam int unsigned RxDelayPs [4] = '{RxDelayPs0, RxDelayPs1, RxDelayPs2, RxDelayPs3};
  logic [3:0] rxc, rx_ctl, txc, tx_ctl, rx_clk, rx_dv, rx_er, tx_en, tx_er;
  logic [3:0] rd [4];
  logic [3:0] td [4];
  logic [7:0] rxd [4];
  logic [7:0] txd [4];
  assign rxc = {rgmii3_rxc, rgmii2_rxc, rgmii1_rxc, rgmii0_rxc};
  assign rx_ctl = {rgmii3_rx_ctl, rgmii2_rx_ctl, rgmii1_rx_ctl, rgmii0_rx_ctl};
  assign {rd[3], rd[2], rd[1], rd[0]} = {rgmii3_rd, rgmii2_rd, rgmii1_rd, rgmii0_rd};
  assign {rgmii3_txc, rgmii2_txc, rgmii1_txc, rgmii0_txc} = txc;
  assign {rgmii3_tx_ctl, rgmii2_tx_ctl, rgmii1_tx_ctl, rgmii0_tx_ctl} = tx_ctl;
  assign {rgmii3_td, rgmii2_td, rgmii1_td, rgmii0_td} = {td[3], td[2], td[1], td[0]};

  (* IODELAY_GROUP = "twinstamp_rgmii" *) IDELAYCTRL #(.SIM_DEVICE("ULTRASCALE")) u_delays (
    .REFCLK(clk300), .RST(!aresetn), .RDY()
  );
  for (genvar p = 0; p < 4; p++) begin : gen_port
    rgmii_pins #(.RxDelayPs(RxDelayPs[p])) u_pins (
      .rst_ni(aresetn), .clk_i(aclk), .clk90_i(clk90), .rxc_i(rxc[p]), .rd_i(rd[p]), .rx_ctl_i(rx_ctl[p]),
      .txc_o(txc[p]), .td_o(td[p]), .tx_ctl_o(tx_ctl[p]),
      .rx_clk_o(rx_clk[p]), .rxd_o(rxd[p]), .rx_dv_o(rx_dv[p]), .rx_er_o(rx_er[p]),
      .txd_i(txd[p]), .tx_en_i(tx_en[p]), .tx_er_i(tx_er[p])
    );
  end

  logic [PhyResetLog2:0] reset_q;
  always_ff @(posedge aclk or negedge aresetn) begin
    if (!aresetn) reset_q <= '0;
    else if (!reset_q[PhyResetLog2]) reset_q <= reset_q + 1'b1;
  end
  assign phy_reset_n = {4{reset_q[PhyResetLog2]}};

  assign ref_clk_oe = 1'b1;
  assign ref_clk_fsel = 1'b1;

  logic [7:0] pps_word_in, pps_word_out;
  pps_fabric_sampler u_sampler (.clk_i(aclk), .clk500_i(clk500), .pps_i(pps_in), .word_o(pps_word_in));
  pps_fabric_output u_output (
    .clk_i(aclk), .clk500_i(clk500), .rst_ni(aresetn), .word_i(pps_word_out), .pps_o(pps_out)
  );

  logic [3:0] mdio_oe;
  assign {mdio3_t, mdio2_t, mdio1_t, mdio0_t} = ~mdio_oe;

  assign m_axi_awsize = 3'd3;
  assign m_axi_arsize = 3'd3;
  assign m_axi_awburst = 2'b01;
  assign m_axi_arburst = 2'b01;
  assign m_axi_awcache = 4'b1111;
  assign m_axi_arcache = 4'b1111;
  assign m_axi_awprot = 3'b010;
  assign m_axi_arprot = 3'b010;
  assign m_axi_wstrb = '1;
  logic unused;
  assign unused = ^{s_axil_awprot, s_axil_arprot};

  twinstamp_card #(.StoreLog2(StoreLog2), .BuildId(BuildId), .FlowHash(FlowHash != 0)) u_card (
    .clk_i(aclk), .clk_reg_i(aclk), .aux_clk_i(aclk), .rst_ni(aresetn), .reg_active_o(), .aux_active_o(),
    .pps_word_i(pps_word_in), .pps_word_o(pps_word_out), .uart_rx_i(uart_rxd), .uart_tx_o(uart_txd),
    .rx_clk_i(rx_clk), .rxd_i(rxd), .rx_dv_i(rx_dv), .rx_er_i(rx_er),
    .txd_o(txd), .tx_en_o(tx_en), .tx_er_o(tx_er),
    .mdc_o({mdio3_mdc, mdio2_mdc, mdio1_mdc, mdio0_mdc}), .mdio_o({mdio3_o, mdio2_o, mdio1_o, mdio0_o}),
    .mdio_oe_o(mdio_oe), .mdio_i({mdio3_i, mdio2_i, mdio1_i, mdio0_i}),
    .s_axil_awvalid, .s_axil_awready, .s_axil_awaddr, .s_axil_wvalid, .s_axil_wready, .s_axil_wdata, .s_axil_wstrb,
    .s_axil_bvalid, .s_axil_bready, .s_axil_bresp, .s_axil_arvalid, .s_axil_arready, .s_axil_araddr,
    .s_axil_rvalid, .s_axil_rready, .s_axil_rdata, .s_axil_rresp,
    .m_axi_awvalid, .m_axi_awready, .m_axi_awaddr, .m_axi_awlen, .m_axi_wvalid, .m_axi_wready, .m_axi_wdata,
    .m_axi_wlast, .m_axi_bvalid, .m_axi_bready, .m_axi_bresp, .m_axi_arvalid, .m_axi_arready, .m_axi_araddr,
    .m_axi_arlen, .m_axi_rvalid, .m_axi_rready, .m_axi_rdata, .m_axi_rresp, .m_axi_rlast,
    .irq_o(irq), .now_q72_o(), .late_i('{default: '0})
  );
endmodule
