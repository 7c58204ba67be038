// SPDX-License-Identifier: Apache-2.0
// A frame's message under the duplicate profile `vlan` or `routing` (twinstamp/key.h, layer `outer`), in words,
// from its stream of bytes.
//
//   vlan     MAC addresses, final ethertype, all from there to the end of layer 3
//   routing  the IPv4 or IPv6 packet with TTL or hop limit, IPv4 checksum, DSCP and ECN zeroed; ARP and LLC as vlan
// Up to three tags, PPPoE. Where a header is cut short, unknown or such that no host takes it (twinstamp/sound.h:
// a wrong IPv4 header checksum, TTL or hop limit 0, more tags, PPPoE of another version, type, code or length) the
// frame is not understood: its words are to be forgotten, its key is that of its captured bytes in the domain
// {profile, 0}.
//
// Clock: clk_i, the port's receive clock, a byte a clock at most; last_i stands alone, behind the last byte, at
// least 12 clocks before the next frame's first (gmii_rx keeps SFDs that far apart). A frame has the profile of its
// first byte.
// Result: words of eight bytes (first lowest, the last one padded with zeros), at most one a clock, then an end
// entry: [15:0] bytes of the message, [39:32] domain, [63] forget it: not understood, or [62] shorter than 60 bytes,
// a runt, for which nobody waits. Latency: the end entry comes five clocks behind last_i. Back-pressure: none.
module frame_normaliser (
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic        routing_i,    // profile `routing`, else `vlan`

  input  logic        valid_i,
  input  logic [7:0]  data_i,
  input  logic        first_i,
  input  logic        last_i,

  output logic        valid_o,
  output logic        end_o,
  output logic [63:0] word_o
);
  localparam logic [7:0] FormEthernet = 8'd2, FormIpv4 = 8'd5, FormIpv6 = 8'd6;  // Form in key.h
  localparam logic [13:0] Shortest = 14'd60;

  // A stage of its own, so that the block's inputs have a whole clock. What the last two bytes say is found out on
  // the way into it: data_q is the byte before data_i, whenever that came.
  logic valid_q, first_q, last_q, routing_q;
  logic [7:0] data_q;
  typedef struct packed {
    logic tag, ipv4, ipv6, arp, pppoe, ppp_ipv4, ppp_ipv6;
    logic length;               // 802.3: it is no ethertype
    logic no_llc;               // a length that has no room for LLC
    logic zero;
    logic in_header;            // less than header_q
  } pair_t;
  pair_t pair_is, pair_is_q;
  logic [15:0] coming;
  logic [5:0]  header_q;        // bytes of the IPv4 header
  assign coming = {data_q, data_i};
  always_comb begin
    pair_is.tag = coming inside {16'h8100, 16'h88A8, 16'h9100};
    pair_is.ipv4 = coming == 16'h0800;
    pair_is.ipv6 = coming == 16'h86DD;
    pair_is.arp = coming == 16'h0806;
    pair_is.pppoe = coming == 16'h8864;
    pair_is.ppp_ipv4 = coming == 16'h0021;
    pair_is.ppp_ipv6 = coming == 16'h0057;
    pair_is.length = coming < 16'h0600;
    pair_is.no_llc = coming < 16'd3;
    pair_is.zero = coming == '0;
    pair_is.in_header = coming < {10'b0, header_q};
  end
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      valid_q <= 1'b0;
      first_q <= 1'b0;
      last_q <= 1'b0;
      data_q <= '0;
      pair_is_q <= '0;
      routing_q <= 1'b0;
    end else begin
      valid_q <= valid_i;
      first_q <= valid_i && first_i;
      last_q <= last_i;
      if (valid_i && first_i) routing_q <= routing_i;
      if (valid_i) data_q <= data_i;
      if (valid_i) pair_is_q <= pair_is;
    end
  end

  // Headers (twinstamp/parse.h), a byte at a time.
  typedef enum logic [3:0] {
    StMac, StType, StTag, StPppoe, StLlc, StArp, StIpv4, StIpv6, StBody, StUnknown
  } state_e;
  state_e      state_q, state;
  logic [11:0] count_q, count;  // bytes of this header before this one
  logic [13:0] bytes_q;         // of the frame
  logic [7:0]  previous_q, before_q;
  logic [95:0] macs_q;          // first byte lowest
  logic        understood_q;
  logic [7:0]  form_q, form;
  logic [16:0] left_q;          // bytes of layer 3 behind this one; bit 16: up to the frame's end
  logic [9:0]  arp_q;           // bytes of ARP behind this one
  logic [1:0]  tags_q;
  logic        refused_q;       // by its TTL or hop limit, or its packet goes on behind PPPoE's payload
  logic        in_pppoe_q;
  logic [15:0] pppoe_left_q;    // bytes of PPPoE's payload behind this one
  logic [15:0] sum_q;           // of the IPv4 header's words (RFC 1071), and the carry that is still to be added
  logic        carry_q;
  logic [15:0] pair;
  assign state = first_q ? StMac : state_q;
  assign count = first_q ? '0 : count_q;
  assign pair = {previous_q, data_q};

  logic length_known;           // left_q is this packet's
  assign length_known = state == StBody || (state == StIpv4 && count > 12'd3) || (state == StIpv6 && count > 12'd6);

  // Behind the frame's last byte: whether hosts take it. PPPoE has room for its packet, and no more than the frame
  // has, unless the capture cut the packet.
  logic sum_right, pppoe_fits, sound;
  always_comb begin
    sum_right = carry_q ? sum_q == 16'hFFFE : sum_q == 16'hFFFF;
    pppoe_fits = left_q[16] || left_q[15:0] == '0 ? pppoe_left_q == '0 : left_q[15:0] <= pppoe_left_q;
    sound = understood_q && !refused_q && sum_right && (pppoe_fits || !in_pppoe_q);
  end
  // Of what is not understood the digest that counts is the other one.
  assign form = sound ? form_q : '0;

  // What becomes of this byte, in the next stage: it is a byte of the message, or the MAC addresses and the
  // ethertype that it ends are its first 14.
  logic emit, load, emit_q, load_q, end_q;
  logic [7:0] byte_d, byte_q;
  logic [47:0] end_entry_q;
  logic is_tag, is_ip, ends_type;
  assign is_tag = pair_is_q.tag;
  assign is_ip = pair_is_q.ipv4 || pair_is_q.ipv6 || pair_is_q.pppoe;
  assign ends_type = (state == StType && count == 12'd1) || (state == StTag && count == 12'd3);

  always_comb begin
    load = ends_type && !is_tag && (!routing_q || !is_ip);
    emit = 1'b0;
    byte_d = data_q;
    unique case (state)
      StPppoe: emit = !routing_q;
      StLlc, StBody: emit = left_q != '0;
      StArp: emit = 1'b1;
      StIpv4: begin
        emit = 1'b1;
        if (routing_q && count inside {12'd1, 12'd8, 12'd10, 12'd11}) byte_d = '0;
      end
      StIpv6: begin
        emit = 1'b1;
        if (routing_q && count == 12'd0) byte_d = data_q & 8'hF0;
        if (routing_q && count == 12'd1) byte_d = data_q & 8'h0F;
        if (routing_q && count == 12'd7) byte_d = '0;
      end
      default: ;
    endcase
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= StUnknown;
      count_q <= '0;
      bytes_q <= '0;
      understood_q <= 1'b0;
      form_q <= '0;
      header_q <= '0;
      left_q <= '0;
      arp_q <= '0;
      tags_q <= '0;
      refused_q <= 1'b0;
      in_pppoe_q <= 1'b0;
      pppoe_left_q <= '0;
      sum_q <= '0;
      carry_q <= 1'b0;
      emit_q <= 1'b0;
      load_q <= 1'b0;
      end_q <= 1'b0;
    end else begin
      emit_q <= valid_q && emit;
      load_q <= valid_q && load;
      end_q <= last_q;
      if (valid_q) bytes_q <= first_q ? 14'd1 : bytes_q + 14'd1;
      if (valid_q && first_q) begin
        understood_q <= 1'b0;
        refused_q <= 1'b0;
        in_pppoe_q <= 1'b0;
        tags_q <= '0;
        {carry_q, sum_q} <= 17'h0FFFF;  // right, until there is a header
      end
      if (valid_q) begin
        state_q <= state;
        count_q <= count + 12'd1;
        if (first_q) form_q <= FormEthernet;
        // Bytes of layer 3 that are not its header's, or of which nothing has to be known.
        if (!left_q[16] && left_q[15:0] != '0) left_q <= left_q - 17'd1;
        if (pppoe_left_q != '0) pppoe_left_q <= pppoe_left_q - 16'd1;
        if (in_pppoe_q && pppoe_left_q == '0 && !left_q[16] && left_q[15:0] != '0 && length_known) refused_q <= 1'b1;
        unique case (state)
          StMac: if (count == 12'd11) begin
            state_q <= StType;
            count_q <= '0;
          end

          StType, StTag: if (ends_type) begin
            count_q <= '0;
            if (is_tag) begin
              tags_q <= tags_q + 2'd1;
              state_q <= tags_q == '1 ? StUnknown : StTag;
            end
            else if (pair_is_q.length) begin
              state_q <= pair_is_q.no_llc ? StUnknown : StLlc;
              left_q <= {1'b0, pair};
            end
            else if (pair_is_q.ipv4) state_q <= StIpv4;
            else if (pair_is_q.ipv6) state_q <= StIpv6;
            else if (pair_is_q.arp) state_q <= StArp;
            else if (pair_is_q.pppoe) state_q <= StPppoe;
            else state_q <= StUnknown;
          end

          StPppoe: unique case (count)
            12'd1: if (pair != 16'h1100) state_q <= StUnknown;
            12'd5: begin
              in_pppoe_q <= 1'b1;
              pppoe_left_q <= pair;
            end
            12'd7: begin
              count_q <= '0;
              if (pair_is_q.ppp_ipv4) state_q <= StIpv4;
              else if (pair_is_q.ppp_ipv6) state_q <= StIpv6;
              else state_q <= StUnknown;
            end
            default: ;
          endcase

          StLlc: if (count == 12'd2) begin
            understood_q <= 1'b1;
            state_q <= StBody;
          end

          StArp: begin
            arp_q <= count == 12'd5 ? {9'(previous_q) + 9'(data_q) + 9'd1, 1'b0} : arp_q - 10'd1;
            if (count > 12'd5 && arp_q == 10'd1) begin
              understood_q <= 1'b1;
              left_q <= '0;
              state_q <= StBody;
            end
          end

          StIpv4: begin
            if (routing_q) form_q <= FormIpv4;
            if (count[0]) {carry_q, sum_q} <= 17'(sum_q) + 17'(pair) + 17'(carry_q);
            unique case (count)
              12'd0: begin
                {carry_q, sum_q} <= '0;
                header_q <= {data_q[3:0], 2'b00};
                if (data_q[7:4] != 4'd4 || data_q[3:0] < 4'd5) state_q <= StUnknown;
              end
              12'd3: begin
                // Segmentation offload leaves 0: the packet is what was captured.
                left_q <= pair_is_q.zero ? 17'h10000 : {1'b0, pair} - 17'd4;
                if (!pair_is_q.zero && pair_is_q.in_header) state_q <= StUnknown;
              end
              12'd8: if (data_q == '0) refused_q <= 1'b1;
              default: ;
            endcase
            if (count == {6'b0, header_q} - 12'd1 && count > 12'd3) begin
              understood_q <= 1'b1;
              state_q <= StBody;
            end
          end

          StIpv6: begin
            if (routing_q) form_q <= FormIpv6;
            unique case (count)
              12'd0: if (data_q[7:4] != 4'd6) state_q <= StUnknown;
              12'd5: begin
                left_q <= {1'b0, pair} + 17'd34;  // what has no room in 16 bits has none in a frame, nor in PPPoE
                if (in_pppoe_q && pair > 16'd65493) refused_q <= 1'b1;
              end
              // A jumbogram (RFC 2675), or a segment left to hardware, unless nothing follows; 34 was 0.
              12'd6: if (left_q == 17'd34 && data_q != 8'd59) left_q <= 17'h10000;
              12'd7: if (data_q == '0) refused_q <= 1'b1;
              default: ;
            endcase
            if (count == 12'd39) begin
              understood_q <= 1'b1;
              state_q <= StBody;
            end
          end

          default: count_q <= '0;
        endcase
      end
    end
  end

  always_ff @(posedge clk_i) begin
    if (valid_q) begin
      previous_q <= data_q;
      before_q <= previous_q;
      byte_q <= byte_d;
      if (state == StMac) macs_q <= {data_q, macs_q[95:8]};
    end
    if (last_q) begin
      end_entry_q <= {bytes_q < Shortest || !sound, bytes_q < Shortest, 22'b0,
                      {routing_q ? 4'd3 : 4'd2, 4'd0} | form, 16'b0};
    end
  end

  // Words.
  logic [63:0] word_q;
  logic [2:0]  lane_q;
  logic [15:0] length_q;
  logic        start_q, close_q;
  logic [63:0] close_entry_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      word_q <= '0;
      lane_q <= '0;
      length_q <= '0;
      start_q <= 1'b0;
      close_q <= 1'b0;
      close_entry_q <= '0;
      valid_o <= 1'b0;
      end_o <= 1'b0;
      word_o <= '0;
    end else begin
      start_q <= valid_q && first_q;
      valid_o <= 1'b0;
      end_o <= 1'b0;
      close_q <= end_q;
      if (start_q) begin
        word_q <= '0;
        lane_q <= '0;
        length_q <= '0;
      end
      if (load_q) begin
        valid_o <= 1'b1;
        word_o <= macs_q[63:0];
        word_q <= {16'b0, byte_q, before_q, macs_q[95:64]};
        lane_q <= 3'd6;
        length_q <= 16'd14;
      end
      if (emit_q) begin
        word_q[8*lane_q +: 8] <= byte_q;
        lane_q <= lane_q + 3'd1;
        length_q <= length_q + 16'd1;
        if (lane_q == '1) begin
          valid_o <= 1'b1;
          word_o <= {byte_q, word_q[55:0]};
          word_q <= '0;
        end
      end
      if (end_q) begin
        valid_o <= lane_q != '0;
        word_o <= word_q;
        close_entry_q <= {end_entry_q, length_q};
      end
      if (close_q) begin
        valid_o <= 1'b1;
        end_o <= 1'b1;
        word_o <= close_entry_q;
      end
    end
  end
endmodule
