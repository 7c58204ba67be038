// SPDX-License-Identifier: Apache-2.0
// The card between flip-flops on an ECP5, for tools/synth.sh --timing; no board. Its buses have more signals than
// any package has pins: what goes in comes from a shift register, what comes out is loaded into another one.
//
// Without the duplicate window, which has no room in the largest one beside four ports (docs/hdl-dedup.md).
// GMII and MDIO are at pins, through a register in their own clock each way, as on a board.
module ecp5_timing (
  input  logic       clk_i,
  input  logic       rst_ni,
  input  logic       scan_i,
  input  logic       load_i,
  output logic       scan_o,
  input  logic [3:0] rx_clk_i,
  input  logic [7:0] rxd_i [4],
  input  logic [3:0] rx_dv_i,
  input  logic [3:0] rx_er_i,
  output logic [7:0] txd_o [4],
  output logic [3:0] tx_en_o,
  output logic [3:0] tx_er_o,
  output logic [3:0] mdc_o,
  output logic [3:0] mdio_o,
  output logic [3:0] mdio_oe_o,
  input  logic [3:0] mdio_i
);
  logic [7:0] rxd [4];
  logic [3:0] rx_dv, rx_er, mdio_q;
  for (genvar p = 0; p < 4; p++) begin : gen_rx
    logic [9:0] pins_q;
    always_ff @(posedge rx_clk_i[p]) pins_q <= {rx_dv_i[p], rx_er_i[p], rxd_i[p]};
    assign {rx_dv[p], rx_er[p], rxd[p]} = pins_q;
  end
  always_ff @(posedge clk_i) mdio_q <= mdio_i;

  localparam int unsigned In = 158, Out = 265;
  logic [In-1:0] in_q;
  logic [Out-1:0] out, out_q;
  always_ff @(posedge clk_i) begin
    in_q <= {in_q[In-2:0], scan_i};
    out_q <= load_i ? out : {out_q[Out-2:0], 1'b0};
  end
  assign scan_o = out_q[Out-1];

  logic awvalid, wvalid, bready, arvalid, rready, awready, wready, bvalid, arready, rvalid;
  logic [16:0] awaddr, araddr;
  logic [7:0] pps_in, pps_out;
  logic uart_in, uart_out, irq;
  logic [31:0] wdata, rdata;
  logic [3:0] wstrb;
  logic [1:0] bresp, rresp;
  logic m_awready, m_wready, m_bvalid, m_arready, m_rvalid, m_rlast;
  logic [63:0] m_rdata, m_awaddr, m_wdata, m_araddr;
  logic [1:0] m_bresp, m_rresp;
  logic [7:0] m_awlen, m_arlen;
  logic m_awvalid, m_wvalid, m_wlast, m_bready, m_arvalid, m_rready;
  assign {awvalid, wvalid, bready, arvalid, rready, awaddr, araddr, wdata, wstrb, m_awready, m_wready, m_bvalid,
          m_arready, m_rvalid, m_rlast, m_rdata, m_bresp, m_rresp, pps_in, uart_in} = in_q;
  assign out = {awready, wready, bvalid, arready, rvalid, rdata, bresp, rresp, m_awvalid, m_wvalid, m_wlast, m_bready,
                m_arvalid, m_rready, m_awaddr, m_wdata, m_araddr, m_awlen, m_arlen, pps_out, uart_out, irq};
  twinstamp_card #(.DedupLog2(0)) u_card (
    .clk_i, .clk_reg_i(clk_i), .aux_clk_i(clk_i), .rst_ni, .reg_active_o(), .aux_active_o(),
    .pps_word_i(pps_in), .pps_word_o(pps_out), .uart_rx_i(uart_in), .uart_tx_o(uart_out), .rx_clk_i, .rxd_i(rxd), .rx_dv_i(rx_dv), .rx_er_i(rx_er),
    .txd_o, .tx_en_o, .tx_er_o, .mdc_o, .mdio_o, .mdio_oe_o, .mdio_i(mdio_q),
    .s_axil_awvalid(awvalid), .s_axil_awready(awready), .s_axil_awaddr(awaddr), .s_axil_wvalid(wvalid),
    .s_axil_wready(wready), .s_axil_wdata(wdata), .s_axil_wstrb(wstrb), .s_axil_bvalid(bvalid),
    .s_axil_bready(bready), .s_axil_bresp(bresp), .s_axil_arvalid(arvalid), .s_axil_arready(arready),
    .s_axil_araddr(araddr), .s_axil_rvalid(rvalid), .s_axil_rready(rready), .s_axil_rdata(rdata),
    .s_axil_rresp(rresp),
    .m_axi_awvalid(m_awvalid), .m_axi_awready(m_awready), .m_axi_awaddr(m_awaddr), .m_axi_awlen(m_awlen),
    .m_axi_wvalid(m_wvalid), .m_axi_wready(m_wready), .m_axi_wdata(m_wdata), .m_axi_wlast(m_wlast),
    .m_axi_bvalid(m_bvalid), .m_axi_bready(m_bready), .m_axi_bresp(m_bresp),
    .m_axi_arvalid(m_arvalid), .m_axi_arready(m_arready), .m_axi_araddr(m_araddr), .m_axi_arlen(m_arlen),
    .m_axi_rvalid(m_rvalid), .m_axi_rready(m_rready), .m_axi_rdata(m_rdata), .m_axi_rresp(m_rresp),
    .m_axi_rlast(m_rlast), .irq_o(irq), .now_q72_o(), .late_i('{default: '0})
  );
endmodule
