// SPDX-License-Identifier: Apache-2.0
// Receives from GMII: preamble and SFD, FCS, lengths; cuts the frame into words without its FCS.
//
// Clock: the port's recovered receive clock (125 MHz +-100 ppm); GMII pins are sampled at its edge.
// Stamp: stamp_toggle_o changes two edges after the edge that samples the reference byte (the SFD, or with
// cfg_first_byte_i the byte after it), and stamp_gray_o, which counts these frames in Gray code, with it; nothing of
// the frame is needed for them. The frame's end has the same number.
// Stream, while enabled: words of eight bytes (first byte lowest, the last word padded with zeros), then an entry
// with an rx_end_t for each frame. Carrier events in which no frame starts are counted into the next entry: a
// frame's, or one of their own, MinStampDistance cycles behind the last one at the earliest. So whatever comes,
// entries that are no words come as seldom as SFDs may, but for one of counts in front of a frame's. At most
// one entry a cycle; nine for 72 bytes. No back-pressure: whoever reads must keep up, a full FIFO is a fault.
// Bytes, for the flow hash: those of the words, one a cycle at most; byte_last_o behind the last one, alone, for
// each frame of more than an FCS. A frame has the duplicate profile that cfg_profile_i is at its SFD: profile_o, from
// before its first byte until behind its last.
// Two SFDs closer than MinStampDistance cycles: the second is taken for noise, so that each stamp can be told
// in the core clock.
// flush_i: no carrier is heard, so a frame under way ends; one that is there at its end is not taken.
module gmii_rx
  import twinstamp_pkg::*;
#(
  parameter int unsigned MinStampDistance = 12  // in cycles; 4 to 15; port_counters needs 12
) (
  input  logic       clk_i,
  input  logic       rst_ni,
  input  logic [7:0] rxd_i,
  input  logic       rx_dv_i,
  input  logic       rx_er_i,
  input  logic       cfg_enable_i,
  input  logic       cfg_first_byte_i,
  input  logic [1:0] cfg_profile_i,
  input  logic       flush_i,
  output logic       stamp_toggle_o,
  output logic [StampBits-1:0] stamp_gray_o,
  output logic       byte_valid_o,
  output logic       byte_first_o,
  output logic       byte_last_o,
  output logic [7:0] byte_o,
  output logic [1:0] profile_o,
  output logic       valid_o,
  output rx_entry_t  entry_o
);
  if (MinStampDistance < 4 || MinStampDistance > 15) $fatal(1, "gmii_rx: MinStampDistance must be 4 to 15");

  typedef enum logic [2:0] {StSkip, StIdle, StPreamble, StFrame, StNoise} state_e;

  logic [7:0] rxd_q;
  logic dv_q, er_q, flush_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      rxd_q <= '0;
      dv_q  <= 1'b1;  // a frame under way at the end of reset is not taken
      er_q  <= 1'b0;
      flush_q <= 1'b0;
    end else begin
      rxd_q <= rxd_i;
      dv_q  <= rx_dv_i && !flush_i;
      er_q  <= rx_er_i;
      flush_q <= flush_i;
    end
  end

  state_e state_q;
  logic enable_q;
  logic [StampBits-1:0] stamp_q, stamp_next;
  logic [3:0] since_stamp_q, since_end_q;
  logic stamp_ready, is_sfd;
  assign stamp_ready = since_stamp_q >= 4'(MinStampDistance);
  assign stamp_next = stamp_q + StampBits'(1);
  // Events without a frame that no entry has told yet: one in two cycles at most, so seven.
  logic [3:0] noises_q, no_sfds_q;

  // Frame under way. `delay_q` holds the last four bytes back: at the end they are the FCS.
  logic [23:0] length_q;
  logic [31:0] crc_q, delay_q;
  logic [63:0] word_q;
  logic [7:0]  previous_q;
  logic [1:0]  tags_q;
  logic tag_open_q;  // the next two bytes may be a tag's TPID
  logic has_stamp_q, first_byte_q, er_seen_q, multicast_q, broadcast_q, pause_q;
  logic [31:0] crc_next;
  crc32_byte u_crc (.enable_i(1'b1), .crc_i(crc_q), .data_i(rxd_q), .crc_o(crc_next));
  logic tpid;
  assign tpid = {previous_q, rxd_q} == 16'h8100 || {previous_q, rxd_q} == 16'h88A8;

  // Bytes 0 to 5 and 12 to 15 of a PAUSE frame, each where it must stand.
  logic pause_byte;
  always_comb begin
    unique case (length_q)
      24'd0, 24'd15: pause_byte = rxd_q == 8'h01;
      24'd1: pause_byte = rxd_q == 8'h80;
      24'd2: pause_byte = rxd_q == 8'hC2;
      24'd3, 24'd4, 24'd14: pause_byte = rxd_q == 8'h00;
      24'd5: pause_byte = rxd_q == 8'h01;
      24'd12: pause_byte = rxd_q == 8'h88;
      24'd13: pause_byte = rxd_q == 8'h08;
      default: pause_byte = 1'b1;
    endcase
  end

  logic [2:0] lane;
  assign lane = 3'(length_q - 24'd4);

  logic word_valid_q, end_valid_q;
  logic [63:0] word_out_q;
  rx_end_t end_q;
  logic ending_q;
  // Not while an SFD is there or a frame is under way: its end will tell.
  logic tell;
  assign is_sfd = rxd_q == 8'hD5 && !er_q && stamp_ready;
  assign tell = (noises_q != '0 || no_sfds_q != '0) && since_end_q >= 4'(MinStampDistance) && state_q != StFrame &&
                !(dv_q && is_sfd);

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= StSkip;
      stamp_q <= '0;
      stamp_gray_o <= '0;
      {noises_q, no_sfds_q} <= '0;
      since_end_q <= '1;
      enable_q <= 1'b0;
      since_stamp_q <= '1;
      length_q <= '0;
      crc_q <= '1;
      delay_q <= '0;
      word_q <= '0;
      previous_q <= '0;
      tags_q <= '0;
      tag_open_q <= 1'b0;
      has_stamp_q <= 1'b0;
      first_byte_q <= 1'b0;
      profile_o <= '0;
      er_seen_q <= 1'b0;
      multicast_q <= 1'b0;
      broadcast_q <= 1'b0;
      pause_q <= 1'b0;
      word_valid_q <= 1'b0;
      end_valid_q <= 1'b0;
      ending_q <= 1'b0;
      word_out_q <= '0;
      end_q <= '0;
    end else begin
      word_valid_q <= 1'b0;
      end_valid_q <= ending_q;
      ending_q <= 1'b0;
      enable_q <= cfg_enable_i;
      if (since_stamp_q != '1) since_stamp_q <= since_stamp_q + 4'd1;
      if (since_end_q != '1) since_end_q <= since_end_q + 4'd1;
      if (tell) begin
        ending_q <= 1'b1;
        end_q <= '{preamble_errors: noises_q, no_sfds: no_sfds_q, default: '0};
        {noises_q, no_sfds_q} <= '0;
        since_end_q <= 4'd1;
      end

      unique case (state_q)
        StSkip: if (!dv_q && !flush_q) state_q <= StIdle;

        StIdle, StPreamble: begin
          length_q <= '0;
          crc_q <= '1;
          tags_q <= '0;
          has_stamp_q <= 1'b0;
          er_seen_q <= 1'b0;
          multicast_q <= 1'b0;
          broadcast_q <= 1'b1;
          pause_q <= 1'b1;
          if (dv_q) begin
            if (state_q == StIdle && !enable_q) state_q <= StSkip;
            else if (rxd_q == 8'h55 && !er_q) state_q <= StPreamble;
            else if (is_sfd) begin
              state_q <= StFrame;
              profile_o <= cfg_profile_i;
              first_byte_q <= cfg_first_byte_i;
              if (!cfg_first_byte_i) begin
                stamp_q <= stamp_next;
                stamp_gray_o <= stamp_next ^ (stamp_next >> 1);
                has_stamp_q <= 1'b1;
                since_stamp_q <= 4'd1;
              end
            end else begin
              state_q <= StNoise;
            end
          end else if (state_q == StIdle) begin
            if (flush_q) state_q <= StSkip;
          end else begin
            state_q <= StIdle;
            no_sfds_q <= (tell ? '0 : no_sfds_q) + 4'd1;
          end
        end

        StNoise: if (!dv_q) begin
          state_q <= StIdle;
          noises_q <= (tell ? '0 : noises_q) + 4'd1;
        end

        StFrame: if (dv_q) begin
          if (length_q == '0 && first_byte_q) begin
            stamp_q <= stamp_next;
            stamp_gray_o <= stamp_next ^ (stamp_next >> 1);
            has_stamp_q <= 1'b1;
            since_stamp_q <= 4'd1;
          end
          if (length_q != '1) length_q <= length_q + 24'd1;
          crc_q <= crc_next;
          delay_q <= {rxd_q, delay_q[31:8]};
          previous_q <= rxd_q;
          if (er_q) er_seen_q <= 1'b1;
          if (length_q == '0) multicast_q <= rxd_q[0];
          if (length_q < 24'd6 && rxd_q != 8'hFF) broadcast_q <= 1'b0;
          if (!pause_byte) pause_q <= 1'b0;
          // TPIDs stand at bytes 12 and, behind a tag, 16.
          tag_open_q <= length_q == 24'd12 || (length_q == 24'd16 && tags_q != '0);
          if (tag_open_q && tpid) tags_q <= tags_q + 2'd1;
          if (length_q >= 24'd4) begin
            word_q[8*lane +: 8] <= delay_q[7:0];
            if (lane == '1) begin
              word_valid_q <= 1'b1;
              word_out_q <= {delay_q[7:0], word_q[55:0]};
              word_q <= '0;
            end
          end
        end else begin
          state_q <= StIdle;
          ending_q <= 1'b1;
          if (length_q >= 24'd4 && lane != '0) begin
            word_valid_q <= 1'b1;
            word_out_q <= word_q;
          end
          word_q <= '0;
          {noises_q, no_sfds_q} <= '0;
          since_end_q <= 4'd1;
          end_q <= '{
              frame: 1'b1,
              preamble_errors: noises_q,
              no_sfds: no_sfds_q,
              first_byte: first_byte_q,
              stamp: stamp_q,
              profiled: profile_o[1],
              pause: pause_q && length_q >= 24'd16,
              multicast: multicast_q,
              broadcast: broadcast_q && length_q >= 24'd6,
              has_stamp: has_stamp_q,
              rx_er: er_seen_q,
              fcs_ok: crc_q == CrcResidue,
              tags: tags_q,
              length: length_q
          };
        end

        default: state_q <= StSkip;
      endcase
    end
  end

  assign byte_valid_o = state_q == StFrame && dv_q && length_q >= 24'd4 && length_q < 24'(8 * MaxStoredWords + 4);
  assign byte_first_o = length_q == 24'd4;
  assign byte_last_o = state_q == StFrame && !dv_q && length_q > 24'd4;
  assign byte_o = delay_q[7:0];

  assign stamp_toggle_o = stamp_q[0];
  assign valid_o = word_valid_q || end_valid_q;
  assign entry_o.is_end = end_valid_q;
  assign entry_o.data = end_valid_q ? 64'(end_q) : word_out_q;
endmodule
