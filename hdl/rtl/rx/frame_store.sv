// SPDX-License-Identifier: Apache-2.0
// Holds one port's frames as finished records until the packer fetches them; drops whole frames when full.
//
// Clock: the core clock. Takes an entry every cycle while the digest engine does; the end of a frame waits for
// its digest (20 to 70 cycles) and flow hash (30 to 80), and seven cycles more, in which the crossing's FIFO holds
// what comes. A record is four header words and the frame's words (docs/card.md); the header is written behind
// the frame, in front of it, when all is known, and only then becomes visible (`committed_o`).
// Overflow: a frame that finds too little room is left out whole and counted; it takes a sequence number,
// so gaps in the sequence are drops. So is a frame whose stamp is missing (stamp_capture says when).
// flush_i: the frame under way is given up, for the engine too; nothing is waited for.
// Room: 2^StoreLog2 bytes; 14 (one frame of 9 KiB at a time) to 17.
module frame_store
  import twinstamp_pkg::*;
#(
  parameter int unsigned StoreLog2 = 15
) (
  input  logic [7:0]  port_i,        // for records; an input, so that all ports are the same module
  input  logic        clk_i,
  input  logic        rst_ni,

  input  logic        flush_i,
  input  logic        valid_i,
  input  rx_entry_t   entry_i,
  output logic        ready_o,

  output logic [StampBits-1:0] stamp_number_o,
  input  logic        stamp_valid_i,
  input  logic [63:0] stamp_q32_i,
  input  logic [7:0]  stamp_epoch_i,
  output logic        stamp_take_o,

  input  logic        store_i,       // the ring runs: keep frames
  input  logic [7:0]  link_epoch_i,
  input  logic        keep_bad_i,
  input  logic        keep_runt_i,
  input  logic        keep_giant_i,
  input  logic [13:0] limit_i,

  // To the digest engine: the words that are stored, then the captured length, with bit 63 for a runt and bit 62 where
  // frame_normaliser makes a message of the frame; its answer.
  output logic        hash_valid_o,
  output logic        hash_end_o,
  output logic [63:0] hash_word_o,
  input  logic        hash_ready_i,
  input  logic        hash_done_i,
  input  logic [63:0] hash_digest_i,

  // Flow hashes: one for each frame that has more than an FCS, in order.
  input  logic        flow_valid_i,
  input  logic [31:0] flow_i,
  output logic        flow_ready_o,

  // One pulse for each frame, and what became of it; and for counts of carrier events in which none started.
  output logic        event_o,
  output rx_end_t     event_end_o,
  output logic        event_giant_o,
  output logic        event_stored_o,
  output logic        event_dropped_o,
  output logic [31:0] drops_o,

  // Records, oldest first: a word a cycle after its address.
  output logic [StoreLog2-3:0] committed_o,  // in words, one bit more than an address
  input  logic [StoreLog2-3:0] taken_i,
  input  logic                 read_i,
  input  logic [StoreLog2-4:0] read_address_i,
  output logic [63:0]          read_data_o
);
  if (StoreLog2 < 14 || StoreLog2 > 17) $fatal(1, "frame_store: StoreLog2 must be 14 to 17");
  localparam int unsigned A = StoreLog2 - 3;  // address bits

  logic [63:0] memory [2**A];
  logic we;
  logic [A-1:0] waddr;
  logic [63:0] wdata;
  always_ff @(posedge clk_i) begin
    if (we) memory[waddr] <= wdata;
    if (read_i) read_data_o <= memory[read_address_i];
  end

  logic [A:0] committed_q, committed, used_q, needed, needed_q;
  logic [10:0] words_q;
  logic full_q;      // this frame found no room
  logic skip_q;      // the ring did not run for all of it
  logic [1:0] head_q;
  logic heading_q;
  logic [31:0] sequence_q, drops_q;

  rx_end_t frame_end, end_q;
  assign frame_end = rx_end_t'(entry_i.data[$bits(rx_end_t)-1:0]);

  // Judgement at the end, in two steps: the end as it comes, measured; then what becomes of the frame.
  logic judging_q, frame_q, runt_q, cut_q, stamped_q, open_q, give_up_q, give_up;
  logic giant;
  logic bad, wanted, keep, drop;
  logic [23:0] limit_q;
  logic [15:0] caplen_q;
  logic [23:0] payload;
  assign payload = frame_end.length < 24'd4 ? '0 : frame_end.length - 24'd4;
  assign bad = !end_q.fcs_ok || end_q.rx_er;
  assign giant = end_q.length > limit_q;
  assign wanted = frame_q && end_q.has_stamp && store_i && !skip_q && (!bad || keep_bad_i) &&
                  (!runt_q || keep_runt_i) && (!giant || keep_giant_i);
  assign needed = used_q + (A+1)'(words_q) + (A+1)'(RecordHeaderWords);

  // Whether the next word would not fit, said a cycle ahead and so for one word more. After a record has become
  // visible, words wait for a cycle, until this knows of it.
  logic no_room_q, settle_q;

  logic end_now;
  assign end_now = valid_i && entry_i.is_end && ready_o;
  assign keep = wanted && !full_q && stamped_q && needed_q <= (A+1)'(2**A);
  assign drop = wanted && !keep;

  logic [63:0] head0_q;
  logic [15:0] flags;
  always_comb begin
    flags = '0;
    flags[FlagBadFcs] = !end_q.fcs_ok;
    flags[FlagRxEr] = end_q.rx_er;
    flags[FlagRunt] = runt_q;
    flags[FlagGiant] = giant;
    flags[FlagCut] = cut_q;
    flags[FlagFirstByte] = end_q.first_byte;
    flags[15:8] = link_epoch_i;
  end

  logic [63:0] stamp_q;
  logic [7:0] stamp_epoch_q;
  logic [15:0] payload_q;
  logic [10:0] kept_words_q;
  logic keep_q, digest_wait_q, flow_wait_q;
  logic [31:0] flow_q;
  logic [63:0] digest_q;
  always_comb begin
    we = 1'b0;
    waddr = committed_q[A-1:0] + A'(RecordHeaderWords) + A'(words_q);
    wdata = entry_i.data;
    if (heading_q) begin
      we = 1'b1;
      waddr = committed_q[A-1:0] + A'(head_q);
      unique case (head_q)
        2'd0: wdata = head0_q;
        2'd1: wdata = stamp_q;
        2'd2: wdata = {flow_q, sequence_q};
        default: wdata = digest_q;
      endcase
    end else if (valid_i && ready_o && !entry_i.is_end) begin
      we = !skip_q && !full_q && !no_room_q && words_q < 11'(MaxStoredWords);
    end
  end

  // The stamp of an end is there already. The engine gets every word that a frame may store and every end, also of
  // frames that are not kept.
  assign ready_o = !judging_q && !heading_q && !settle_q && !digest_wait_q && !flow_wait_q && hash_ready_i;
  assign give_up = flush_i && open_q && ready_o;
  // An end goes to the engine a cycle after it was taken: what was free then still is.
  assign hash_valid_o = judging_q ? frame_q
                                  : valid_i && ready_o && !entry_i.is_end && words_q < 11'(MaxStoredWords);
  assign hash_end_o = judging_q;
  assign flow_ready_o = flow_wait_q;
  assign hash_word_o = judging_q ? {runt_q, end_q.profiled, 46'b0, caplen_q} : entry_i.data;
  assign stamp_number_o = frame_end.stamp;
  assign stamp_take_o = end_now && frame_end.has_stamp;
  always_comb begin
    committed = committed_q;
    if (heading_q && head_q == 2'd3) begin
      committed = committed_q + (A+1)'(RecordHeaderWords) + (A+1)'(kept_words_q);
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      committed_q <= '0;
      used_q <= '0;
      needed_q <= '0;
      no_room_q <= 1'b0;
      settle_q <= 1'b0;
      judging_q <= 1'b0;
      {frame_q, runt_q, cut_q, stamped_q, open_q, give_up_q} <= '0;
      end_q <= '0;
      limit_q <= '0;
      caplen_q <= '0;
      payload_q <= '0;
      words_q <= '0;
      full_q <= 1'b0;
      skip_q <= 1'b0;
      head_q <= '0;
      heading_q <= 1'b0;
      sequence_q <= '0;
      drops_q <= '0;
      event_o <= 1'b0;
      event_end_o <= '0;
      event_giant_o <= 1'b0;
      event_stored_o <= 1'b0;
      event_dropped_o <= 1'b0;
      head0_q <= '0;
      stamp_q <= '0;
      stamp_epoch_q <= '0;
      kept_words_q <= '0;
      digest_wait_q <= 1'b0;
      flow_wait_q <= 1'b0;
      flow_q <= '0;
      keep_q <= 1'b0;
      digest_q <= '0;
    end else begin
      event_o <= 1'b0;
      committed_q <= committed;
      used_q <= committed - taken_i;
      no_room_q <= needed + (A+1)'(1) >= (A+1)'(2**A);
      settle_q <= judging_q || (heading_q && head_q == 2'd3);
      if (digest_wait_q || flow_wait_q) begin
        if (digest_wait_q && hash_done_i) begin
          digest_wait_q <= 1'b0;
          digest_q <= hash_digest_i;
        end
        if (flow_wait_q && flow_valid_i) begin
          flow_wait_q <= 1'b0;
          flow_q <= flow_i;
        end
        if ((!digest_wait_q || hash_done_i) && (!flow_wait_q || flow_valid_i)) heading_q <= keep_q;
        else if (flush_i) begin
          {digest_wait_q, flow_wait_q} <= '0;
          if (keep_q) begin
            sequence_q <= sequence_q + 32'd1;
            drops_q <= drops_q + 32'd1;
          end
        end
      end else if (heading_q) begin
        head_q <= head_q + 2'd1;
        if (head_q == 2'd3) begin
          heading_q <= 1'b0;
          sequence_q <= sequence_q + 32'd1;
        end
      end else if (judging_q) begin
        judging_q <= 1'b0;
        words_q <= '0;
        full_q <= 1'b0;
        skip_q <= 1'b0;
        event_o <= !give_up_q;
        open_q <= 1'b0;
        give_up_q <= 1'b0;
        event_end_o <= end_q;
        event_giant_o <= giant;
        event_stored_o <= keep;
        event_dropped_o <= drop;
        kept_words_q <= words_q;
        head0_q <= {flags, stamp_epoch_q, port_i, end_q.length > 24'd65539 ? 16'hFFFF : payload_q, caplen_q};
        // Runts have no digest: they may come faster than the engine could follow.
        digest_wait_q <= frame_q && !runt_q;
        flow_wait_q <= frame_q && end_q.length > 24'd4;
        heading_q <= keep && runt_q && end_q.length <= 24'd4;
        flow_q <= '0;
        digest_q <= '0;
        keep_q <= keep;
        if (drop) begin
          sequence_q <= sequence_q + 32'd1;
          drops_q <= drops_q + 32'd1;
        end
      end else if (give_up) begin
        // As the end of a runt without a stamp: the engine forgets it, nothing is kept.
        judging_q <= 1'b1;
        give_up_q <= 1'b1;
        end_q <= '{frame: 1'b1, default: '0};
        frame_q <= 1'b1;
        runt_q <= 1'b1;
      end else if (end_now) begin
        judging_q <= 1'b1;
        end_q <= frame_end;
        frame_q <= frame_end.frame;
        stamped_q <= stamp_valid_i;
        runt_q <= frame_end.length < 24'd64;
        limit_q <= 24'(limit_i) + {20'b0, frame_end.tags, 2'b00};
        cut_q <= payload > 24'(8 * MaxStoredWords);
        caplen_q <= payload > 24'(8 * MaxStoredWords) ? 16'(8 * MaxStoredWords) : payload[15:0];
        payload_q <= payload[15:0];
        needed_q <= needed;
        stamp_q <= stamp_q32_i;
        stamp_epoch_q <= stamp_epoch_i;
      end else if (valid_i && ready_o && !entry_i.is_end) begin
        open_q <= 1'b1;
        if (!store_i) skip_q <= 1'b1;
        if (words_q < 11'(MaxStoredWords) && !full_q) begin
          if (no_room_q) full_q <= 1'b1;
          else words_q <= words_q + 11'd1;
        end
      end
    end
  end

  assign committed_o = committed_q;
  assign drops_o = drops_q;
endmodule
