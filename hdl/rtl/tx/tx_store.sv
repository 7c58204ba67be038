// SPDX-License-Identifier: Apache-2.0
// Whole frames from the host's stream (core clock) to bytes in the transmit clock.
//
// Host side, clk_i: AXI4-Stream, 64 bits, first byte lowest. Each frame is two header words (tx_head_t,
// then the launch time) and ceil(length / 8) data words, tlast on the last, tkeep all ones but there, where
// it covers exactly what is left. A frame that is not like this, or shorter than MinLength or longer than
// MaxLength, is taken off the stream whole, thrown away and counted by a pulse of malformed_o.
// Back-pressure: tready falls while there is no room; nothing is ever dropped for want of room.
// A frame that is complete is offered on meta_o. Whoever takes it lets it go through go_*, in the same order;
// so a frame that the transmit side sees is all there, and its words stay until release_i gives them back.
// Transmit side, tx_clk_i: frame_o (handshake), then length bytes, from three periods after it on, without
// gaps; none for a frame with drop set. A stage that changes bytes goes between here and tx_mac.
// Latency: from go_valid_i to frame_valid_o as async_fifo. Room: 2^StoreLog2 bytes and 2^MetaLog2 frames.
module tx_store
  import twinstamp_tx_pkg::*;
#(
  parameter int unsigned StoreLog2 = 15,  // 14 (one frame of 9 KiB at a time) to 17; less for proofs
  parameter int unsigned MetaLog2 = 5,
  parameter int unsigned MinLength = TxMinLength,
  parameter int unsigned MaxLength = TxMaxLength
) (
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic        s_axis_tvalid,
  output logic        s_axis_tready,
  input  logic [63:0] s_axis_tdata,
  input  logic [7:0]  s_axis_tkeep,
  input  logic        s_axis_tlast,
  output logic        malformed_o,

  output logic        meta_valid_o,
  output tx_meta_t    meta_o,
  input  logic        meta_ready_i,
  output logic        empty_o,          // no frame here or on its way out
  output logic        launch_waiting_o, // one with a launch time is here, and not yet taken off meta_o

  input  logic        go_valid_i,
  input  tx_frame_t   go_i,
  output logic        go_ready_o,
  input  logic        release_i,
  input  logic [10:0] release_words_i,

  input  logic        tx_clk_i,
  input  logic        tx_rst_ni,
  output logic        frame_valid_o,
  output tx_frame_t   frame_o,
  input  logic        frame_ready_i,
  output logic        byte_valid_o,
  output logic [7:0]  byte_o,
  output logic        byte_last_o,
  input  logic        byte_ready_i,

  input  logic [1:0]  late_i            // simulation: [0] into clk_i, [1] into tx_clk_i
);
  if (StoreLog2 < 5 || StoreLog2 > 17) $fatal(1, "tx_store: StoreLog2 must be 5 to 17");
  if (MaxLength + 8 > 2**StoreLog2 || MaxLength > 16376) $fatal(1, "tx_store: a frame does not fit");
  localparam int unsigned A = StoreLog2 - 3;

  // In.
  typedef enum logic [1:0] {StHead, StLaunch, StData, StSkip} state_e;
  state_e state_q;
  tx_head_t head, head_q;
  logic [63:0] launch_q;
  logic [A:0] write_q, start_q, free_q, used;
  logic [10:0] left_q;                  // words still to come
  logic [MetaLog2:0] meta_w_q, meta_r_q, launches_q;
  logic meta_full, length_ok, beat, commit, malformed;
  logic [7:0] keep_last;
  assign head = tx_head_t'(s_axis_tdata);
  assign length_ok = head.length >= 14'(MinLength) && head.length <= 14'(MaxLength);
  assign used = write_q - free_q;
  assign meta_full = meta_w_q == {~meta_r_q[MetaLog2], meta_r_q[MetaLog2-1:0]};
  assign keep_last = head_q.length[2:0] == '0 ? 8'hFF : ~(8'hFF << head_q.length[2:0]);
  always_comb begin
    unique case (state_q)
      StHead: s_axis_tready = !meta_full;
      StData: s_axis_tready = !used[A];
      default: s_axis_tready = 1'b1;
    endcase
  end
  assign beat = s_axis_tvalid && s_axis_tready;
  assign commit = beat && state_q == StData && s_axis_tlast && left_q == 11'd1 && s_axis_tkeep == keep_last;
  assign malformed = beat && s_axis_tlast && !commit;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= StHead;
      head_q <= '0;
      launch_q <= '0;
      write_q <= '0;
      start_q <= '0;
      free_q <= '0;
      left_q <= '0;
      meta_w_q <= '0;
      meta_r_q <= '0;
      launches_q <= '0;
      malformed_o <= 1'b0;
    end else begin
      malformed_o <= malformed;
      if (release_i) free_q <= free_q + (A+1)'(release_words_i);
      if (meta_valid_o && meta_ready_i) meta_r_q <= meta_r_q + (MetaLog2+1)'(1);
      if (beat) begin
        unique case (state_q)
          StHead: begin
            head_q <= head;
            left_q <= 11'((head.length + 14'd7) >> 3);
            state_q <= length_ok && head.zero == '0 && s_axis_tkeep == 8'hFF ? StLaunch : StSkip;
          end
          StLaunch: begin
            launch_q <= s_axis_tdata;
            state_q <= s_axis_tkeep == 8'hFF ? StData : StSkip;
          end
          StData: begin
            write_q <= write_q + (A+1)'(1);
            left_q <= left_q - 11'd1;
            if (left_q == 11'd1 || s_axis_tkeep != 8'hFF) state_q <= StSkip;
          end
          default: ;
        endcase
        if (s_axis_tlast) begin
          state_q <= StHead;
          if (commit) start_q <= write_q + (A+1)'(1);
          else write_q <= start_q;
        end
      end
      if (commit) meta_w_q <= meta_w_q + (MetaLog2+1)'(1);
      launches_q <= launches_q + (MetaLog2+1)'(commit && head_q.launch_valid) -
                    (MetaLog2+1)'(meta_valid_o && meta_ready_i && meta_o.head.launch_valid);
    end
  end

  tx_meta_t metas [2**MetaLog2];
  always_ff @(posedge clk_i) begin
    if (commit) metas[meta_w_q[MetaLog2-1:0]] <= '{head: head_q, launch_q32: launch_q};
  end
  assign meta_valid_o = meta_w_q != meta_r_q;
  assign meta_o = metas[meta_r_q[MetaLog2-1:0]];
  assign launch_waiting_o = launches_q != '0;
  assign empty_o = start_q == free_q && state_q == StHead;

  // Memory: written in the core clock, read in the transmit clock, never the same word near each other.
  logic [63:0] memory [2**A];
  always_ff @(posedge clk_i) begin
    if (beat && state_q == StData) memory[write_q[A-1:0]] <= s_axis_tdata;
  end

  // Across.
  logic go_full, frame_valid, reading_q;
  async_fifo #(.Width($bits(tx_frame_t)), .DepthLog2(2)) u_go (
    .wclk_i(clk_i), .wrst_ni(rst_ni), .wvalid_i(go_valid_i), .wdata_i(go_i), .wfull_o(go_full),
    .wlate_i(late_i[0]),
    .rclk_i(tx_clk_i), .rrst_ni(tx_rst_ni), .rvalid_o(frame_valid), .rdata_o(frame_o),
    .rready_i(frame_ready_i && !reading_q), .rlate_i(late_i[1])
  );
  assign go_ready_o = !go_full;

  // Out: `word_q` is being sent, `next_q` waits behind it.
  logic fetched_q, word_valid_q, next_valid_q;
  logic [A-1:0] read_q;
  logic [10:0] fetch_left_q;
  logic [13:0] bytes_left_q;
  logic [2:0] lane_q;
  logic [63:0] memory_q, word_q, next_q;
  logic start, fetch, take, word_done, into_word;
  assign frame_valid_o = frame_valid && !reading_q;
  assign start = frame_valid_o && frame_ready_i;
  assign fetch = fetch_left_q != '0 && !fetched_q && (!next_valid_q || into_word);
  assign take = word_valid_q && byte_ready_i;
  assign word_done = take && (lane_q == '1 || bytes_left_q == 14'd1);
  assign into_word = next_valid_q && (!word_valid_q || word_done);
  assign byte_valid_o = word_valid_q;
  assign byte_o = word_q[8*lane_q +: 8];
  assign byte_last_o = bytes_left_q == 14'd1;

  always_ff @(posedge tx_clk_i) begin
    if (fetch) memory_q <= memory[read_q];
  end
  always_ff @(posedge tx_clk_i or negedge tx_rst_ni) begin
    if (!tx_rst_ni) begin
      reading_q <= 1'b0;
      fetched_q <= 1'b0;
      word_valid_q <= 1'b0;
      next_valid_q <= 1'b0;
      read_q <= '0;
      fetch_left_q <= '0;
      bytes_left_q <= '0;
      lane_q <= '0;
      word_q <= '0;
      next_q <= '0;
    end else begin
      fetched_q <= fetch;
      if (fetch) begin
        read_q <= read_q + A'(1);
        fetch_left_q <= fetch_left_q - 11'd1;
      end
      if (into_word) begin
        word_q <= next_q;
        word_valid_q <= 1'b1;
        next_valid_q <= 1'b0;
      end else if (word_done) word_valid_q <= 1'b0;
      if (fetched_q) begin
        next_q <= memory_q;
        next_valid_q <= 1'b1;
      end
      if (take) begin
        lane_q <= lane_q + 3'd1;
        bytes_left_q <= bytes_left_q - 14'd1;
        if (bytes_left_q == 14'd1) reading_q <= 1'b0;
      end
      if (start) begin
        lane_q <= '0;
        if (frame_o.drop) read_q <= read_q + A'((frame_o.length + 14'd7) >> 3);
        else begin
          reading_q <= 1'b1;
          fetch_left_q <= 11'((frame_o.length + 14'd7) >> 3);
          bytes_left_q <= frame_o.length;
        end
      end
    end
  end
endmodule
