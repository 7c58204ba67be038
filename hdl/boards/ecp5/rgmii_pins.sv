// SPDX-License-Identifier: Apache-2.0
module rgmii_pins #(
  parameter int unsigned RxTaps = 80,
  parameter int unsigned TxTaps = 80
) (
  input  logic       clk_i,
  input  logic       rst_ni,
  input  logic       rx_clk_i,
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
  logic [4:0] rx, rx_late, first, second;
  assign rx = {rx_ctl_i, rxd_i};
  for (genvar i = 0; i < 5; i++) begin : gen_rx
    DELAYG #(.DEL_MODE("USER_DEFINED"), .DEL_VALUE(RxTaps)) u_delay (.A(rx[i]), .Z(rx_late[i]));
    IDDRX1F u_in (.D(rx_late[i]), .SCLK(rx_clk_i), .RST(1'b0), .Q0(first[i]), .Q1(second[i]));
  end
  always_ff @(posedge rx_clk_i) begin
    gmii_rxd_o <= {second[3:0], first[3:0]};
    gmii_rx_dv_o <= first[4];
    gmii_rx_er_o <= first[4] ^ second[4];
  end
  logic [4:0] low_q, high_q, tx;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      low_q <= '0;
      high_q <= '0;
    end else begin
      low_q <= {gmii_tx_en_i, gmii_txd_i[3:0]};
      high_q <= {gmii_tx_en_i ^ gmii_tx_er_i, gmii_txd_i[7:4]};
    end
  end
  for (genvar i = 0; i < 5; i++) begin : gen_tx
    ODDRX1F u_out (.SCLK(clk_i), .RST(1'b0), .D0(low_q[i]), .D1(high_q[i]), .Q(tx[i]));
  end
  assign {tx_ctl_o, txd_o} = tx;
  logic clock;
  ODDRX1F u_clock (.SCLK(clk_i), .RST(1'b0), .D0(1'b1), .D1(1'b0), .Q(clock));
  DELAYG #(.DEL_MODE("USER_DEFINED"), .DEL_VALUE(TxTaps)) u_delay (.A(clock), .Z(txc_o));
endmodule
