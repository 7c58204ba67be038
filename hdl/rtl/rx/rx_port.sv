// SPDX-License-Identifier: Apache-2.0
// One port's way in: GMII in its receive clock, across into the core clock, to finished records.
//
// Clocks: rx_clk_i (recovered) and clk_i (core). Where the stamp is taken: stamp_capture, on the toggle that
// gmii_rx makes at the reference byte; each has a number, which the frame's end brings too. Configuration crosses bit by bit.
// fault_o (for a cycle or more): something was lost, or a FIFO's pointers are wrong, so that what comes next could be
// paired wrongly: rx_guard then flushes (rx_flush_i, flush_i).
module rx_port
  import twinstamp_pkg::*;
#(
  parameter int unsigned StoreLog2 = 15,
  parameter bit FlowHash = 1'b1
) (
  input  logic [7:0]  port_i,      // for records; an input, so that all ports are the same module
  input  logic        rx_clk_i,
  input  logic        rx_rst_ni,   // released in rx_clk_i
  input  logic        rx_flush_i,
  input  logic [7:0]  rxd_i,
  input  logic        rx_dv_i,
  input  logic        rx_er_i,

  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic        flush_i,
  input  logic [63:0] now_q32_i,
  input  logic [7:0]  now_fraction_i,
  input  logic [7:0]  epoch_i,
  input  logic [7:0]  link_epoch_i,
  input  logic        enable_i,
  input  logic        first_byte_i,
  input  logic        keep_bad_i,
  input  logic        keep_runt_i,
  input  logic        keep_giant_i,
  input  logic [13:0] limit_i,
  input  logic        store_i,
  output logic        fault_o,

  output logic        hash_valid_o,
  output logic        hash_end_o,
  output logic [63:0] hash_word_o,
  input  logic        hash_ready_i,
  input  logic        hash_done_i,
  input  logic [63:0] hash_digest_i,

  // In the receive clock: the frame's bytes and duplicate profile, for profile_words.
  input  logic [1:0]  profile_i,
  output logic        byte_valid_o,
  output logic        byte_first_o,
  output logic        byte_last_o,
  output logic [7:0]  byte_o,
  output logic [1:0]  frame_profile_o,

  input  logic        flow_key_write_i,   // in clk_i, while the port does not receive
  input  logic [4:0]  flow_key_address_i,
  input  logic [31:0] flow_key_data_i,

  output logic        event_o,
  output rx_end_t     event_end_o,
  output logic        event_giant_o,
  output logic        event_stored_o,
  output logic        event_dropped_o,
  output logic [31:0] drops_o,

  output logic [StoreLog2-3:0] committed_o,
  input  logic [StoreLog2-3:0] taken_i,
  input  logic                 read_i,
  input  logic [StoreLog2-4:0] read_address_i,
  output logic [63:0]          read_data_o,

  // Simulation: a crossing's first flip-flop catches the old value (sync_2ff). [0] stamp, [1] FIFO into the
  // core clock, [2] configuration and FIFO into the receive clock.
  input  logic [2:0]  late_i
);
  logic rx_enable, rx_first_byte;
  logic [1:0] rx_profile;
  sync_2ff #(.Width(4)) u_config (
    .clk_i(rx_clk_i), .rst_ni(rx_rst_ni), .late_i(late_i[2]),
    .d_i({enable_i, first_byte_i, profile_i}), .q_o({rx_enable, rx_first_byte, rx_profile})
  );

  logic toggle;
  logic [StampBits-1:0] gray;
  logic rx_valid, rx_full, full_seen_q;
  rx_entry_t rx_entry;
  gmii_rx u_mac (
    .clk_i(rx_clk_i), .rst_ni(rx_rst_ni), .rxd_i, .rx_dv_i, .rx_er_i,
    .cfg_enable_i(rx_enable), .cfg_first_byte_i(rx_first_byte), .cfg_profile_i(rx_profile),
    .flush_i(rx_flush_i), .stamp_toggle_o(toggle), .stamp_gray_o(gray),
    .byte_valid_o, .byte_first_o, .byte_last_o,
    .byte_o, .profile_o(frame_profile_o), .valid_o(rx_valid), .entry_o(rx_entry)
  );
  always_ff @(posedge rx_clk_i or negedge rx_rst_ni) begin
    if (!rx_rst_ni) full_seen_q <= 1'b0;
    else full_seen_q <= !rx_flush_i && (full_seen_q || (rx_valid && rx_full));
  end

  logic fifo_valid, fifo_ready, fifo_bad, valid, ready;
  rx_entry_t fifo_entry, entry;
  async_fifo #(.Width($bits(rx_entry_t)), .DepthLog2(6)) u_fifo (
    .wclk_i(rx_clk_i), .wrst_ni(rx_rst_ni), .wflush_i(rx_flush_i), .wvalid_i(rx_valid), .wdata_i(rx_entry),
    .wfull_o(rx_full), .wlate_i(late_i[2]),
    .rclk_i(clk_i), .rrst_ni(rst_ni), .rflush_i(flush_i), .rbad_o(fifo_bad), .rvalid_o(fifo_valid), .rdata_o(fifo_entry), .rready_i(fifo_ready),
    .rlate_i(late_i[1])
  );

  stream_register #(.Width($bits(rx_entry_t))) u_entry (
    .clk_i, .rst_ni, .valid_i(fifo_valid), .data_i(fifo_entry), .ready_o(fifo_ready), .valid_o(valid),
    .data_o(entry), .ready_i(ready || flush_i)
  );

  logic stamp_valid, stamp_take, stamp_overflow, fifo_overflow, flow_bad;
  logic [StampBits-1:0] stamp_number;
  logic [63:0] stamp_q32;
  logic [7:0] stamp_epoch;
  stamp_capture u_stamp (
    .clk_i, .rst_ni, .flush_i, .toggle_i(toggle), .late_i(late_i[0]), .gray_i(gray), .gray_late_i(late_i[1]), .now_q32_i, .now_fraction_i, .epoch_i,
    .number_i(stamp_number), .valid_o(stamp_valid), .stamp_q32_o(stamp_q32), .epoch_o(stamp_epoch),
    .take_i(stamp_take), .overflow_o(stamp_overflow)
  );
  sync_2ff u_overflow (.clk_i, .rst_ni, .late_i(1'b0), .d_i(full_seen_q), .q_o(fifo_overflow));
  assign fault_o = stamp_overflow || fifo_overflow || fifo_bad || flow_bad;

  // A result for each frame that has more than an FCS; 0 for one that came too close behind others.
  logic flow_valid, flow_ready;
  logic [31:0] flow;
  if (FlowHash) begin : gen_flow
    logic flow_done, flow_ok;
    logic [31:0] flow_hash, unused_low;
    flow_stream u_flow (
      .clk_i(rx_clk_i), .rst_ni(rx_rst_ni), .key_clk_i(clk_i), .key_write_i(flow_key_write_i),
      .key_address_i(flow_key_address_i), .key_data_i(flow_key_data_i),
      .valid_i(byte_valid_o), .data_i(byte_o), .first_i(byte_first_o), .last_i(byte_last_o), .abort_i(1'b0),
      .done_o(flow_done), .ok_o(flow_ok), .flow_o({flow_hash, unused_low})
    );
    // Never more results than frames in u_fifo, each of which has two entries.
    async_fifo #(.Width(32), .DepthLog2(6)) u_flow_fifo (
      .wclk_i(rx_clk_i), .wrst_ni(rx_rst_ni), .wflush_i(rx_flush_i), .wvalid_i(flow_done),
      .wdata_i(flow_ok ? flow_hash : '0), .wfull_o(), .wlate_i(late_i[2]),
      .rclk_i(clk_i), .rrst_ni(rst_ni), .rflush_i(flush_i), .rbad_o(flow_bad), .rvalid_o(flow_valid), .rdata_o(flow), .rready_i(flow_ready),
      .rlate_i(late_i[1])
    );
  end else begin : gen_no_flow
    logic unused;
    assign unused = ^{flow_ready, flow_key_write_i,
                      flow_key_address_i, flow_key_data_i};
    assign flow_valid = 1'b1;
    assign flow = '0;
    assign flow_bad = 1'b0;
  end

  frame_store #(.StoreLog2(StoreLog2)) u_store (
    .port_i, .clk_i, .rst_ni, .flush_i, .valid_i(valid && !flush_i), .entry_i(entry), .ready_o(ready),
    .stamp_number_o(stamp_number), .stamp_valid_i(stamp_valid), .stamp_q32_i(stamp_q32), .stamp_epoch_i(stamp_epoch),
    .stamp_take_o(stamp_take),
    .store_i, .link_epoch_i, .keep_bad_i, .keep_runt_i, .keep_giant_i, .limit_i,
    .hash_valid_o, .hash_end_o, .hash_word_o, .hash_ready_i, .hash_done_i, .hash_digest_i,
    .flow_valid_i(flow_valid), .flow_i(flow), .flow_ready_o(flow_ready),
    .event_o, .event_end_o, .event_giant_o, .event_stored_o, .event_dropped_o, .drops_o,
    .committed_o, .taken_i, .read_i, .read_address_i, .read_data_o
  );
endmodule
