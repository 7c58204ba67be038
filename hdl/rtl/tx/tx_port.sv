// SPDX-License-Identifier: Apache-2.0
// One port's way out: frames from the host's stream, held until their launch time, to GMII; reports back.
//
// Clocks: clk_i (core) and tx_clk_i (125 MHz, goes to the PHY as GTX_CLK). They may be the same net, then
// SameClock is 1 and both constants hold exactly; otherwise they are the means over all phases.
// Launch: the reference point (SFD, or first byte with first_byte_i) is on the pins at the launch time, with
// an error of -4 to +4 ns (same clock) or -8 to +8 ns (both plus the window in which the first flip-flop of
// the crossing is undecided); launch_lead_q32_o is what the hardware has taken off for it.
// Stamp: report_o.stamp_q32 is card time, stamp_constant_q32_o after the reference point is on the pins, not
// subtracted; exact (same clock) or -4 to +4 ns.
// Configuration crosses bit by bit: change first_byte_i and gap_i while nothing is sent.
module tx_port
  import twinstamp_tx_pkg::*;
#(
  parameter int unsigned StoreLog2 = 15,
  parameter int unsigned MetaLog2 = 5,
  parameter int unsigned ReportLog2 = 6,
  parameter bit SameClock = 1'b1,
  parameter int unsigned PinPeriods = 0    // registers in tx_clk_i between txd_o and the pins: 0 or 1
) (
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic [63:0] now_q32_i,
  input  logic [7:0]  epoch_i,
  input  logic        enable_i,
  input  logic        flush_i,
  input  logic        first_byte_i,
  input  logic [7:0]  gap_i,
  input  logic [31:0] tolerance_q32_i,
  output logic        idle_o,
  output logic        holding_o,       // a frame waits for its launch time: card time must not be loaded
  output logic        fault_o,         // a stamp was lost or went missing: a fault of the design or of a clock
  output logic [31:0] launch_lead_q32_o,
  output logic [31:0] stamp_constant_q32_o,

  input  logic        s_axis_tvalid,
  output logic        s_axis_tready,
  input  logic [63:0] s_axis_tdata,
  input  logic [7:0]  s_axis_tkeep,
  input  logic        s_axis_tlast,
  output logic        malformed_o,

  output logic        report_valid_o,
  output tx_report_t  report_o,
  input  logic        report_ready_i,
  output logic [31:0] lost_o,

  output logic        event_o,
  output tx_end_t     event_end_o,
  output logic        event_launch_o,
  output logic        event_late_o,

  input  logic        tx_clk_i,
  output logic [7:0]  txd_o,
  output logic        tx_en_o,
  output logic        tx_er_o,

  // Simulation (sync_2ff): [0] stamp, [1] other crossings into clk_i, [2] crossings into tx_clk_i.
  input  logic [2:0]  late_i
);
  if (PinPeriods > 1) $fatal(1, "tx_port: PinPeriods must be 0 or 1");
  // In periods of 8 ns at the nominal clocks, halved: target to preamble, SFD seven periods later.
  localparam int unsigned LeadHalves = (SameClock ? 25 : 24) + 2 * PinPeriods;
  localparam int unsigned StampHalves = (SameClock ? 4 : 3) - 2 * PinPeriods;
  // 4 ns are 17.179869184 in 2^-32 s.
  function automatic logic [31:0] halves_q32(input int unsigned halves);
    return 32'((64'(halves) * 64'd17179869184 + 64'd500000000) / 64'd1000000000);
  endfunction
  assign launch_lead_q32_o = first_byte_i ? halves_q32(LeadHalves + 2) : halves_q32(LeadHalves);
  assign stamp_constant_q32_o = halves_q32(StampHalves);

  logic tx_rst_n;
  reset_sync u_reset (.clk_i(tx_clk_i), .rst_ni, .rst_no(tx_rst_n));
  logic tx_first_byte;
  logic [7:0] tx_gap;
  sync_2ff #(.Width(9)) u_config (
    .clk_i(tx_clk_i), .rst_ni(tx_rst_n), .late_i(late_i[2]), .d_i({first_byte_i, gap_i}),
    .q_o({tx_first_byte, tx_gap})
  );

  logic meta_valid, meta_ready, go_valid, go_ready, flight_room, store_empty, holding, launch_waiting;
  logic release_words_valid;
  logic [10:0] release_words;
  tx_meta_t meta, go_meta;
  tx_frame_t go, frame;
  logic frame_valid, frame_ready, byte_valid, byte_last, byte_ready;
  logic [7:0] byte_data;
  tx_store #(.StoreLog2(StoreLog2), .MetaLog2(MetaLog2)) u_store (
    .clk_i, .rst_ni, .s_axis_tvalid, .s_axis_tready, .s_axis_tdata, .s_axis_tkeep, .s_axis_tlast, .malformed_o,
    .meta_valid_o(meta_valid), .meta_o(meta), .meta_ready_i(meta_ready), .empty_o(store_empty),
    .launch_waiting_o(launch_waiting),
    .go_valid_i(go_valid), .go_i(go), .go_ready_o(go_ready),
    .release_i(release_words_valid), .release_words_i(release_words),
    .tx_clk_i, .tx_rst_ni(tx_rst_n), .frame_valid_o(frame_valid), .frame_o(frame), .frame_ready_i(frame_ready),
    .byte_valid_o(byte_valid), .byte_o(byte_data), .byte_last_o(byte_last), .byte_ready_i(byte_ready),
    .late_i(late_i[2:1])
  );
  assign idle_o = store_empty;
  assign holding_o = holding || launch_waiting;

  tx_launch u_launch (
    .clk_i, .rst_ni, .enable_i, .flush_i, .now_q32_i, .lead_q32_i(launch_lead_q32_o), .holding_o(holding),
    .meta_valid_i(meta_valid), .meta_i(meta), .meta_ready_o(meta_ready),
    .room_i(flight_room && go_ready), .go_valid_o(go_valid), .go_o(go), .go_meta_o(go_meta)
  );

  // A stage that writes into frames (a stamp at its departure, say) goes here: same handshakes, frame.stage
  // says where; what it adds to the way of frame and bytes it adds to the lead.
  logic toggle, tx_end_valid, tx_end_full;
  tx_end_t tx_end;
  tx_mac u_mac (
    .clk_i(tx_clk_i), .rst_ni(tx_rst_n), .cfg_first_byte_i(tx_first_byte), .cfg_gap_i(tx_gap),
    .frame_valid_i(frame_valid), .frame_drop_i(frame.drop), .frame_bad_fcs_i(frame.bad_fcs),
    .frame_ready_o(frame_ready), .byte_valid_i(byte_valid), .byte_i(byte_data), .byte_last_i(byte_last), .byte_ready_o(byte_ready),
    .stamp_toggle_o(toggle), .end_valid_o(tx_end_valid), .end_o(tx_end),
    .txd_o, .tx_en_o, .tx_er_o
  );

  logic end_valid, end_ready, stamp_valid, stamp_ready, stamp_overflow;
  tx_end_t end_entry;
  async_fifo #(.Width($bits(tx_end_t)), .DepthLog2(3)) u_end (
    .wclk_i(tx_clk_i), .wrst_ni(tx_rst_n), .wvalid_i(tx_end_valid), .wdata_i(tx_end), .wfull_o(tx_end_full),
    .wlate_i(late_i[2]),
    .rclk_i(clk_i), .rrst_ni(rst_ni), .rvalid_o(end_valid), .rdata_o(end_entry), .rready_i(end_ready),
    .rlate_i(late_i[1])
  );
  logic [63:0] stamp_q32;
  logic [7:0] stamp_epoch;
  stamp_capture u_stamp (
    .clk_i, .rst_ni, .toggle_i(toggle), .late_i(late_i[0]), .now_q32_i, .epoch_i,
    .valid_o(stamp_valid), .stamp_q32_o(stamp_q32), .epoch_o(stamp_epoch), .ready_i(stamp_ready),
    .overflow_o(stamp_overflow)
  );

  tx_report #(.ReportLog2(ReportLog2)) u_report (
    .clk_i, .rst_ni, .constant_q32_i(stamp_constant_q32_o), .tolerance_q32_i, .first_byte_i,
    .room_o(flight_room), .go_valid_i(go_valid), .go_meta_i(go_meta),
    .stamp_valid_i(stamp_valid), .stamp_q32_i(stamp_q32), .stamp_epoch_i(stamp_epoch),
    .stamp_ready_o(stamp_ready),
    .end_valid_i(end_valid), .end_i(end_entry), .end_ready_o(end_ready),
    .release_o(release_words_valid), .release_words_o(release_words),
    .event_o, .event_end_o, .event_launch_o, .event_late_o,
    .report_valid_o, .report_o, .report_ready_i, .lost_o
  );

  logic end_lost_q, end_lost, fault_q;
  always_ff @(posedge tx_clk_i or negedge tx_rst_n) begin
    if (!tx_rst_n) end_lost_q <= 1'b0;
    else if (tx_end_valid && tx_end_full) end_lost_q <= 1'b1;
  end
  sync_2ff u_fault (.clk_i, .rst_ni, .late_i(1'b0), .d_i(end_lost_q), .q_o(end_lost));
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) fault_q <= 1'b0;
    else if (end_lost || stamp_overflow) fault_q <= 1'b1;
  end
  assign fault_o = fault_q;
endmodule
