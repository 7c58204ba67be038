// SPDX-License-Identifier: Apache-2.0
// Between a port's MACs and its pins: straight through, or looped for tests.
//
// near_i: what the transmit MAC sends comes back to the receive MAC; the pins see idle. far_i: what the pins
// receive goes back out, the receive MAC sees it too, the transmit MAC's frames go nowhere (its reports say
// sent). The PHY's own loopback is bit 14 of its control register. A change acts once both inputs of the
// switch are idle.
// Resets: each released in its clock. Latency: one tx_clk_i period to the pins (registers), none from them.
module gmii_loopback (
  input  logic       tx_rst_ni,
  input  logic       rx_rst_ni,
  input  logic       near_i,
  input  logic       far_i,

  input  logic       tx_clk_i,
  input  logic [7:0] mac_txd_i,
  input  logic       mac_tx_en_i,
  input  logic       mac_tx_er_i,
  output logic [7:0] txd_o,
  output logic       tx_en_o,
  output logic       tx_er_o,

  input  logic       rx_clk_i,
  input  logic [7:0] rxd_i,
  input  logic       rx_dv_i,
  input  logic       rx_er_i,
  output logic [7:0] mac_rxd_o,
  output logic       mac_rx_dv_o,
  output logic       mac_rx_er_o,

  input  logic [1:0] late_i   // simulation: [0] into tx_clk_i, [1] into rx_clk_i
);
  logic near_rx, near_tx, far_rx, far_tx;
  logic near_idle, far_idle;
  sync_2ff u_near_rx (.clk_i(rx_clk_i), .rst_ni(rx_rst_ni), .late_i(late_i[1]), .d_i(near_i), .q_o(near_rx));
  sync_2ff u_far_rx (.clk_i(rx_clk_i), .rst_ni(rx_rst_ni), .late_i(late_i[1]), .d_i(far_i), .q_o(far_rx));
  sync_2ff #(.Width(2)) u_tx (
    .clk_i(tx_clk_i), .rst_ni(tx_rst_ni), .late_i(late_i[0]), .d_i({near_i, far_i}), .q_o({near_tx, far_tx})
  );

  logic [7:0] near_data, far_data;
  logic near_en, near_er, far_en, far_er;
  // Whole frames or nothing into the way back: less to switch, and to simulate.
  logic far_open_q;
  always_ff @(posedge rx_clk_i or negedge rx_rst_ni) begin
    if (!rx_rst_ni) far_open_q <= 1'b0;
    else if (!rx_dv_i) far_open_q <= far_rx;
  end
  gmii_elastic u_near (
    .in_clk_i(tx_clk_i), .in_rst_ni(tx_rst_ni), .data_i(mac_txd_i), .en_i(mac_tx_en_i), .er_i(mac_tx_er_i),
    .out_clk_i(rx_clk_i), .out_rst_ni(rx_rst_ni), .data_o(near_data), .en_o(near_en), .er_o(near_er),
    .idle_o(near_idle), .late_i({late_i[1], late_i[0]})
  );
  gmii_elastic u_far (
    .in_clk_i(rx_clk_i), .in_rst_ni(rx_rst_ni), .data_i(rxd_i), .en_i(rx_dv_i && far_open_q), .er_i(rx_er_i),
    .out_clk_i(tx_clk_i), .out_rst_ni(tx_rst_ni), .data_o(far_data), .en_o(far_en), .er_o(far_er),
    .idle_o(far_idle), .late_i({late_i[0], late_i[1]})
  );

  logic rx_near_q, tx_far_q, tx_quiet_q;
  // Simulation: only from the pins to the receive MAC something moves, without a register (tools/model_edges.py).
  logic asleep;
  assign asleep = !near_i && !far_i && !near_rx && !near_tx && !far_rx && !far_tx && !rx_near_q && !tx_far_q &&
                  !tx_quiet_q && !far_open_q && near_idle && far_idle && !tx_en_o;
  always_ff @(posedge rx_clk_i or negedge rx_rst_ni) begin
    if (!rx_rst_ni) rx_near_q <= 1'b0;
    else if (!near_en && !rx_dv_i) rx_near_q <= near_rx;
  end
  always_comb begin
    if (rx_near_q) {mac_rx_dv_o, mac_rx_er_o, mac_rxd_o} = {near_en, near_er, near_data};
    else {mac_rx_dv_o, mac_rx_er_o, mac_rxd_o} = {rx_dv_i, rx_er_i, rxd_i};
  end

  always_ff @(posedge tx_clk_i or negedge tx_rst_ni) begin
    if (!tx_rst_ni) begin
      tx_far_q <= 1'b0;
      tx_quiet_q <= 1'b0;
      {tx_en_o, tx_er_o, txd_o} <= '0;
    end else begin
      if (!far_en && !mac_tx_en_i) begin
        tx_far_q <= far_tx;
        tx_quiet_q <= near_tx && !far_tx;
      end
      if (tx_far_q) {tx_en_o, tx_er_o, txd_o} <= {far_en, far_er, far_data};
      else if (tx_quiet_q) {tx_en_o, tx_er_o, txd_o} <= '0;
      else {tx_en_o, tx_er_o, txd_o} <= {mac_tx_en_i, mac_tx_er_i, mac_txd_i};
    end
  end
endmodule
