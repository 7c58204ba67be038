// SPDX-License-Identifier: Apache-2.0
// Bench of test_zcu104_ip: what Vivado gets (twinstamp_card_ip) on its buses, with models of the cells. Cables between
// the ports 0 and 1 and between 2 and 3; the serial line's and the PPS's output go into their inputs. MDIO is pulled
// up, and nobody answers. zcu104_ip_registers.svh has byte addresses, made by the test from the register map.
`timescale 1ps / 1ps
module zcu104_ip_bench;
  `include "zcu104_ip_registers.svh"
  logic clk, resetn = 0, irq;
  logic [3:0] phy_reset_n, mdio;
  logic s_axil_awvalid, s_axil_awready, s_axil_wvalid, s_axil_wready, s_axil_bvalid, s_axil_bready;
  logic s_axil_arvalid, s_axil_arready, s_axil_rvalid, s_axil_rready, m_axi_awvalid, m_axi_awready;
  logic m_axi_wvalid, m_axi_wready, m_axi_wlast, m_axi_bvalid, m_axi_bready, m_axi_arvalid, m_axi_arready;
  logic m_axi_rvalid, m_axi_rready, m_axi_rlast;
  logic [16:0] s_axil_awaddr, s_axil_araddr;
  logic [2:0] s_axil_awprot, s_axil_arprot, m_axi_awsize, m_axi_awprot, m_axi_arsize, m_axi_arprot;
  logic [31:0] s_axil_wdata, s_axil_rdata;
  logic [3:0] s_axil_wstrb, m_axi_awcache, m_axi_arcache;
  logic [1:0] s_axil_bresp, s_axil_rresp, m_axi_awburst, m_axi_bresp, m_axi_arburst, m_axi_rresp;
  logic [63:0] m_axi_awaddr, m_axi_wdata, m_axi_araddr, m_axi_rdata;
  logic [7:0] m_axi_awlen, m_axi_wstrb, m_axi_arlen;
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

  // Memory behind the master: 64 Ki words of 8 bytes; bursts one after the other.
  logic [63:0] memory [65536];
  logic [63:0] write_at, read_at;
  int unsigned write_left = 0, read_left = 0;
  assign m_axi_awready = write_left == 0 && !m_axi_bvalid;
  assign m_axi_wready = write_left != 0;
  assign m_axi_arready = read_left == 0;
  assign m_axi_rvalid = read_left != 0;
  assign m_axi_rdata = memory[read_at[18:3]];
  assign m_axi_rlast = read_left == 1;
  assign m_axi_bresp = 2'b00;
  assign m_axi_rresp = 2'b00;
  always @(posedge clk) begin
    if (!resetn) m_axi_bvalid <= 1'b0;
    else begin
      if (m_axi_bvalid && m_axi_bready) m_axi_bvalid <= 1'b0;
      if (m_axi_awvalid && m_axi_awready) begin
        write_at <= m_axi_awaddr;
        write_left <= 32'(m_axi_awlen) + 1;
        if (m_axi_awsize != 3 || m_axi_awburst != 1 || m_axi_awcache != 15 || m_axi_awprot != 2) $fatal(1, "AW");
      end
      if (m_axi_wvalid && m_axi_wready) begin
        memory[write_at[18:3]] <= m_axi_wdata;
        if (m_axi_wstrb != 8'hFF || m_axi_wlast != (write_left == 1)) $fatal(1, "W");
        write_at <= write_at + 8;
        write_left <= write_left - 1;
        if (m_axi_wlast) m_axi_bvalid <= 1'b1;
      end
      if (m_axi_arvalid && m_axi_arready) begin
        read_at <= m_axi_araddr;
        read_left <= 32'(m_axi_arlen) + 1;
        if (m_axi_arsize != 3 || m_axi_arburst != 1 || m_axi_arcache != 15 || m_axi_arprot != 2) $fatal(1, "AR");
      end
      if (m_axi_rvalid && m_axi_rready) begin
        read_at <= read_at + 8;
        read_left <= read_left - 1;
      end
    end
  end

  task automatic write32(input int unsigned address, input logic [31:0] value);
    @(negedge clk);
    s_axil_awaddr = 17'(address);
    s_axil_wdata = value;
    s_axil_awvalid = 1;
    s_axil_wvalid = 1;
    while (s_axil_awvalid || s_axil_wvalid) begin
      @(posedge clk);
      if (s_axil_awready) s_axil_awvalid <= 0;
      if (s_axil_wready) s_axil_wvalid <= 0;
      @(negedge clk);
    end
    while (!s_axil_bvalid) @(negedge clk);
    if (s_axil_bresp != 0) $fatal(1, "BRESP at %h", address);
    @(negedge clk);
  endtask
  task automatic write64(input int unsigned address, input logic [63:0] value);
    write32(address, value[31:0]);
    write32(address + 4, value[63:32]);
  endtask
  logic [31:0] got;
  task automatic read32(input int unsigned address);
    @(negedge clk);
    s_axil_araddr = 17'(address);
    s_axil_arvalid = 1;
    while (s_axil_arvalid) begin
      @(posedge clk);
      if (s_axil_arready) s_axil_arvalid <= 0;
      @(negedge clk);
    end
    while (!s_axil_rvalid) @(negedge clk);
    got = s_axil_rdata;
    if (s_axil_rresp != 0) $fatal(1, "RRESP at %h", address);
    @(negedge clk);
  endtask
  task automatic until_reads(input int unsigned address, input logic [31:0] value, input int unsigned cycles);
    got = ~value;
    for (int unsigned i = 0; i < cycles && got != value; i += 50) begin
      read32(address);
      repeat (50) @(negedge clk);
    end
    if (got != value) $fatal(1, "%h reads %h, not %h", address, got, value);
  endtask

  localparam int unsigned Sending = 'h40000;  // the ring is at 0
  logic [3:0] moved = 0;
  always @(mdio) moved |= ~mdio;
  logic [63:0] words [4][20];
  int unsigned length [4];
  int unsigned at, port, seen_ports, frame_words;
  longint late;
  initial begin
    {s_axil_awvalid, s_axil_wvalid, s_axil_arvalid, s_axil_awprot, s_axil_arprot} = '0;
    s_axil_wstrb = 4'hF;
    s_axil_bready = 1;
    s_axil_rready = 1;
    for (int i = 0; i < 65536; i++) memory[i] = '0;
    #200_000 resetn = 1;
    repeat (20) @(negedge clk);

    // Registers, the PHYs' reset, a management frame.
    if (phy_reset_n != 4'h0) $fatal(1, "PHYs are out of reset at once");
    read32(R_id_magic);
    if (got != Magic) $fatal(1, "magic %h", got);
    read32(R_id_features);
    if (got[3]) $fatal(1, "the IP says that it is simulated");
    write32(R_id_scratch, 32'hA5C35A3C);
    read32(R_id_scratch);
    if (got != 32'hA5C35A3C) $fatal(1, "scratch %h", got);
    repeat (100) @(negedge clk);
    if (phy_reset_n != 4'hF) $fatal(1, "PHYs stay in reset");
    for (int p = 0; p < 4; p++) write32(R_port0_phy_poll + p * 'h100, 0);
    repeat (25_000) @(negedge clk);  // polls under way
    moved = 0;
    write32(R_port0_phy_command + 2 * 'h100, 1 << 21 | 2 << 16);
    repeat (5_000) @(negedge clk);
    if (moved != 4'b0100) $fatal(1, "MDIO of port 2: %b moved", moved);
    read32(R_port0_phy_answer + 2 * 'h100);
    if (!got[31]) $fatal(1, "a PHY answers that is not there");

    // A frame from each port over its cable, by memory; one block of four records, and the interrupt.
    write64(R_ring_base, 0);
    write32(R_ring_shape, 14 | 1 << 5);
    write32(R_ring_timeout, 2000);
    write32(R_ring_interrupt, 1);
    write32(R_ring_control, 1);
    for (int p = 0; p < 4; p++) begin
      write32(R_port0_rx_control + p * 'h100, 1);
      length[p] = 60 + 17 * p;
      frame_words = (length[p] + 7) / 8;
      at = Sending / 8 + p * 'h200;
      memory[at] = 64'(length[p]);
      for (int i = 0; i < int'(frame_words); i++) begin
        words[p][i] = {$urandom, $urandom};
        if (i == int'(frame_words) - 1 && length[p] % 8 != 0) words[p][i] &= (64'd1 << 8 * (length[p] % 8)) - 1;
        memory[at + 4 + i] = words[p][i];
      end
      write64(R_port0_tx_base + p * 'h100, 64'(Sending + p * 'h1000));
      write32(R_port0_tx_control + p * 'h100, 1 | 9 << 4);
    end
    if (irq) $fatal(1, "an interrupt without a block");
    for (int p = 0; p < 4; p++) write32(R_port0_tx_producer + p * 'h100, 4 + (length[p] + 7) / 8);
    until_reads(R_ring_producer, 1, 20_000);
    if (!irq) $fatal(1, "no interrupt");
    write32(R_ring_seen, 1);
    repeat (5) @(negedge clk);
    if (irq) $fatal(1, "the interrupt stays up");
    if (memory[0][31:0] != 32'h31425354 || memory[2][63:32] != 4) $fatal(1, "block %h, %h", memory[0], memory[2]);
    at = 8;
    seen_ports = 0;
    repeat (4) begin
      port = 32'(memory[at][39:32]);
      seen_ports |= 1 << port;
      if (port > 3 || memory[at][15:0] != 16'(length[port ^ 1])) $fatal(1, "record %h", memory[at]);
      if (memory[at][55:48] != 0) $fatal(1, "flags %h", memory[at][55:48]);
      frame_words = (length[port ^ 1] + 7) / 8;
      for (int i = 0; i < int'(frame_words); i++)
        if (memory[at + 4 + i] != words[port ^ 1][i])
          $fatal(1, "port %0d, word %0d: %h, sent %h", port, i, memory[at + 4 + i], words[port ^ 1][i]);
      at += 4 + frame_words;
    end
    if (seen_ports != 15 || memory[2][31:0] != at * 8) $fatal(1, "ports %b, %0d bytes", seen_ports, memory[2][31:0]);

    // A byte over the serial line.
    write32(R_uart_divider, 16);
    write32(R_uart_transmit, 'h5A);
    repeat (300) @(negedge clk);
    read32(R_uart_receive);
    if (got != 'h15A) $fatal(1, "serial line: %h", got);

    // A pulse of the card's own: the second, and output and sampler, with all delays 0.
    write32(R_pps_filter, 20);
    write32(R_pps_output_width, 100);
    write64(R_clock_load_time, {32'd1_800_000_000, 32'd0} - 64'd85_899);  // 20 us before it
    write32(R_clock_control, 1);
    write32(R_pps_control, 'b101);
    until_reads(R_pps_edges, 1, 10_000);
    read32(R_pps_edge_time + 4);
    if (got != 1_800_000_000) $fatal(1, "pulse at second %0d", got);
    read32(R_pps_edge_time);
    late = 64'(got) * 2328 / 10;  // ps
    if (late < 10_000 || late > 60_000) $fatal(1, "pulse captured %0d ps late", late);
    $display("pulse captured %0d ps after the second: good", late);
    $finish;
  end
  initial #5_000_000_000 $fatal(1, "no end");
endmodule
