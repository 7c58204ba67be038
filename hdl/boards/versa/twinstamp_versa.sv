// SPDX-License-Identifier: Apache-2.0
// Lattice ECP5 Versa-5G (LFE5UM5G-45F-8BG381C): two gigabit ports over RGMII, GPS receiver on the expansion header,
// the host on the USB serial line (docs/board-versa.md). Not run on a board.
module twinstamp_versa #(
  parameter logic [31:0] BuildId = 32'd0,
  parameter Program = "",    // of the soft core: the firmware's words for $readmemh
  parameter bit Digest = 1'b0,
  parameter int unsigned DedupLog2 = 0   // of twinstamp_card: too large for this board's part, not for an LFE5UM5G-85F
) (
  input  logic       clk100_i,
  input  logic       rst_ni,
  input  logic       host_rx_i,
  output logic       host_tx_o,
  input  logic [1:0] pps_i,          // the same line on two pins, see pps_sampler
  output logic       pps_o,
  input  logic       gps_rx_i,
  output logic       gps_tx_o,
  output logic [7:0] led_no,

  input  logic [1:0] rgmii_rxc_i,
  input  logic [3:0] rgmii_rxd0_i,
  input  logic [3:0] rgmii_rxd1_i,
  input  logic [1:0] rgmii_rx_ctl_i,
  output logic [1:0] rgmii_txc_o,
  output logic [3:0] rgmii_txd0_o,
  output logic [3:0] rgmii_txd1_o,
  output logic [1:0] rgmii_tx_ctl_o,
  output logic [1:0] phy_rst_no,
  output logic [1:0] mdc_o,
  inout  wire  [1:0] mdio_io
);
  logic clk, fast_clk, locked, rst_n;
  ecp5_clocks u_clocks (.clk100_i, .rst_ni, .fast_clk_o(fast_clk), .clk_o(clk), .locked_o(locked));
  // Of all flip-flops' resets, on a global net: in the fabric it would take longer than a cycle.
  logic [1:0] reset_q;
  logic reset;
  always_ff @(posedge clk or negedge locked) begin
    if (!locked) reset_q <= '1;
    else reset_q <= {reset_q[0], 1'b0};
  end
  DCCA u_reset (.CLKI(reset_q[1]), .CE(1'b1), .CLKO(reset));
  assign rst_n = !reset;

  logic [7:0] pps_word_in, pps_word_out;
  pps_sampler u_sampler (.clk_i(clk), .fast_clk_i(fast_clk), .rst_ni(rst_n), .pps_i, .word_o(pps_word_in));
  pps_serialiser u_serialiser (.clk_i(clk), .fast_clk_i(fast_clk), .rst_ni(rst_n), .word_i(pps_word_out), .pps_o);

  logic [7:0] rxd [2];
  logic [7:0] txd [2];
  logic [1:0] rx_dv, rx_er, tx_en, tx_er, mdio_out, mdio_oe, mdio_in;
  logic [3:0] rgmii_rxd [2];
  logic [3:0] rgmii_txd [2];
  assign rgmii_rxd[0] = rgmii_rxd0_i;
  assign rgmii_rxd[1] = rgmii_rxd1_i;
  assign rgmii_txd0_o = rgmii_txd[0];
  assign rgmii_txd1_o = rgmii_txd[1];
  for (genvar p = 0; p < 2; p++) begin : gen_port
    logic rx_rst_n;
    reset_sync u_rx_reset (.clk_i(rgmii_rxc_i[p]), .rst_ni(rst_n), .rst_no(rx_rst_n));
    rgmii_pins u_pins (
      .clk_i(clk), .rst_ni(rst_n), .rx_clk_i(rgmii_rxc_i[p]), .rx_rst_ni(rx_rst_n), .rxd_i(rgmii_rxd[p]), .rx_ctl_i(rgmii_rx_ctl_i[p]),
      .txc_o(rgmii_txc_o[p]), .txd_o(rgmii_txd[p]), .tx_ctl_o(rgmii_tx_ctl_o[p]),
      .gmii_rxd_o(rxd[p]), .gmii_rx_dv_o(rx_dv[p]), .gmii_rx_er_o(rx_er[p]),
      .gmii_txd_i(txd[p]), .gmii_tx_en_i(tx_en[p]), .gmii_tx_er_i(tx_er[p])
    );
    // MDIO: an open-drain line in effect; driven only while the card says so.
    assign mdio_io[p] = mdio_oe[p] ? mdio_out[p] : 1'bz;
    sync_2ff u_mdio (.clk_i(clk), .rst_ni(rst_n), .late_i(1'b0), .d_i(mdio_io[p]), .q_o(mdio_in[p]));
  end

  // The PHYs' reset: 16.8 ms after power-up, of the 10 ms that they ask for (88E1512 datasheet, reset timing).
  logic [21:0] phy_reset_q;
  always_ff @(posedge clk or negedge rst_n) begin
    if (!rst_n) phy_reset_q <= '0;
    else if (!phy_reset_q[21]) phy_reset_q <= phy_reset_q + 22'd1;
  end
  assign phy_rst_no = {2{phy_reset_q[21]}};

  logic host_rx, gps_rx;
  sync_2ff u_host (.clk_i(clk), .rst_ni(rst_n), .late_i(1'b0), .d_i(host_rx_i), .q_o(host_rx));
  sync_2ff u_gps (.clk_i(clk), .rst_ni(rst_n), .late_i(1'b0), .d_i(gps_rx_i), .q_o(gps_rx));
  serial_card #(.BuildId(BuildId), .Program(Program), .Digest(Digest), .DedupLog2(DedupLog2)) u_card (
    .clk_i(clk), .rst_ni(rst_n), .divider_i(16'd42), .host_rx_i(host_rx), .host_tx_o,
    .pps_word_i(pps_word_in), .pps_word_o(pps_word_out), .uart_rx_i(gps_rx), .uart_tx_o(gps_tx_o),
    .rx_clk_i(rgmii_rxc_i), .rxd_i(rxd), .rx_dv_i(rx_dv), .rx_er_i(rx_er), .txd_o(txd), .tx_en_o(tx_en),
    .tx_er_o(tx_er), .mdc_o, .mdio_o(mdio_out), .mdio_oe_o(mdio_oe), .mdio_i(mdio_in)
  );
  assign led_no = {6'b111111, ~phy_reset_q[21], 1'b0};
endmodule
