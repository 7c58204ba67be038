// SPDX-License-Identifier: Apache-2.0
// UltraScale+: one RGMII port in an HP bank, from the pins' buffers to GMII, at 1000 Mb/s.
//
// Clocks: rx_clk_o, which is rxc_i through a global buffer; clk_i (125 MHz, transmit), clk90_i (clk_i, 2 ns later,
// of the same MMCM). Receive: the PHY sends its clock 2 ns after the data ("internal delay" on); each data pin passes
// an IDELAYE3 of RxDelayPs (0 to 1100 ps, held constant over temperature by the IDELAYCTRL of its group) against the
// clock's way to the registers. Transmit: data with clk_i, the clock pin with clk90_i: the PHY's transmit delay is off.
// Latency, each way constant: receive two edges of rx_clk_o behind the sampling edge, transmit one edge of clk_i
// before the DDR registers (UG571, IDDRE1 and ODDRE1). Not run on a board.
module rgmii_pins #(
  parameter int unsigned RxDelayPs = 600
) (
  input  logic       rst_ni,
  input  logic       clk_i,
  input  logic       clk90_i,
  input  logic       rxc_i,
  input  logic [3:0] rd_i,
  input  logic       rx_ctl_i,
  output logic       txc_o,
  output logic [3:0] td_o,
  output logic       tx_ctl_o,

  output logic       rx_clk_o,
  output logic [7:0] rxd_o,
  output logic       rx_dv_o,
  output logic       rx_er_o,
  input  logic [7:0] txd_i,
  input  logic       tx_en_i,
  input  logic       tx_er_i
);
  if (RxDelayPs > 1100) $fatal(1, "rgmii_pins: RxDelayPs must be 0 to 1100");

  BUFG u_rx_clk (.I(rxc_i), .O(rx_clk_o));
  logic rx_rst_n;
  reset_sync u_rx_reset (.clk_i(rx_clk_o), .rst_ni, .rst_no(rx_rst_n));

  logic [4:0] rx_pins, rx_late, rx_rise, rx_fall;
  assign rx_pins = {rx_ctl_i, rd_i};
  for (genvar i = 0; i < 5; i++) begin : gen_rx
    (* IODELAY_GROUP = "twinstamp_rgmii" *) IDELAYE3 #(
      .CASCADE("NONE"), .DELAY_FORMAT("TIME"), .DELAY_SRC("IDATAIN"), .DELAY_TYPE("FIXED"),
      .DELAY_VALUE(RxDelayPs), .REFCLK_FREQUENCY(300.0), .SIM_DEVICE("ULTRASCALE_PLUS"), .UPDATE_MODE("ASYNC")
    ) u_delay (
      .IDATAIN(rx_pins[i]), .DATAIN(1'b0), .DATAOUT(rx_late[i]), .CASC_IN(1'b0), .CASC_RETURN(1'b0), .CASC_OUT(),
      .CLK(1'b0), .RST(1'b0), .CE(1'b0), .INC(1'b0), .LOAD(1'b0), .EN_VTC(1'b1), .CNTVALUEIN('0), .CNTVALUEOUT()
    );
    IDDRE1 #(.DDR_CLK_EDGE("SAME_EDGE_PIPELINED"), .IS_CB_INVERTED(1'b1)) u_register (
      .C(rx_clk_o), .CB(rx_clk_o), .R(1'b0), .D(rx_late[i]), .Q1(rx_rise[i]), .Q2(rx_fall[i])
    );
  end
  rgmii_rx u_rx (
    .clk_i(rx_clk_o), .rst_ni(rx_rst_n), .rise_i(rx_rise), .fall_i(rx_fall), .rxd_o, .rx_dv_o, .rx_er_o,
    .status_valid_o(), .link_o(), .speed_o(), .full_duplex_o()
  );

  logic [4:0] tx_rise, tx_fall, tx_pins;
  rgmii_tx u_tx (
    .clk_i, .rst_ni, .txd_i, .tx_en_i, .tx_er_i, .rise_o(tx_rise), .fall_o(tx_fall)
  );
  for (genvar i = 0; i < 5; i++) begin : gen_tx
    ODDRE1 #(.SIM_DEVICE("ULTRASCALE_PLUS"), .SRVAL(1'b0)) u_register (
      .C(clk_i), .SR(1'b0), .D1(tx_rise[i]), .D2(tx_fall[i]), .Q(tx_pins[i])
    );
  end
  assign {tx_ctl_o, td_o} = tx_pins;
  ODDRE1 #(.SIM_DEVICE("ULTRASCALE_PLUS"), .SRVAL(1'b0)) u_txc (
    .C(clk90_i), .SR(1'b0), .D1(1'b1), .D2(1'b0), .Q(txc_o)
  );
endmodule
