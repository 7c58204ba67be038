// SPDX-License-Identifier: Apache-2.0
// Bench of test_tx: card time, a port with its own transmit clock (a), one on the core clock (s), a MAC alone (m).
`timescale 1ps / 1ps
module tx_bench
  import twinstamp_tx_pkg::*;
(
  input  logic        clk,
  input  logic        rst_n,
  input  logic        tx_clk,
  output logic [63:0] now_q32,

  input  logic        enable,
  input  logic        flush,
  input  logic        first_byte,
  input  logic [7:0]  gap,

  input  logic        a_axis_tvalid, s_axis_tvalid,
  output logic        a_axis_tready, s_axis_tready,
  input  logic [63:0] a_axis_tdata, s_axis_tdata,
  input  logic [7:0]  a_axis_tkeep, s_axis_tkeep,
  input  logic        a_axis_tlast, s_axis_tlast,
  output logic        a_idle, s_idle, a_holding, s_holding, a_fault, s_fault,
  output logic [31:0] a_lead, s_lead, a_constant, s_constant, a_lost, s_lost,
  output logic        a_malformed, s_malformed,
  output logic        a_report_valid, s_report_valid,
  output logic [111:0] a_report, s_report,
  input  logic        a_report_ready, s_report_ready,
  output logic        a_event, s_event,
  output logic [20:0] a_event_end, s_event_end,
  output logic        a_event_late, s_event_late,
  output logic [7:0]  a_txd, s_txd,
  output logic        a_tx_en, s_tx_en, a_tx_er, s_tx_er,

  input  logic        m_frame_valid,
  output logic        m_frame_ready,
  input  logic        m_byte_valid,
  input  logic [7:0]  m_byte,
  input  logic        m_byte_last,
  output logic        m_byte_ready,
  output logic        m_end_valid,
  output logic [20:0] m_end,
  output logic        m_stamp_toggle,
  output logic [7:0]  m_txd,
  output logic        m_tx_en, m_tx_er
);
  logic late_core, late_tx;
  late_gen u_late_core (.from_clk_i(tx_clk), .late_o(late_core));
  late_gen u_late_tx (.from_clk_i(clk), .late_o(late_tx));

  card_clock u_clock (
    .clk_i(clk), .rst_ni(rst_n), .increment_write_i(1'b0), .increment_q72_i('0), .slew_write_i(1'b0),
    .slew_amount_q64_i('0), .slew_step_q64_i('0), .load_i(1'b0), .load_q32_i('0), .locked_i(1'b0),
    .armed_i(1'b0), .now_q72_o(), .now_q32_o(now_q32), .slew_left_q64_o(), .epoch_o(),
    .load_refused_o(), .increment_refused_o()
  );
  tx_port #(.StoreLog2(15), .ReportLog2(5), .SameClock(1'b0)) u_a (
    .clk_i(clk), .rst_ni(rst_n), .now_q32_i(now_q32), .epoch_i(8'd3), .enable_i(enable), .flush_i(flush),
    .first_byte_i(first_byte), .gap_i(gap), .tolerance_q32_i(32'd69), .idle_o(a_idle), .holding_o(a_holding),
    .fault_o(a_fault), .launch_lead_q32_o(a_lead), .stamp_constant_q32_o(a_constant),
    .s_axis_tvalid(a_axis_tvalid), .s_axis_tready(a_axis_tready), .s_axis_tdata(a_axis_tdata),
    .s_axis_tkeep(a_axis_tkeep), .s_axis_tlast(a_axis_tlast), .malformed_o(a_malformed),
    .report_valid_o(a_report_valid), .report_o(a_report), .report_ready_i(a_report_ready), .lost_o(a_lost),
    .event_o(a_event), .event_end_o(a_event_end), .event_launch_o(), .event_late_o(a_event_late),
    .tx_clk_i(tx_clk), .txd_o(a_txd), .tx_en_o(a_tx_en), .tx_er_o(a_tx_er),
    .late_i({late_tx, late_core, late_core})
  );
  tx_port #(.StoreLog2(14), .SameClock(1'b1)) u_s (
    .clk_i(clk), .rst_ni(rst_n), .now_q32_i(now_q32), .epoch_i(8'd3), .enable_i(enable), .flush_i(flush),
    .first_byte_i(first_byte), .gap_i(gap), .tolerance_q32_i(32'd69), .idle_o(s_idle), .holding_o(s_holding),
    .fault_o(s_fault), .launch_lead_q32_o(s_lead), .stamp_constant_q32_o(s_constant),
    .s_axis_tvalid, .s_axis_tready, .s_axis_tdata,
    .s_axis_tkeep, .s_axis_tlast, .malformed_o(s_malformed),
    .report_valid_o(s_report_valid), .report_o(s_report), .report_ready_i(s_report_ready), .lost_o(s_lost),
    .event_o(s_event), .event_end_o(s_event_end), .event_launch_o(), .event_late_o(s_event_late),
    .tx_clk_i(clk), .txd_o(s_txd), .tx_en_o(s_tx_en), .tx_er_o(s_tx_er),
    .late_i('0)
  );
  tx_mac u_m (
    .clk_i(tx_clk), .rst_ni(rst_n), .cfg_first_byte_i(first_byte), .cfg_gap_i(gap),
    .frame_valid_i(m_frame_valid), .frame_drop_i(1'b0), .frame_bad_fcs_i(1'b0), .frame_ready_o(m_frame_ready),
    .byte_valid_i(m_byte_valid), .byte_i(m_byte), .byte_last_i(m_byte_last), .byte_ready_o(m_byte_ready),
    .stamp_toggle_o(m_stamp_toggle), .end_valid_o(m_end_valid), .end_o(m_end),
    .txd_o(m_txd), .tx_en_o(m_tx_en), .tx_er_o(m_tx_er)
  );
endmodule
