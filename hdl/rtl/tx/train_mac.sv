// SPDX-License-Identifier: Apache-2.0
// Sends the trains' packets to GMII: waits for the launch time, then preamble, SFD, template with what changes
// from packet to packet put in, zeros up to the size, FCS, inter-frame gap.
//
// Clock: the core clock, which is the transmit clock; one more register (gmii_loopback) before the pins.
// Launch: the SFD appears on the pins at the first edge at which card time is not before the launch time. A
// launch that the wire cannot take goes as soon as it can and is late: late_o and delay_o say so, at sent_o.
// Stamp: card time of the edge at which the SFD appears on the pins, rounded to 32.32, the same that a departure record
// says. It is written into the packet that it belongs to, and the UDP checksum with it.
// The wire is shared with the host's frames (gmii_tx): those start only when they will be gone before the next
// launch (hold_host_o); a packet waits for a host frame that is under way.
//
// What changes (docs/stamp.md; offsets from the payload): lengths of IP and UDP, IPv4 header checksum, source
// port, UDP checksum (0 becomes 0xFFFF), sequence, stamp, error estimate, the mark of short packets, and the
// head of the Extra Padding TLV from 48 bytes on.
module train_mac
  import twinstamp_pkg::*;
(
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic [63:0] now_q32_i,
  input  logic        now_half_i,          // card time is half a unit or more past now_q32_i
  input  logic [95:0] next_q64_i,          // soon_q64_i of the next cycle
  input  logic [95:0] soon_q64_i,
  input  logic [95:0] before_q64_i,        // soon_q64_i a cycle ago
  input  logic [15:0] estimate_ntp_i,
  input  logic [15:0] estimate_ptp_i,
  input  utc_t        utc_i,
  input  logic        write_i,             // templates: 32 words a train
  input  logic [6:0]  write_address_i,
  input  logic [31:0] write_data_i,

  input  logic        quiet_i,
  input  logic        head_valid_i,
  input  logic        head_fresh_i,        // the head is another one than a cycle ago
  output logic        take_o,
  input  logic [63:0] head_q32_i,
  input  logic [31:0] head_low_i,
  input  logic [1:0]  head_train_i,
  input  logic [13:0] head_size_i,
  input  logic [31:0] head_sequence_i,
  input  logic [15:0] head_port_i,
  input  logic [7:0]  head_law_i,
  input  logic [31:0] head_sums_i,

  input  logic        host_busy_i,         // a host frame or the gap after it is on the wire
  input  logic [15:0] host_length_i,       // of the host frame that waits, without FCS
  output logic        hold_host_o,

  output logic [7:0]  txd_o,
  output logic        tx_en_o,

  output logic        sent_o,              // pulse, at the stamp
  output logic [1:0]  sent_train_o,
  output logic [31:0] sent_sequence_o,
  output logic [15:0] sent_length_o,       // with FCS
  output logic [63:0] sent_q32_o,          // departure
  output logic        sent_report_o,       // the train wants each departure reported
  output logic        late_o,
  output logic [63:0] delay_q32_o,         // departure less launch time

  output logic        end_o,               // pulse: the frame has left; what the others say is still its
  output logic        end_multicast_o,     // of its destination; broadcast too
  output logic        end_broadcast_o,
  output logic        idle_o               // no frame is under way
);
  localparam logic [31:0] Ns = 32'd1_000_000_000;
  localparam logic [31:0] NtpUnix = 32'd2_208_988_800;  // 1900 to 1970, s
  localparam logic [19:0] CycleQ32 = 20'd36;            // 8 ns at the slowest rate, 2^-32 s

  typedef enum logic [2:0] {StIdle, StPreamble, StSfd, StData, StFcs, StGap} state_e;
  state_e state_q;
  logic [31:0] memory [128];
  logic [31:0] data_q;
  logic [6:0] address;
  always_ff @(posedge clk_i) begin
    if (write_i) memory[write_address_i] <= write_data_i;
    if (state_q != StIdle) data_q <= memory[address];
  end

  logic [3:0] count_q;
  logic [13:0] place_q, size_q;            // byte of the frame; size without FCS
  logic [1:0] train_q;
  logic [31:0] sequence_q, sums_q, crc_q;
  logic [15:0] port_q;
  logic [4:0] ip_q;
  logic v6_q, ptp_q, report_q, late_q, multicast_q, broadcast_q;
  logic [63:0] delay_q;

  logic [95:0] head;
  assign head = {head_q32_i, head_low_i};
  // Compared a cycle ahead; a head that has just come is looked at for a cycle first.
  logic due_q;
  assign take_o = state_q == StIdle && due_q && head_valid_i && !head_fresh_i && !host_busy_i;
  // The host's frame with preamble, FCS, gap and what it takes to see it go, against the time left, in two steps:
  // so two cycles more. What changes meanwhile holds the host, too.
  logic signed [63:0] left_q;
  logic [15:0] host_bytes;
  logic [25:0] host_q32_q;
  logic close_q, quiet1_q, quiet2_q;
  assign host_bytes = host_length_i < 16'd60 ? 16'd60 : host_length_i;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      {due_q, close_q, quiet1_q, quiet2_q} <= '0;
      left_q <= '0;
      host_q32_q <= '0;
    end else if (head_valid_i || !quiet_i || !quiet2_q || state_q != StIdle || close_q) begin
      due_q <= head_valid_i && next_q64_i >= head;
      left_q <= $signed(head_q32_i - soon_q64_i[95:32]);
      host_q32_q <= 26'(20'(host_bytes) + 20'd32) * 26'(CycleQ32);
      close_q <= head_valid_i && left_q < $signed(64'(host_q32_q));
      quiet1_q <= quiet_i && !head_fresh_i;
      quiet2_q <= quiet1_q;
    end
  end
  assign hold_host_o = state_q != StIdle || !quiet_i || !quiet1_q || !quiet2_q || close_q;

  // Lengths and where things stand.
  logic [13:0] ip_length, udp_length, padding;
  logic [5:0] udp_at;
  logic [6:0] payload_at;
  logic short_form, has_tlv, short_form_q, has_tlv_q;
  logic [15:0] ip_length_q, udp_length_q, padding_q, tlv_sum_q, ip_checksum_q;
  assign ip_length = size_q - 14'(ip_q) - (v6_q ? 14'd40 : 14'd0);     // IPv6 says it without its header
  assign udp_length = size_q - 14'(udp_at);
  assign udp_at = 6'(ip_q) + (v6_q ? 6'd40 : 6'd20);
  assign payload_at = 7'(udp_at) + 7'd8;
  assign short_form = udp_length < 14'd52;
  assign has_tlv = udp_length >= 14'd56;
  assign padding = udp_length - 14'd56;

  // Stamp: two cycles after the SFD's, card time is that of its edge; its nanoseconds are there three later.
  logic [5:0] sfd_q;
  logic [63:0] stamp_q, card_q;
  logic leapt_q, unused_valid;  // train_time looks at it
  assign unused_valid = utc_i.valid;
  logic [31:0] offset_q;
  logic [31:0] ns;
  logic [15:0] estimate_q;
  logic [31:0] unused_below_ns;
  mul32 u_ns (
    .clk_i, .enable_i(sfd_q[4:2] != '0), .a_i(card_q[31:0]), .b_i(Ns), .product_o({ns, unused_below_ns})
  );

  // Checksums: a word a cycle, then the carries twice.
  logic [3:0] term_q;
  logic [15:0] term;
  logic [19:0] sum_q;
  logic [19:0] ip_sum_q;
  logic [15:0] udp_checksum_q;
  always_comb begin
    unique case (term_q)
      4'd1: term = sums_q[31:16];
      4'd2: term = port_q;
      4'd3, 4'd4: term = udp_length_q;
      4'd5: term = sequence_q[31:16];
      4'd6: term = sequence_q[15:0];
      4'd7: term = stamp_q[63:48];
      4'd8: term = stamp_q[47:32];
      4'd9: term = stamp_q[31:16];
      4'd10: term = stamp_q[15:0];
      4'd11: term = estimate_q;
      4'd12: term = short_form_q ? 16'h8000 : 16'h0000;
      4'd13: term = tlv_sum_q;
      default: term = 16'h0000;
    endcase
  end

  // The byte that leaves, in three steps: where it stands, two cycles ahead; its value; FCS and wire.
  typedef enum logic [3:0] {
    FromTemplate, FromIpLength, FromIpSum, FromPort, FromUdpLength, FromUdpSum, FromSequence1, FromSequence0,
    FromStamp3, FromStamp2, FromStamp1, FromStamp0, FromEstimate, FromMark, FromTlv, FromPadding
  } from_e;
  logic runs;                              // places move on
  logic [13:0] ahead_q;                    // place two cycles ahead; the same in IP, UDP and payload
  logic [13:0] in_ip_q, in_udp_q, in_payload_q;
  from_e from, from_q;
  logic [1:0] lane_q;
  logic tail_q;                            // behind the template
  logic [7:0] byte_q;
  assign runs = (state_q == StPreamble && count_q == 4'd6) || state_q == StSfd || state_q == StData;
  always_comb begin
    from = FromTemplate;
    if (in_ip_q[13:4] == '0) begin
      if (!v6_q && in_ip_q[3:1] == 3'd1) from = FromIpLength;
      if (!v6_q && in_ip_q[3:1] == 3'd5) from = FromIpSum;
      if (v6_q && in_ip_q[3:1] == 3'd2) from = FromIpLength;
    end
    if (in_udp_q[13:3] == '0) begin
      if (in_udp_q[2:1] == 2'd0) from = FromPort;
      if (in_udp_q[2:1] == 2'd2) from = FromUdpLength;
      if (in_udp_q[2:1] == 2'd3) from = FromUdpSum;
    end
    if (in_payload_q[13:4] == '0) begin
      unique case (in_payload_q[3:1])
        3'd0: from = FromSequence1;
        3'd1: from = FromSequence0;
        3'd2: from = FromStamp3;
        3'd3: from = FromStamp2;
        3'd4: from = FromStamp1;
        3'd5: from = FromStamp0;
        3'd6: from = FromEstimate;
        default: from = FromMark;
      endcase
    end
    if (has_tlv_q && in_payload_q[13:2] == 12'd11) from = in_payload_q[1] ? FromPadding : FromTlv;
  end
  logic [7:0] template_byte;
  logic [15:0] word;
  assign template_byte = tail_q ? 8'h00 : data_q[8*lane_q +: 8];
  always_comb begin
    unique case (from_q)
      FromIpLength: word = ip_length_q;
      FromIpSum: word = ip_checksum_q;
      FromPort: word = port_q;
      FromUdpLength: word = udp_length_q;
      FromUdpSum: word = udp_checksum_q;
      FromSequence1: word = sequence_q[31:16];
      FromSequence0: word = sequence_q[15:0];
      FromStamp3: word = stamp_q[63:48];
      FromStamp2: word = stamp_q[47:32];
      FromStamp1: word = stamp_q[31:16];
      FromStamp0: word = stamp_q[15:0];
      FromEstimate: word = estimate_q;
      FromTlv: word = 16'h0001;
      FromPadding: word = padding_q;
      FromMark: word = {short_form_q, template_byte[6:0], template_byte};
      default: word = {template_byte, template_byte};
    endcase
  end
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      {ahead_q, in_ip_q, in_udp_q, in_payload_q} <= '0;
      from_q <= FromTemplate;
      lane_q <= '0;
      tail_q <= 1'b0;
      byte_q <= '0;
      {ip_length_q, udp_length_q, padding_q, tlv_sum_q, ip_checksum_q, udp_checksum_q} <= '0;
      {short_form_q, has_tlv_q} <= '0;
    end else if (state_q != StIdle) begin
      ip_length_q <= 16'(ip_length);
      udp_length_q <= 16'(udp_length);
      padding_q <= 16'(padding);
      tlv_sum_q <= has_tlv ? 16'(padding) + 16'd1 : 16'h0000;
      short_form_q <= short_form;
      has_tlv_q <= has_tlv;
      ip_checksum_q <= ~ip_sum_q[15:0];
      udp_checksum_q <= sum_q[15:0] == 16'hFFFF ? 16'hFFFF : ~sum_q[15:0];
      if (runs) begin
        ahead_q <= ahead_q + 14'd1;
        in_ip_q <= in_ip_q + 14'd1;
        in_udp_q <= in_udp_q + 14'd1;
        in_payload_q <= in_payload_q + 14'd1;
      end else begin
        ahead_q <= '0;
        in_ip_q <= -14'(ip_q);
        in_udp_q <= -14'(udp_at);
        in_payload_q <= -14'(payload_at);
      end
      from_q <= from;
      lane_q <= ahead_q[1:0];
      tail_q <= ahead_q[13:7] != '0;
      byte_q <= lane_q[0] ? word[7:0] : word[15:8];
    end
  end
  logic [31:0] crc_next;
  crc32_byte u_crc (.enable_i(state_q == StData), .crc_i(crc_q), .data_i(byte_q), .crc_o(crc_next));
  assign address = {train_q, ahead_q[6:2]};

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= StIdle;
      count_q <= '0;
      place_q <= '0;
      size_q <= '0;
      train_q <= '0;
      sequence_q <= '0;
      sums_q <= '0;
      crc_q <= '1;
      port_q <= '0;
      ip_q <= '0;
      v6_q <= 1'b0;
      ptp_q <= 1'b0;
      report_q <= 1'b0;
      late_q <= 1'b0;
      multicast_q <= 1'b0;
      broadcast_q <= 1'b0;
      delay_q <= '0;
      sfd_q <= '0;
      stamp_q <= '0;
      card_q <= '0;
      leapt_q <= 1'b0;
      offset_q <= '0;
      estimate_q <= '0;
      term_q <= '0;
      sum_q <= '0;
      ip_sum_q <= '0;
      txd_o <= '0;
      tx_en_o <= 1'b0;
      sent_o <= 1'b0;
      end_o <= 1'b0;
    end else begin
      sent_o <= 1'b0;
      end_o <= 1'b0;
      if (state_q != StIdle) begin
        txd_o <= '0;
        tx_en_o <= 1'b0;
        sfd_q <= {sfd_q[4:0], state_q == StSfd};
        if (sfd_q[1]) begin
          card_q <= now_q32_i + 64'(now_half_i);
          estimate_q <= ptp_q ? estimate_ptp_i : estimate_ntp_i;
          sent_o <= 1'b1;
        end
        // The offset that counts at the stamp's own second.
        leapt_q <= card_q[63:32] >= utc_i.leap_at;
        offset_q <= {{16{utc_i.s[15]}}, utc_i.s} + (leapt_q ? {{30{utc_i.leap[1]}}, utc_i.leap} : '0);
        if (sfd_q[5]) begin
          stamp_q <= ptp_q ? {card_q[63:32], ns} : {card_q[63:32] + NtpUnix - offset_q, card_q[31:0]};
          term_q <= 4'd1;
          sum_q <= '0;
        end
        // Thirteen words, then two carries: through by the 23rd byte of the frame, needed from the 41st on.
        if (term_q != '0) begin
          term_q <= term_q + 4'd1;
          if (term_q < 4'd14) sum_q <= sum_q + 20'(term);
          else sum_q <= 20'(sum_q[15:0]) + 20'(sum_q[19:16]);
        end
        if (state_q == StPreamble) begin
          if (count_q == 4'd0) ip_sum_q <= 20'(sums_q[15:0]) + 20'(ip_length);
          else ip_sum_q <= 20'(ip_sum_q[15:0]) + 20'(ip_sum_q[19:16]);
        end
      end

      unique case (state_q)
        StIdle: begin
          count_q <= '0;
          if (take_o) begin
            train_q <= head_train_i;
            size_q <= head_size_i - 14'd4;
            sequence_q <= head_sequence_i;
            port_q <= head_port_i;
            v6_q <= head_law_i[0];
            ptp_q <= head_law_i[1];
            report_q <= head_law_i[2];
            ip_q <= head_law_i[7:3];
            sums_q <= head_sums_i;
            late_q <= before_q64_i >= head;    // a cycle ago it was due already
            delay_q <= 64'((soon_q64_i - head) >> 32);
            state_q <= StPreamble;
          end
        end
        StPreamble: begin
          txd_o <= 8'h55;
          tx_en_o <= 1'b1;
          count_q <= count_q + 4'd1;
          if (count_q == 4'd6) state_q <= StSfd;
        end
        StSfd: begin
          txd_o <= 8'hD5;
          tx_en_o <= 1'b1;
          place_q <= '0;
          crc_q <= '1;
          broadcast_q <= 1'b1;
          state_q <= StData;
        end
        StData: begin
          txd_o <= byte_q;
          tx_en_o <= 1'b1;
          crc_q <= crc_next;
          if (place_q == '0) multicast_q <= byte_q[0];
          if (place_q < 14'd6 && byte_q != 8'hFF) broadcast_q <= 1'b0;
          place_q <= place_q + 14'd1;
          count_q <= '0;
          if (place_q + 14'd1 == size_q) state_q <= StFcs;
        end
        StFcs: begin
          txd_o <= ~crc_q[7:0];
          tx_en_o <= 1'b1;
          crc_q <= {8'hFF, crc_q[31:8]};
          count_q <= count_q + 4'd1;
          if (count_q == 4'd3) begin
            count_q <= '0;
            end_o <= 1'b1;
            state_q <= StGap;
          end
        end
        default: begin  // StGap: twelve byte times, the last one in StIdle
          count_q <= count_q + 4'd1;
          if (count_q == 4'd10) state_q <= StIdle;
        end
      endcase
    end
  end
  assign idle_o = state_q == StIdle && !sent_o && !end_o;
  assign sent_train_o = train_q;
  assign sent_sequence_o = sequence_q;
  assign sent_length_o = 16'(size_q) + 16'd4;
  assign sent_q32_o = card_q;
  assign sent_report_o = report_q;
  assign end_multicast_o = multicast_q;
  assign end_broadcast_o = broadcast_q;
  assign late_o = late_q;
  assign delay_q32_o = delay_q;
endmodule
