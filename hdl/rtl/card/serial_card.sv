// SPDX-License-Identifier: Apache-2.0
// The card for boards without host memory: its AXI master writes on-chip memory, and a serial line reads and
// writes that memory and the card's registers (docs/uart.md).
//
// Clocks as twinstamp_card. Overflow: the serial line is far slower than the wires; what the ring in the memory
// cannot take is dropped as whole frames and counted, as on every card.
module serial_card #(
  parameter int unsigned Ports = 2,
  parameter int unsigned StoreLog2 = 14,
  parameter int unsigned MemoryLog2 = 13,     // 64-bit words that stand for the host's memory
  parameter logic [31:0] BuildId = 32'd0,
  parameter bit FlowHash = 1'b0,
  parameter bit Digest = 1'b0,
  parameter bit Trains = 1'b0,
  parameter int unsigned DedupLog2 = 0,
  parameter Program = "",
  parameter bit Simulated = 1'b0
) (
  input  logic              clk_i,
  input  logic              rst_ni,
  input  logic [15:0]       divider_i,        // of the serial line to the host, in cycles per bit
  input  logic              host_rx_i,
  output logic              host_tx_o,

  input  logic [7:0]        pps_word_i,
  output logic [7:0]        pps_word_o,
  input  logic              uart_rx_i,        // of the GPS receiver
  output logic              uart_tx_o,

  input  logic [Ports-1:0]  rx_clk_i,
  input  logic [7:0]        rxd_i [Ports],
  input  logic [Ports-1:0]  rx_dv_i,
  input  logic [Ports-1:0]  rx_er_i,
  output logic [7:0]        txd_o [Ports],
  output logic [Ports-1:0]  tx_en_o,
  output logic [Ports-1:0]  tx_er_o,

  output logic [Ports-1:0]  mdc_o,
  output logic [Ports-1:0]  mdio_o,
  output logic [Ports-1:0]  mdio_oe_o,
  input  logic [Ports-1:0]  mdio_i
);
  logic awvalid, awready, wvalid, wready, bvalid, bready, arvalid, arready, rvalid, rready;
  logic [16:0] awaddr, araddr;
  logic [31:0] wdata, rdata;
  logic [1:0] bresp, rresp;
  logic m_awvalid, m_awready, m_wvalid, m_wready, m_wlast, m_bvalid, m_bready, m_arvalid, m_arready;
  logic m_rvalid, m_rready, m_rlast;
  logic [63:0] m_awaddr, m_wdata, m_araddr, m_rdata;
  logic [7:0] m_awlen, m_arlen;
  logic [1:0] m_bresp, m_rresp;
  logic memory_write;
  logic [MemoryLog2-1:0] memory_address;
  logic [63:0] memory_in, memory_out;
  logic [103:0] unused_now;
  logic unused_reg_active, unused_aux_active, unused_irq;

  twinstamp_card #(
    .Ports(Ports), .StoreLog2(StoreLog2), .BuildId(BuildId), .FlowHash(FlowHash), .Digest(Digest), .Trains(Trains), .Program(Program),
    .DedupLog2(DedupLog2), .Simulated(Simulated)
  ) u_card (
    .clk_i, .clk_reg_i(clk_i), .aux_clk_i(clk_i), .rst_ni,
    .reg_active_o(unused_reg_active), .aux_active_o(unused_aux_active),
    .pps_word_i, .pps_word_o, .uart_rx_i, .uart_tx_o,
    .rx_clk_i, .rxd_i, .rx_dv_i, .rx_er_i, .txd_o, .tx_en_o, .tx_er_o, .mdc_o, .mdio_o, .mdio_oe_o, .mdio_i,
    .s_axil_awvalid(awvalid), .s_axil_awready(awready), .s_axil_awaddr(awaddr), .s_axil_wvalid(wvalid),
    .s_axil_wready(wready), .s_axil_wdata(wdata), .s_axil_wstrb(4'hF), .s_axil_bvalid(bvalid),
    .s_axil_bready(bready), .s_axil_bresp(bresp), .s_axil_arvalid(arvalid), .s_axil_arready(arready),
    .s_axil_araddr(araddr), .s_axil_rvalid(rvalid), .s_axil_rready(rready), .s_axil_rdata(rdata),
    .s_axil_rresp(rresp),
    .m_axi_awvalid(m_awvalid), .m_axi_awready(m_awready), .m_axi_awaddr(m_awaddr), .m_axi_awlen(m_awlen),
    .m_axi_wvalid(m_wvalid), .m_axi_wready(m_wready), .m_axi_wdata(m_wdata), .m_axi_wlast(m_wlast),
    .m_axi_bvalid(m_bvalid), .m_axi_bready(m_bready), .m_axi_bresp(m_bresp),
    .m_axi_arvalid(m_arvalid), .m_axi_arready(m_arready), .m_axi_araddr(m_araddr), .m_axi_arlen(m_arlen),
    .m_axi_rvalid(m_rvalid), .m_axi_rready(m_rready), .m_axi_rdata(m_rdata), .m_axi_rresp(m_rresp),
    .m_axi_rlast(m_rlast), .irq_o(unused_irq), .now_q72_o(unused_now), .late_i('{default: '0})
  );

  card_memory #(.WordsLog2(MemoryLog2)) u_memory (
    .clk_i, .rst_ni,
    .s_axi_awvalid(m_awvalid), .s_axi_awready(m_awready), .s_axi_awaddr(m_awaddr), .s_axi_awlen(m_awlen),
    .s_axi_wvalid(m_wvalid), .s_axi_wready(m_wready), .s_axi_wdata(m_wdata), .s_axi_wlast(m_wlast),
    .s_axi_bvalid(m_bvalid), .s_axi_bready(m_bready), .s_axi_bresp(m_bresp),
    .s_axi_arvalid(m_arvalid), .s_axi_arready(m_arready), .s_axi_araddr(m_araddr), .s_axi_arlen(m_arlen),
    .s_axi_rvalid(m_rvalid), .s_axi_rready(m_rready), .s_axi_rdata(m_rdata), .s_axi_rresp(m_rresp),
    .s_axi_rlast(m_rlast),
    .write_i(memory_write), .address_i(memory_address), .data_i(memory_in), .data_o(memory_out)
  );

  uart_bridge #(.MemoryLog2(MemoryLog2)) u_bridge (
    .clk_i, .rst_ni, .divider_i, .rx_i(host_rx_i), .tx_o(host_tx_o),
    .m_axil_awvalid(awvalid), .m_axil_awready(awready), .m_axil_awaddr(awaddr), .m_axil_wvalid(wvalid),
    .m_axil_wready(wready), .m_axil_wdata(wdata), .m_axil_bvalid(bvalid), .m_axil_bready(bready),
    .m_axil_bresp(bresp), .m_axil_arvalid(arvalid), .m_axil_arready(arready), .m_axil_araddr(araddr),
    .m_axil_rvalid(rvalid), .m_axil_rready(rready), .m_axil_rdata(rdata), .m_axil_rresp(rresp),
    .memory_write_o(memory_write), .memory_address_o(memory_address), .memory_data_o(memory_in),
    .memory_data_i(memory_out)
  );
endmodule
