// SPDX-License-Identifier: Apache-2.0
// The card: GMII ports, card time, records into a ring in host memory, registers (docs/card.md).
//
// Clocks: clk_i (core, 125 MHz, drives card time, AXI and transmit), clk_reg_i (clk_i itself; a simulation
// leaves edges out from 64 cycles after a bus access until the next one), aux_clk_i (clk_i itself; a simulation
// leaves edges out while aux_active_o is low and clk_reg_i stands), rx_clk_i[] one per port. rst_ni
// asserts at once, is released in each clock on its own. AXI4-Lite for registers, AXI4 for the ring.
module twinstamp_card
  import twinstamp_pkg::*;
#(
  parameter int unsigned Ports = 4,           // 1 to 4, as many as the register block has
  parameter int unsigned StoreLog2 = 15,      // bytes of a port's frame store, 14 to 17
  parameter logic [31:0] BuildId = 32'd0,
  parameter bit FlowHash = 1'b1,
  parameter bit Digest = 1'b1,
  parameter bit Trains = 1'b1,
  parameter Program = "",                    // of the soft core, see there
  parameter int unsigned DedupLog2 = 13,  // frames in the duplicate window, log2; 0: none, digests exact only
  parameter bit Simulated = 1'b0
) (
  input  logic        clk_i,
  input  logic        clk_reg_i,   // clk_i for the register block: may stand still while the bus is quiet
  input  logic        aux_clk_i,   // clk_i for PPS, serial line and soft core: may stand still while unused
  input  logic        rst_ni,
  output logic        reg_active_o,   // simulation only: clocks that may not stand still
  output logic        aux_active_o,

  input  logic [7:0]  pps_word_i,     // of the board's sampler, see pps_capture
  output logic [7:0]  pps_word_o,     // for the board's serialiser, see pps_output
  input  logic        uart_rx_i,
  output logic        uart_tx_o,

  input  logic [Ports-1:0] rx_clk_i,
  input  logic [7:0]  rxd_i [Ports],
  input  logic [Ports-1:0] rx_dv_i,
  input  logic [Ports-1:0] rx_er_i,

  output logic [7:0]  txd_o [Ports],
  output logic [Ports-1:0] tx_en_o,
  output logic [Ports-1:0] tx_er_o,

  output logic [Ports-1:0] mdc_o,
  output logic [Ports-1:0] mdio_o,
  output logic [Ports-1:0] mdio_oe_o,
  input  logic [Ports-1:0] mdio_i,

  input  logic        s_axil_awvalid,
  output logic        s_axil_awready,
  input  logic [16:0] s_axil_awaddr,
  input  logic        s_axil_wvalid,
  output logic        s_axil_wready,
  input  logic [31:0] s_axil_wdata,
  input  logic [3:0]  s_axil_wstrb,
  output logic        s_axil_bvalid,
  input  logic        s_axil_bready,
  output logic [1:0]  s_axil_bresp,
  input  logic        s_axil_arvalid,
  output logic        s_axil_arready,
  input  logic [16:0] s_axil_araddr,
  output logic        s_axil_rvalid,
  input  logic        s_axil_rready,
  output logic [31:0] s_axil_rdata,
  output logic [1:0]  s_axil_rresp,

  output logic        m_axi_awvalid,
  input  logic        m_axi_awready,
  output logic [63:0] m_axi_awaddr,
  output logic [7:0]  m_axi_awlen,
  output logic        m_axi_wvalid,
  input  logic        m_axi_wready,
  output logic [63:0] m_axi_wdata,
  output logic        m_axi_wlast,
  input  logic        m_axi_bvalid,
  output logic        m_axi_bready,
  input  logic [1:0]  m_axi_bresp,

  output logic        m_axi_arvalid,
  input  logic        m_axi_arready,
  output logic [63:0] m_axi_araddr,
  output logic [7:0]  m_axi_arlen,
  input  logic        m_axi_rvalid,
  output logic        m_axi_rready,
  input  logic [63:0] m_axi_rdata,
  input  logic [1:0]  m_axi_rresp,
  input  logic        m_axi_rlast,

  output logic         irq_o,      // level: the ring has blocks that the host has not seen (ring.interrupt)

  output logic [103:0] now_q72_o,
  input  logic [2:0]   late_i [Ports]   // simulation only, see sync_2ff; tie to 0
);
  if (DedupLog2 != 0 && !Digest) $fatal(1, "twinstamp_card: the duplicate window needs digests");
  if (Ports < 1 || Ports > 4) $fatal(1, "twinstamp_card: Ports must be 1 to 4");
  // From the reference byte's appearance on the pins to the stamp, in 2^-32 s (docs/card.md): 8 ns to its
  // sampling edge, 8 ns to the toggle, 4 +- 4 ns to the first flip-flop, 8 ns for the second, and card time
  // as it stood before the edge that sees it: 28 ns, 120.259 units; stamp_capture's rounding takes the 0.259.
  localparam logic [31:0] RxConstantQ32 = 32'd120;

  // What registers read is a cycle old: registered, so that only clk_reg_i moves the register block.
  card_regs_pkg::twinstamp_card__in_t hwif_in, hwif_in_q;
  card_regs_pkg::twinstamp_card__out_t hwif_out;

  // Accesses to memories outside the register block, a cycle later.
  card_regs_pkg::twinstamp_card__counter_memory__external__out_t counter_memory_q;
  card_regs_pkg::twinstamp_card__digest_key__external__out_t digest_key_q;
  card_regs_pkg::twinstamp_card__flow_key__external__out_t flow_key_q;
  card_regs_pkg::twinstamp_card__train_memory__external__out_t train_memory_q;
  card_regs_pkg::twinstamp_card__cpu_memory__external__out_t cpu_memory_q;
  always_ff @(posedge clk_reg_i) begin
    counter_memory_q <= hwif_out.counter_memory;
    digest_key_q <= hwif_out.digest_key;
    flow_key_q <= hwif_out.flow_key;
    train_memory_q <= hwif_out.train_memory;
    cpu_memory_q <= hwif_out.cpu_memory;
  end

  logic [63:0] now_q32, slew_left;
  logic [7:0] now_fraction;
  logic [48:0] added_q72;
  logic [31:0] epoch, producer;
  logic load_refused, increment_refused;
  logic core_failed, locked;
  // What a failed servo wrote does not count any more.
  logic [31:0] bound_ns;
  assign locked = hwif_out.clock.control.locked.value && !core_failed;
  assign bound_ns = core_failed ? '1 : hwif_out.clock.bound.ns.value;
  utc_t utc;
  assign utc = '{
      leap_at: hwif_out.clock.leap_second.tai_s.value,
      leap: hwif_out.clock.utc_offset.leap.value,
      valid: hwif_out.clock.utc_offset.valid.value,
      s: hwif_out.clock.utc_offset.s.value
  };
  logic ring_error, ring_bad_shape, ring_idle, store;
  logic counters_busy;
  logic [63:0] latched_at_q;

  logic [Ports-1:0] ev, ev_giant, ev_stored, ev_dropped, discard, fault, counters_overflow;
  logic [Ports-1:0] faulty, flush;
  rx_end_t ev_end [Ports];
  logic [31:0] drops [Ports];
  // Records for the packer: of the ports' frame stores, and departure stamps.
  localparam int unsigned Sources = Ports + 1;
  logic [StoreLog2-3:0] committed [Sources];
  logic [StoreLog2-3:0] taken [Sources];
  logic [Sources-1:0] store_read, discard_source;
  logic [StoreLog2-4:0] store_address [Sources];
  logic [63:0] store_data [Sources];
  assign discard = discard_source[Ports-1:0];
  // The packer's side of the duplicate window; the same as the stores' where there is none.
  logic [StoreLog2-3:0] offered [Sources];
  logic [Sources-1:0] packer_read, duplicate_source;
  logic [StoreLog2-4:0] packer_address;
  logic more, mark_duplicate, drop_duplicate;
  localparam bit Dedup = DedupLog2 != 0;
  logic [1:0] profile;
  assign profile = Dedup ? hwif_out.dedup.control.profile.value : '0;

  logic [Ports-1:0] hash_valid, hash_end, hash_ready, hash_done;
  logic [63:0] hash_word [Ports];
  logic [63:0] hash_digest [Ports];
  logic [Ports-1:0] normal_valid, normal_end, normal_ready;
  logic [63:0] normal_word [Ports];
  if (Digest) begin : gen_digest
    profile_digest #(.Ports(Ports), .Profiles(Dedup)) u_digest (
      .clk_i, .rst_ni, .profile_i(profile), .flush_i(flush),
      .valid_i(hash_valid), .end_i(hash_end), .word_i(hash_word), .ready_o(hash_ready),
      .done_o(hash_done), .digest_o(hash_digest), .normal_valid_i(normal_valid), .normal_end_i(normal_end),
      .normal_word_i(normal_word), .normal_ready_o(normal_ready),
      .key_write_i(digest_key_q.req && digest_key_q.req_is_wr),
      .key_address_i(digest_key_q.addr[10:2]), .key_data_i(digest_key_q.wr_data)
    );
  end else begin : gen_no_digest
    assign hash_ready = '1;
    assign hash_done = '1;
    assign hash_digest = '{default: '0};
    assign normal_ready = '1;
  end
  assign hwif_in.flow_key.wr_ack = flow_key_q.req && flow_key_q.req_is_wr;
  assign hwif_in.digest_key.wr_ack = digest_key_q.req && digest_key_q.req_is_wr;

  // Between MACs and pins.
  logic [7:0] mac_rxd [Ports];
  logic [7:0] mac_txd [Ports];
  logic [Ports-1:0] mac_rx_dv, mac_rx_er, mac_tx_en, mac_tx_er;
  logic [31:0] link_ups [Ports];
  logic [7:0] link_epoch [Ports];
  logic [Ports-1:0] rx_rst_n;
  for (genvar p = 0; p < int'(Ports); p++) begin : gen_phy
    reset_sync u_rx_reset (.clk_i(rx_clk_i[p]), .rst_ni, .rst_no(rx_rst_n[p]));
    gmii_loopback u_loopback (
      .tx_rst_ni(rst_ni), .rx_rst_ni(rx_rst_n[p]),
      .near_i(hwif_out.port[p].loopback.near.value), .far_i(hwif_out.port[p].loopback.far.value),
      .tx_clk_i(clk_i), .mac_txd_i(mac_txd[p]), .mac_tx_en_i(mac_tx_en[p]), .mac_tx_er_i(mac_tx_er[p]),
      .txd_o(txd_o[p]), .tx_en_o(tx_en_o[p]), .tx_er_o(tx_er_o[p]),
      .rx_clk_i(rx_clk_i[p]), .rxd_i(rxd_i[p]), .rx_dv_i(rx_dv_i[p]), .rx_er_i(rx_er_i[p]),
      .mac_rxd_o(mac_rxd[p]), .mac_rx_dv_o(mac_rx_dv[p]), .mac_rx_er_o(mac_rx_er[p]),
      .late_i(late_i[p][2:1])
    );
    assign hwif_in.port[p].phy.epochs.count.next = link_ups[p];
    assign link_epoch[p] = link_ups[p][7:0];
    // The fields of a command are there a cycle after the write.
    logic command_q;
    always_ff @(posedge clk_i or negedge rst_ni) begin
      if (!rst_ni) command_q <= 1'b0;
      else command_q <= hwif_out.port[p].phy.command.data.swmod;
    end
    phy_link u_link (
      .clk_i, .rst_ni, .poll_i(hwif_out.port[p].phy.poll.cycles.value),
      .phy_i(hwif_out.port[p].phy.control.address.value), .command_i(command_q),
      .command_write_i(hwif_out.port[p].phy.command.write.value),
      .command_phy_i(hwif_out.port[p].phy.command.address.value),
      .command_register_i(hwif_out.port[p].phy.command.register.value),
      .command_data_i(hwif_out.port[p].phy.command.data.value),
      .busy_o(hwif_in.port[p].phy.answer.busy.next), .data_o(hwif_in.port[p].phy.answer.data.next),
      .error_o(hwif_in.port[p].phy.answer.error.next), .link_o(hwif_in.port[p].phy.status.link.next),
      .speed_o(hwif_in.port[p].phy.status.speed.next),
      .full_duplex_o(hwif_in.port[p].phy.status.full_duplex.next),
      .answers_o(hwif_in.port[p].phy.status.answers.next), .ups_o(link_ups[p]),
      .mdc_o(mdc_o[p]), .mdio_o(mdio_o[p]), .mdio_oe_o(mdio_oe_o[p]), .mdio_i(mdio_i[p])
    );
  end

  for (genvar p = 0; p < int'(Ports); p++) begin : gen_port
    logic byte_valid, byte_first, byte_last, words_overflow, rx_flush;
    logic [7:0] byte_data;
    logic [1:0] frame_profile;
    rx_port #(.StoreLog2(StoreLog2), .FlowHash(FlowHash)) u_rx (
      .port_i(8'(p)),
      .rx_clk_i(rx_clk_i[p]), .rx_rst_ni(rx_rst_n[p]), .rx_flush_i(rx_flush),
      .rxd_i(mac_rxd[p]), .rx_dv_i(mac_rx_dv[p]), .rx_er_i(mac_rx_er[p]),
      .clk_i, .rst_ni, .flush_i(flush[p]), .now_q32_i(now_q32), .now_fraction_i(now_fraction), .epoch_i(epoch[7:0]),
      .link_epoch_i(link_epoch[p]),
      .enable_i(hwif_out.port[p].rx_control.enable.value),
      .first_byte_i(hwif_out.port[p].rx_control.stamp_first_byte.value),
      .keep_bad_i(hwif_out.port[p].rx_control.keep_bad.value),
      .keep_runt_i(hwif_out.port[p].rx_control.keep_runt.value),
      .keep_giant_i(hwif_out.port[p].rx_control.keep_giant.value),
      .limit_i(hwif_out.port[p].rx_limit.bytes.value),
      .store_i(store), .fault_o(fault[p]),
      .hash_valid_o(hash_valid[p]), .hash_end_o(hash_end[p]), .hash_word_o(hash_word[p]),
      .hash_ready_i(hash_ready[p]), .hash_done_i(hash_done[p]), .hash_digest_i(hash_digest[p]),
      .profile_i(profile), .byte_valid_o(byte_valid), .byte_first_o(byte_first), .byte_last_o(byte_last),
      .byte_o(byte_data), .frame_profile_o(frame_profile),
      .flow_key_write_i(flow_key_q.req && flow_key_q.req_is_wr),
      .flow_key_address_i(flow_key_q.addr[6:2]), .flow_key_data_i(flow_key_q.wr_data),
      .event_o(ev[p]), .event_end_o(ev_end[p]), .event_giant_o(ev_giant[p]),
      .event_stored_o(ev_stored[p]), .event_dropped_o(ev_dropped[p]), .drops_o(drops[p]),
      .committed_o(committed[p]), .taken_i(taken[p]), .read_i(store_read[p]),
      .read_address_i(store_address[p]), .read_data_o(store_data[p]),
      .late_i(late_i[p])
    );
    assign hwif_in.port[p].rx_constant.q32.next = RxConstantQ32;
    if (Dedup) begin : gen_words
      profile_words u_words (
        .rx_clk_i(rx_clk_i[p]), .rx_rst_ni(rx_rst_n[p]), .rx_flush_i(rx_flush), .profile_i(frame_profile), .valid_i(byte_valid),
        .data_i(byte_data), .first_i(byte_first), .last_i(byte_last),
        .clk_i, .rst_ni, .flush_i(flush[p]), .wanted_i(profile[1]), .valid_o(normal_valid[p]), .end_o(normal_end[p]),
        .word_o(normal_word[p]), .ready_i(normal_ready[p]), .overflow_o(words_overflow),
        .wlate_i(late_i[p][2]), .rlate_i(late_i[p][1])
      );
    end else begin : gen_no_words
      logic unused;
      assign unused = ^{byte_valid, byte_first, byte_last, byte_data, frame_profile, normal_ready[p]};
      assign {normal_valid[p], normal_end[p], normal_word[p], words_overflow} = '0;
    end
    assign hwif_in.port[p].rx_status.overflow.next = faulty[p];
    rx_guard u_guard (
      .clk_i, .rst_ni, .enable_i(hwif_out.port[p].rx_control.enable.value),
      .fault_i(fault[p] || counters_overflow[p] || words_overflow), .fault_o(faulty[p]),
      .flush_o(flush[p]), .rx_clk_i(rx_clk_i[p]), .rx_rst_ni(rx_rst_n[p]), .rx_flush_o(rx_flush),
      .wlate_i(late_i[p][2]), .rlate_i(late_i[p][1])
    );
  end

  // Transmit. From the decision to let a frame go to its SFD on the pins it takes ten cycles, 343 * 2^-32 s.
  localparam logic [63:0] LeadQ32 = 64'd343;
  logic [63:0] next_q32, lead_q32_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) lead_q32_q <= '0;
    else lead_q32_q <= next_q32 + LeadQ32;
  end
  localparam int unsigned TxDepthLog2 = 11;
  logic [Ports-1:0] tx_enable, tx_valid, sent;
  // Departures: of the host's frames, then of the trains' packets.
  logic [2*Ports-1:0] departure_valid, departure_ready, departure_late;
  logic [Ports-1:0] sent_multicast, sent_broadcast, sent_late, tx_bad_shape;
  logic [63:0] tx_base [Ports];
  logic [4:0] tx_size [Ports];
  logic [31:0] tx_producer [Ports];
  logic [31:0] tx_consumer [Ports];
  logic [TxDepthLog2:0] tx_room [Ports];
  logic [63:0] tx_data;
  logic tx_error;
  logic [63:0] departure_q32 [2*Ports];
  logic [63:0] departure_cookie [2*Ports];
  logic [15:0] departure_length [2*Ports];
  logic [63:0] departure_delay [Ports];
  logic [15:0] sent_length [Ports];
  logic [7:0] host_txd [Ports];
  logic [15:0] host_length [Ports];
  logic [Ports-1:0] host_tx_en, host_busy, hold_host, host_sent, host_multicast, host_broadcast, host_late;
  logic [15:0] host_sent_length [Ports];
  for (genvar p = 0; p < int'(Ports); p++) begin : gen_tx
    assign tx_enable[p] = hwif_out.port[p].tx_control.enable.value;
    assign tx_size[p] = hwif_out.port[p].tx_control.size_log2.value;
    assign tx_base[p] = hwif_out.port[p].tx_base.address.value;
    assign tx_producer[p] = hwif_out.port[p].tx_producer.index.value;
    assign hwif_in.port[p].tx_consumer.index.next = tx_consumer[p];
    assign hwif_in.port[p].tx_status.error.next = tx_error;
    assign hwif_in.port[p].tx_status.bad_shape.next = tx_bad_shape[p];
    gmii_tx #(.DepthLog2(TxDepthLog2)) u_tx (
      .clk_i, .rst_ni, .now_q32_i(now_q32), .now_half_i(now_fraction[7]), .lead_q32_i(lead_q32_q), .enable_i(tx_enable[p]),
      .hold_i(hold_host[p]), .in_valid_i(tx_valid[p]), .in_data_i(tx_data),
      .room_o(tx_room[p]), .busy_o(host_busy[p]), .length_o(host_length[p]),
      .bad_record_o(hwif_in.port[p].tx_status.bad_record.next), .txd_o(host_txd[p]), .tx_en_o(host_tx_en[p]), .tx_er_o(mac_tx_er[p]),
      .departure_valid_o(departure_valid[p]), .departure_ready_i(departure_ready[p]),
      .departure_q32_o(departure_q32[p]), .departure_cookie_o(departure_cookie[p]),
      .departure_length_o(departure_length[p]), .departure_late_o(departure_late[p]),
      .sent_o(host_sent[p]), .sent_length_o(host_sent_length[p]), .sent_multicast_o(host_multicast[p]),
      .sent_broadcast_o(host_broadcast[p]), .sent_late_o(host_late[p]),
      .lost_o(hwif_in.port[p].tx_lost.count.next)
    );
  end

  // Packet trains; the wire is shared with the host's frames.
  logic [95:0] next_q64, soon_q64, before_q64;
  logic [15:0] estimate_ntp, estimate_ptp;
  logic [3:0] train_active [Ports];
  logic any_train, train_write;
  assign train_write = train_memory_q.req && train_memory_q.req_is_wr;
  assign hwif_in.train_memory.wr_ack = train_write;
  if (Trains) begin : gen_train_time
    train_time u_train_time (
      .clk_i, .rst_ni, .enable_i(any_train), .now_q72_i(now_q72_o), .added_q72_i(added_q72),
      .bound_ns_i(bound_ns), .locked_i(locked), .utc_known_i(utc.valid),
      .next_q64_o(next_q64), .soon_q64_o(soon_q64), .before_q64_o(before_q64),
      .estimate_ntp_o(estimate_ntp), .estimate_ptp_o(estimate_ptp)
    );
  end
  always_comb begin
    any_train = 1'b0;
    for (int p = 0; p < int'(Ports); p++) if (train_active[p] != '0) any_train = 1'b1;
  end
  for (genvar p = 0; p < int'(Ports); p++) begin : gen_trains
    logic [3:0] arm, stop, done, refused;
    logic [31:0] sent_count [4];
    logic [31:0] late_count [4];
    logic [31:0] worst [4];
    logic [31:0] unreported [4];
    logic [7:0] train_txd;
    logic train_tx_en, train_end, train_multicast, train_broadcast, train_late;
    logic [15:0] train_length;
    for (genvar t = 0; t < 4; t++) begin : gen_train
      assign arm[t] = hwif_out.port[p].train[t].control.arm.value;
      assign stop[t] = hwif_out.port[p].train[t].control.stop.value;
      assign hwif_in.port[p].train[t].status.active.next = train_active[p][t];
      assign hwif_in.port[p].train[t].status.done.next = done[t];
      assign hwif_in.port[p].train[t].status.refused.next = refused[t];
      assign hwif_in.port[p].train[t].sent.count.next = sent_count[t];
      assign hwif_in.port[p].train[t].late.count.next = late_count[t];
      assign hwif_in.port[p].train[t].worst.q32.next = worst[t];
      assign hwif_in.port[p].train[t].unreported.count.next = unreported[t];
    end
    if (Trains) begin : gen_port
      train_port u_trains (
        .clk_i, .rst_ni, .now_q32_i(now_q32), .now_half_i(now_fraction[7]), .next_q64_i(next_q64), .soon_q64_i(soon_q64),
        .before_q64_i(before_q64), .estimate_ntp_i(estimate_ntp), .estimate_ptp_i(estimate_ptp),
        .utc_i(utc),
        .write_i(train_write && train_memory_q.addr[14:13] == 2'(p)),
        .write_address_i(train_memory_q.addr[12:2]), .write_data_i(train_memory_q.wr_data),
        .arm_i(arm), .stop_i(stop), .active_o(train_active[p]), .done_o(done), .refused_o(refused),
        .sent_o(sent_count), .late_o(late_count), .worst_q32_o(worst), .unreported_o(unreported),
        .host_busy_i(host_busy[p]), .host_length_i(host_length[p]), .hold_host_o(hold_host[p]),
        .txd_o(train_txd), .tx_en_o(train_tx_en), .end_o(train_end), .end_length_o(train_length),
        .end_multicast_o(train_multicast), .end_broadcast_o(train_broadcast), .end_late_o(train_late),
        .departure_valid_o(departure_valid[Ports+p]), .departure_ready_i(departure_ready[Ports+p]),
        .departure_q32_o(departure_q32[Ports+p]), .departure_cookie_o(departure_cookie[Ports+p]),
        .departure_length_o(departure_length[Ports+p]), .departure_late_o(departure_late[Ports+p]),
        .departure_delay_q32_o(departure_delay[p])
      );
    end else begin : gen_none
      assign train_active[p] = '0;
      assign {done, refused} = '0;
      assign sent_count = '{default: '0};
      assign late_count = '{default: '0};
      assign worst = '{default: '0};
      assign unreported = '{default: '0};
      assign hold_host[p] = 1'b0;
      assign {train_txd, train_tx_en, train_end, train_multicast, train_broadcast, train_late} = '0;
      assign train_length = '0;
      assign {departure_valid[Ports+p], departure_late[Ports+p]} = '0;
      assign departure_q32[Ports+p] = '0;
      assign departure_cookie[Ports+p] = '0;
      assign departure_length[Ports+p] = '0;
      assign departure_delay[p] = '0;
    end
    // Idle, either of them sends zeros.
    assign mac_txd[p] = host_txd[p] | train_txd;
    assign mac_tx_en[p] = host_tx_en[p] || train_tx_en;
    assign sent[p] = host_sent[p] || train_end;
    assign sent_length[p] = train_end ? train_length : host_sent_length[p];
    assign sent_multicast[p] = train_end ? train_multicast : host_multicast[p];
    assign sent_broadcast[p] = train_end ? train_broadcast : host_broadcast[p];
    assign sent_late[p] = train_end ? train_late : host_late[p];
  end

  tx_fetch #(.Ports(Ports), .DepthLog2(TxDepthLog2)) u_fetch (
    .clk_i, .rst_ni, .enable_i(tx_enable), .base_i(tx_base), .size_log2_i(tx_size),
    .producer_i(tx_producer), .consumer_o(tx_consumer), .error_o(tx_error), .bad_shape_o(tx_bad_shape), .room_i(tx_room),
    .valid_o(tx_valid), .data_o(tx_data),
    .arvalid(m_axi_arvalid), .arready(m_axi_arready), .araddr(m_axi_araddr), .arlen(m_axi_arlen),
    .rvalid(m_axi_rvalid), .rready(m_axi_rready), .rdata(m_axi_rdata), .rresp(m_axi_rresp),
    .rlast(m_axi_rlast)
  );
  departure_store #(.Ports(Ports), .StoreLog2(StoreLog2)) u_departures (
    .clk_i, .rst_ni, .store_i(store), .epoch_i(epoch[7:0]), .link_epoch_i(link_epoch),
    .valid_i(departure_valid), .ready_o(departure_ready), .q32_i(departure_q32),
    .cookie_i(departure_cookie), .length_i(departure_length), .late_i(departure_late),
    .delay_q32_i(departure_delay),
    .committed_o(committed[Ports]), .taken_i(taken[Ports]), .read_i(store_read[Ports]),
    .read_address_i(store_address[Ports]), .read_data_o(store_data[Ports])
  );

  card_clock u_clock (
    .clk_i, .rst_ni,
    .increment_write_i(hwif_out.clock.increment.q72.swmod),
    .increment_q72_i(hwif_out.clock.increment.q72.value),
    .slew_write_i(hwif_out.clock.slew_amount.q64.swmod),
    .slew_amount_q64_i(hwif_out.clock.slew_amount.q64.value),
    .slew_step_q64_i(hwif_out.clock.slew_step.q64.value),
    .load_i(hwif_out.clock.control.load.value),
    .load_q32_i(hwif_out.clock.load_time.q32.value),
    .locked_i(locked),
    .armed_i(any_train),
    .now_q72_o, .now_q32_o(now_q32), .next_q32_o(next_q32), .now_fraction_o(now_fraction), .added_q72_o(added_q72), .slew_left_q64_o(slew_left), .epoch_o(epoch),
    .load_refused_o(load_refused), .increment_refused_o(increment_refused)
  );

  block_packer #(.Ports(Ports), .Sources(Sources), .StoreLog2(StoreLog2)) u_packer (
    .clk_i, .rst_ni,
    .enable_i(hwif_out.ring.control.enable.value),
    .flush_i(hwif_out.ring.control.flush.value),
    .base_i(hwif_out.ring.base.address.value),
    .size_log2_i(hwif_out.ring.shape.size_log2.value),
    .count_log2_i(hwif_out.ring.shape.count_log2.value),
    .timeout_i(hwif_out.ring.timeout.cycles.value),
    .consumer_i(hwif_out.ring.consumer.index.value),
    .producer_o(producer), .error_o(ring_error), .bad_shape_o(ring_bad_shape), .idle_o(ring_idle),
    .store_o(store),
    .now_q32_i(now_q32), .epoch_i(epoch),
    .bound_ns_i(bound_ns),
    .utc_i(utc),
    .servo_i({hwif_out.clock.control.disciplined.value, core_failed ? 3'd5 : hwif_out.clock.control.state.value}),
    .locked_i(locked),
    .slewing_i(slew_left != '0),
    .drops_i(drops), .committed_i(offered), .taken_o(taken), .read_o(packer_read),
    .read_address_o(packer_address), .read_data_i(store_data), .discard_o(discard_source),
    .more_i(more), .mark_i(mark_duplicate), .drop_i(drop_duplicate), .duplicate_o(duplicate_source),
    .awvalid(m_axi_awvalid), .awready(m_axi_awready), .awaddr(m_axi_awaddr), .awlen(m_axi_awlen),
    .wvalid(m_axi_wvalid), .wready(m_axi_wready), .wdata(m_axi_wdata), .wlast(m_axi_wlast),
    .bvalid(m_axi_bvalid), .bready(m_axi_bready), .bresp(m_axi_bresp)
  );

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) irq_o <= 1'b0;
    else irq_o <= hwif_out.ring.interrupt.enable.value && producer != hwif_out.ring.seen.index.value;
  end
  assign hwif_in.ring.interrupt.pending.next = irq_o;

  // The duplicate window, between the stores and the packer.
  assign hwif_in.dedup.status.size_log2.next = 5'(DedupLog2);
  // All the time, with no logic in front of the memories: packer and judge look at what they asked for a cycle before.
  assign store_read = '1;
  if (Dedup) begin : gen_dedup
    logic [31:0] constants [Ports];
    logic judge_active;
    logic [Sources-1:0] judge_read;
    logic [StoreLog2-4:0] judge_address;
    logic [StoreLog2-3:0] judged [Sources];
    for (genvar p = 0; p < int'(Ports); p++) begin : gen_constant
      assign constants[p] = hwif_out.port[p].dedup_constant.q32.value;
    end
    record_judge #(.Ports(Ports), .Sources(Sources), .StoreLog2(StoreLog2), .WindowLog2(DedupLog2)) u_judge (
      .clk_i, .rst_ni, .idle_i(ring_idle), .enable_i(profile != '0),
      .drop_duplicates_i(hwif_out.dedup.control.drop.value),
      .by_count_i(hwif_out.dedup.control.by_count.value),
      .count_i(hwif_out.dedup.count.frames.value[DedupLog2:0]),
      .by_time_i(hwif_out.dedup.control.by_time.value), .window_ns_i(hwif_out.dedup.window.ns.value),
      .constant_q32_i(constants), .active_o(judge_active),
      .judged_o(hwif_in.dedup.judged.frames.next), .duplicates_o(hwif_in.dedup.duplicates.frames.next),
      .limited_o(hwif_in.dedup.limited.frames.next), .cycles_o(hwif_in.dedup.longest.cycles.next),
      .committed_i(committed), .read_o(judge_read), .read_address_o(judge_address), .read_data_i(store_data),
      .offered_o(judged), .more_o(more), .duplicate_o(mark_duplicate), .drop_o(drop_duplicate),
      .taken_i(taken), .read_i(packer_read)
    );
    assign hwif_in.dedup.status.active.next = judge_active;
    for (genvar s = 0; s < int'(Sources); s++) begin : gen_source
      assign offered[s] = judge_active ? judged[s] : committed[s];
      assign store_address[s] = judge_read[s] && !packer_read[s] ? judge_address : packer_address;
    end
  end else begin : gen_no_dedup
    assign {more, mark_duplicate, drop_duplicate} = '0;
    for (genvar s = 0; s < int'(Sources); s++) begin : gen_source
      assign offered[s] = committed[s];
      assign store_address[s] = packer_address;
    end
    assign hwif_in.dedup.status.active.next = 1'b0;
    assign hwif_in.dedup.judged.frames.next = '0;
    assign hwif_in.dedup.duplicates.frames.next = '0;
    assign hwif_in.dedup.limited.frames.next = '0;
    assign hwif_in.dedup.longest.cycles.next = '0;
  end

  // Counters: one latch for all ports, a cycle after all were ready. What comes in that cycle finds nothing before it.
  logic latch_q, flip_q;
  logic [Ports-1:0] counters_ready, counters_copying;
  logic counter_read, counter_read_q, counter_half_q;
  logic [1:0] counter_port_q;
  logic [63:0] counter_data [Ports];
  assign counters_busy = latch_q || (|counters_copying);
  assign counter_read = counter_memory_q.req && !counter_memory_q.req_is_wr;
  for (genvar p = 0; p < int'(Ports); p++) begin : gen_counters
    port_counters u_counters (
      .clk_i, .rst_ni, .event_i(ev[p]), .event_end_i(ev_end[p]), .event_giant_i(ev_giant[p]),
      .event_stored_i(ev_stored[p]), .event_dropped_i(ev_dropped[p]), .discard_i(discard[p]),
      .duplicate_i(duplicate_source[p]),
      .sent_i(sent[p]), .sent_length_i(sent_length[p]), .sent_multicast_i(sent_multicast[p]),
      .sent_broadcast_i(sent_broadcast[p]), .sent_late_i(sent_late[p]),
      .flip_i(flip_q), .ready_o(counters_ready[p]), .busy_o(counters_copying[p]),
      .overflow_o(counters_overflow[p]),
      .read_i(counter_read), .read_address_i(counter_memory_q.addr[7:3]),
      .read_data_o(counter_data[p])
    );
  end
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      latch_q <= 1'b0;
      flip_q <= 1'b0;
      latched_at_q <= '0;
      counter_read_q <= 1'b0;
      counter_half_q <= 1'b0;
      counter_port_q <= '0;
    end else begin
      if (hwif_out.counters.control.latch.value) latch_q <= 1'b1;
      else if (flip_q) latch_q <= 1'b0;
      flip_q <= latch_q && (&counters_ready) && !flip_q;
      if (flip_q) latched_at_q <= now_q32;
      counter_read_q <= counter_read;
      counter_half_q <= counter_memory_q.addr[2];
      counter_port_q <= counter_memory_q.addr[9:8];
    end
  end
  assign hwif_in.counter_memory.rd_ack = counter_read_q;
  logic [63:0] counter_word;
  always_comb begin
    counter_word = '0;
    for (int p = 0; p < int'(Ports); p++) if (counter_port_q == 2'(p)) counter_word = counter_data[p];
  end
  assign hwif_in.counter_memory.rd_data = counter_half_q ? counter_word[63:32] : counter_word[31:0];
  assign hwif_in.counter_memory.wr_ack =
      counter_memory_q.req && counter_memory_q.req_is_wr;

  assign hwif_in.id.build.value.next = BuildId;
  assign hwif_in.id.features.flow_hash.next = FlowHash;
  assign hwif_in.id.features.digest.next = Digest;
  assign hwif_in.id.features.dedup.next = Dedup;
  assign hwif_in.id.features.phy.next = 1'b1;
  assign hwif_in.id.features.loopback.next = 1'b1;
  assign hwif_in.id.features.trains.next = Trains;
  assign hwif_in.id.features.transmit.next = 1'b1;
  assign hwif_in.id.features.discipline.next = 1'b1;
  assign hwif_in.id.features.simulated.next = Simulated;
  assign hwif_in.id.size.ports.next = 8'(Ports);
  assign hwif_in.id.size.counters.next = 8'(CountersUsed);
  assign hwif_in.id.size.store_log2.next = 8'(StoreLog2);
  assign hwif_in.id.core_clock.hz.next = 32'd125_000_000;
  assign hwif_in.clock.now.q32.next = now_q32;
  assign hwif_in.clock.slew_left.q64.next = slew_left;
  assign hwif_in.clock.status.load_refused.hwset = load_refused;
  assign hwif_in.clock.status.increment_refused.hwset = increment_refused;
  assign hwif_in.clock.status.slewing.next = slew_left != '0;
  assign hwif_in.clock.epoch.value.next = epoch;
  assign hwif_in.clock.control.locked.hwclr = core_failed;
  assign hwif_in.ring.status.error.next = ring_error;
  assign hwif_in.ring.status.idle.next = ring_idle;
  assign hwif_in.ring.status.receive_fault.next = 4'(faulty);
  assign hwif_in.ring.status.bad_shape.next = ring_bad_shape;
  assign hwif_in.ring.producer.index.next = producer;
  assign hwif_in.counters.status.busy.next = counters_busy;
  assign hwif_in.counters.at.q32.next = latched_at_q;

  // Between the host and the registers, for the soft core's sake.
  logic awvalid, awready, wvalid, wready, bvalid, bready, arvalid, arready, rvalid, rready;
  logic [16:0] awaddr, araddr;
  logic [31:0] wdata, rdata;
  logic [3:0] wstrb;
  logic [1:0] bresp, rresp;
  discipline #(.Program(Program)) u_discipline (
    .clk_i, .reg_clk_i(clk_reg_i), .cpu_clk_i(aux_clk_i), .aux_clk_i, .rst_ni, .reg_active_o, .cpu_active_o(),
    .aux_active_o, .now_q72_i(now_q72_o), .added_q72_i(added_q72), .failed_o(core_failed),
    .pps_word_i, .pps_word_o, .uart_rx_i, .uart_tx_o,
    .pps_o(hwif_in.pps), .pps_i(hwif_out.pps), .uart_o(hwif_in.uart), .uart_i(hwif_out.uart),
    .cpu_o(hwif_in.cpu), .cpu_i(hwif_out.cpu),
    .memory_o(hwif_in.cpu_memory), .memory_i(cpu_memory_q),
    .s_awvalid(s_axil_awvalid), .s_awready(s_axil_awready), .s_awaddr(s_axil_awaddr),
    .s_wvalid(s_axil_wvalid), .s_wready(s_axil_wready), .s_wdata(s_axil_wdata), .s_wstrb(s_axil_wstrb),
    .s_bvalid(s_axil_bvalid), .s_bready(s_axil_bready), .s_bresp(s_axil_bresp),
    .s_arvalid(s_axil_arvalid), .s_arready(s_axil_arready), .s_araddr(s_axil_araddr),
    .s_rvalid(s_axil_rvalid), .s_rready(s_axil_rready), .s_rdata(s_axil_rdata), .s_rresp(s_axil_rresp),
    .m_awvalid(awvalid), .m_awready(awready), .m_awaddr(awaddr), .m_wvalid(wvalid), .m_wready(wready),
    .m_wdata(wdata), .m_wstrb(wstrb), .m_bvalid(bvalid), .m_bready(bready), .m_bresp(bresp),
    .m_arvalid(arvalid), .m_arready(arready), .m_araddr(araddr), .m_rvalid(rvalid), .m_rready(rready),
    .m_rdata(rdata), .m_rresp(rresp)
  );

  always_ff @(posedge clk_reg_i) hwif_in_q <= hwif_in;
  card_regs u_regs (
    .clk(clk_reg_i), .arst_n(rst_ni),
    .s_axil_awready(awready), .s_axil_awvalid(awvalid), .s_axil_awaddr(awaddr), .s_axil_awprot(3'b000),
    .s_axil_wready(wready), .s_axil_wvalid(wvalid), .s_axil_wdata(wdata), .s_axil_wstrb(wstrb),
    .s_axil_bready(bready), .s_axil_bvalid(bvalid), .s_axil_bresp(bresp),
    .s_axil_arready(arready), .s_axil_arvalid(arvalid), .s_axil_araddr(araddr), .s_axil_arprot(3'b000),
    .s_axil_rready(rready), .s_axil_rvalid(rvalid), .s_axil_rdata(rdata), .s_axil_rresp(rresp),
    .hwif_in(hwif_in_q), .hwif_out
  );
endmodule
