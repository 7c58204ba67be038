// SPDX-License-Identifier: Apache-2.0
// Sends one port's frames to GMII: waits for the launch time, preamble, SFD, padding, FCS, inter-frame gap.
//
// Clock: the core clock, which is the transmit clock. Behind it is one more register before the pins
// (gmii_loopback). Records come as a stream of
// words (docs/card.md: four header words, then the frame); a frame starts only when all of its words are
// in the FIFO, so it never runs dry. Launch: the SFD appears on the pins at the first edge at which card
// time is not before the launch time. Where that is missed by more than a cycle (data came late, a frame
// before it was still going) the frame goes at once and its departure is marked late.
// Departure stamp: card time of the very edge at which the SFD appears on the pins, rounded to 2^-32 s; no
// constant. Back-pressure: room_o, words free a cycle before. A departure not taken within a frame's time is lost, and counted in lost_o.
// A record that says more bytes than a frame may have is not sent, and nothing behind it, whose place is not known:
// bad_record_o until enable_i is 0.
// While enable_i is 0, what has come is forgotten, but for a frame that has begun: its words are all here.
module gmii_tx
  import twinstamp_pkg::*;
#(
  parameter int unsigned DepthLog2 = 11      // FIFO in words; a longest frame must fit: 11 to 13
) (
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic [63:0] now_q32_i,
  input  logic        now_half_i,           // card time is half a unit or more past now_q32_i
  input  logic [63:0] lead_q32_i,           // card time at which the SFD of a frame let go now would be on the pins
  input  logic        enable_i,
  input  logic        hold_i,               // start no frame now: a train has the wire (train_mac)
  input  logic        in_valid_i,
  input  logic [63:0] in_data_i,
  output logic [DepthLog2:0] room_o,

  output logic        busy_o,               // a frame is under way, or the gap after it
  output logic [15:0] length_o,             // of the frame that waits, without FCS
  output logic        bad_record_o,
  output logic [7:0]  txd_o,
  output logic        tx_en_o,
  output logic        tx_er_o,

  output logic        departure_valid_o,
  input  logic        departure_ready_i,
  output logic [63:0] departure_q32_o,
  output logic [63:0] departure_cookie_o,
  output logic [15:0] departure_length_o,
  output logic        departure_late_o,

  output logic        sent_o,               // pulse: a frame has left
  output logic [15:0] sent_length_o,        // with FCS
  output logic        sent_multicast_o,     // of its destination; broadcast too
  output logic        sent_broadcast_o,
  output logic        sent_late_o,          // it missed its launch time
  output logic [31:0] lost_o
);
  if (DepthLog2 < 11 || DepthLog2 > 13) $fatal(1, "gmii_tx: DepthLog2 must be 11 to 13");
  localparam int unsigned D = DepthLog2;

  logic [63:0] memory [2**D];
  // word_q follows rptr_q by a cycle, always: no logic stands in front of the memory. A word is given back when
  // rptr_q leaves it.
  logic [63:0] word_q;
  logic [D:0] wptr_q, rptr_q, level, level_q;
  logic next_word;
  assign level = wptr_q - rptr_q;
  always_ff @(posedge clk_i) begin
    if (in_valid_i) memory[wptr_q[D-1:0]] <= in_data_i;
    word_q <= memory[rptr_q[D-1:0]];
  end
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) room_o <= (D+1)'(2**D);
    else room_o <= (D+1)'(2**D) - level;
  end

  typedef enum logic [3:0] {
    StIdle, StHead, StFill, StWait, StPreamble, StSfd, StData, StPad, StFcs, StStop
  } state_e;
  state_e state_q;
  logic [2:0] head_q, lane_q;
  logic [3:0] gap_q;            // cycles since the last byte, stops at 12
  logic [15:0] length_q, sent_q, flags_q;
  logic [63:0] launch_q, cookie_q;
  logic [31:0] crc_q;
  logic [2:0] count_q;
  logic late_q, sfd_next_q, sfd_now_q, multicast_q, broadcast_q;
  logic [D:0] words;
  assign words = (D+1)'((length_q + 16'd7) >> 3);

  // Card time at which the SFD would appear if the frame were let go now, against the launch time.
  logic signed [63:0] due, behind_q;
  assign due = $signed(lead_q32_i - launch_q);
  logic go;
  assign go = gap_q >= 4'd11 && !hold_i && (!flags_q[TxLaunch] || !due[63]);

  // The byte that leaves was taken out of its word a cycle before: lane_q is that of the next one.
  logic [7:0] byte_now, byte_q;
  assign byte_now = state_q == StPad ? 8'h00 : byte_q;
  logic [31:0] crc_next;
  crc32_byte u_crc (
    .enable_i(state_q == StData || state_q == StPad), .crc_i(crc_q), .data_i(byte_now), .crc_o(crc_next)
  );

  logic quiet, empty_q;
  // What is in the FIFO, a cycle late: a word that was just taken is looked for again only cycles later.
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      level_q <= '0;
      empty_q <= 1'b1;
    end else if (!quiet || in_valid_i) begin
      level_q <= level;
      empty_q <= level == '0 && !in_valid_i;
    end
  end
  // Between frames nothing moves: less to switch, and to simulate.
  assign quiet = state_q == StIdle && !in_valid_i && gap_q == 4'd12 && !tx_en_o && !sent_o &&
                 !departure_valid_o && head_q == '0 && empty_q;

  // Simulation: nothing moves until a record comes (tools/model_edges.py).
  logic asleep;
  assign asleep = quiet && level == '0 && level_q == '0 && room_o == (D+1)'(2**D);

  // rptr_q goes on two cycles before the next word's first byte is taken out of word_q; after the last word of a
  // frame, while its FCS is sent.
  always_comb begin
    next_word = 1'b0;
    unique case (state_q)
      StIdle: next_word = level_q >= (D+1)'(RecordHeaderWords);
      StHead: next_word = head_q != 3'd3;
      StData: next_word = lane_q == 3'd6 && sent_q + 16'd3 < length_q;
      StFcs: next_word = count_q == 3'd0 && length_q != '0;
      default: ;
    endcase
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      wptr_q <= '0;
      rptr_q <= '0;
      state_q <= StIdle;
      head_q <= '0;
      lane_q <= '0;
      byte_q <= '0;
      gap_q <= '0;
      length_q <= '0;
      sent_q <= '0;
      flags_q <= '0;
      launch_q <= '0;
      cookie_q <= '0;
      crc_q <= '1;
      count_q <= '0;
      late_q <= 1'b0;
      behind_q <= '0;
      multicast_q <= 1'b0;
      broadcast_q <= 1'b0;
      sfd_now_q <= 1'b0;
      sfd_next_q <= 1'b0;
      txd_o <= '0;
      tx_en_o <= 1'b0;
      departure_valid_o <= 1'b0;
      departure_q32_o <= '0;
      departure_cookie_o <= '0;
      departure_length_o <= '0;
      departure_late_o <= 1'b0;
      sent_o <= 1'b0;
      sent_length_o <= '0;
      lost_o <= '0;
    end else if (!quiet) begin
      if (in_valid_i) wptr_q <= wptr_q + (D+1)'(1);
      if (next_word) rptr_q <= rptr_q + (D+1)'(1);
      sent_o <= 1'b0;
      sfd_next_q <= 1'b0;
      sfd_now_q <= sfd_next_q;
      if (departure_ready_i) departure_valid_o <= 1'b0;
      // The SFD went onto the pins at the last edge: card time is now that edge's.
      if (sfd_now_q && flags_q[TxStamp]) begin
        if (departure_valid_o && !departure_ready_i) lost_o <= lost_o + 32'd1;
        else begin
          departure_valid_o <= 1'b1;
          departure_q32_o <= now_q32_i + 64'(now_half_i);
          departure_cookie_o <= cookie_q;
          departure_length_o <= length_q;
          departure_late_o <= late_q;
        end
      end

      txd_o <= '0;
      tx_en_o <= 1'b0;
      if (gap_q != 4'd12) gap_q <= gap_q + 4'd1;

      unique case (state_q)
        StIdle: begin
          head_q <= '0;
          if (next_word) state_q <= StHead;
        end
        StHead: begin
          head_q <= head_q + 3'd1;
          unique case (head_q)
            3'd0: begin
              length_q <= word_q[15:0];
              flags_q <= word_q[63:48];
            end
            3'd1: launch_q <= word_q;
            3'd2: cookie_q <= word_q;
            default: state_q <= length_q > 16'(8 * MaxStoredWords) ? StStop : StFill;
          endcase
        end
        StStop: ;
        StFill: if (level_q >= words) state_q <= StWait;
        StWait: begin
          count_q <= '0;
          crc_q <= '1;
          sent_q <= '0;
          lane_q <= '0;
          multicast_q <= 1'b0;
          broadcast_q <= length_q >= 16'd6;
          if (go) begin
            behind_q <= due;
            state_q <= StPreamble;
          end
        end
        StPreamble: begin
          txd_o <= 8'h55;
          tx_en_o <= 1'b1;
          count_q <= count_q + 3'd1;
          late_q <= flags_q[TxLaunch] && behind_q > 64'sd35;  // more than a cycle
          if (count_q == 3'd6) state_q <= StSfd;
        end
        StSfd: begin
          byte_q <= word_q[7:0];
          lane_q <= 3'd1;
          txd_o <= 8'hD5;
          tx_en_o <= 1'b1;
          sfd_next_q <= 1'b1;
          count_q <= '0;
          state_q <= length_q == '0 ? StPad : StData;
        end
        StData: begin
          txd_o <= byte_now;
          tx_en_o <= 1'b1;
          crc_q <= crc_next;
          byte_q <= word_q[8*lane_q +: 8];
          lane_q <= lane_q + 3'd1;
          if (sent_q == '0) multicast_q <= byte_now[0];
          if (sent_q < 16'd6 && byte_now != 8'hFF) broadcast_q <= 1'b0;
          sent_q <= sent_q + 16'd1;
          if (sent_q + 16'd1 == length_q) state_q <= length_q < 16'd60 ? StPad : StFcs;
        end
        StPad: begin
          txd_o <= byte_now;
          tx_en_o <= 1'b1;
          crc_q <= crc_next;
          sent_q <= sent_q + 16'd1;
          if (sent_q + 16'd1 == 16'd60) state_q <= StFcs;
        end
        StFcs: begin
          txd_o <= ~crc_q[7:0];
          crc_q <= {8'hFF, crc_q[31:8]};
          tx_en_o <= 1'b1;
          count_q <= count_q + 3'd1;
          gap_q <= '0;
          if (count_q == 3'd3) begin
            sent_o <= 1'b1;
            sent_length_o <= sent_q + 16'd4;
            state_q <= StIdle;
          end
        end
        default: state_q <= StIdle;
      endcase
      if (!enable_i && (state_q == StIdle || state_q == StHead || state_q == StFill || state_q == StWait ||
                        state_q == StStop)) begin
        rptr_q <= wptr_q + (D+1)'(in_valid_i);
        state_q <= StIdle;
      end
    end
  end
  assign busy_o = gap_q < 4'd11 || state_q == StPreamble || state_q == StSfd || state_q == StData ||
                  state_q == StPad || state_q == StFcs;
  assign length_o = length_q;
  assign bad_record_o = state_q == StStop;
  assign tx_er_o = 1'b0;
  assign sent_multicast_o = multicast_q;
  assign sent_broadcast_o = broadcast_q;
  assign sent_late_o = late_q;
endmodule
