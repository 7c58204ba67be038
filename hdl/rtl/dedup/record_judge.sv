// SPDX-License-Identifier: Apache-2.0
// Takes the sources' records in turn, has the duplicate window judge them in that order, and offers them to the
// packer one at a time, in that order: the window's order is the ring's.
//
// Clock: the core clock. Between the sources' stores and block_packer; reads a record's header (three words)
// from its store in cycles in which the packer does not read there (twinstamp_card multiplexes). While the packer copies
// a record the next one is judged and the one after that is read, so a record costs the packer one cycle more. A
// record is offered about 30 cycles after its store has finished it.
// Back-pressure: records wait in their stores, which drop whole frames when full. With active_o low the
// integrator passes everything as if this block were not there, and the packer takes the sources in turn.
// Judged are the records of the first Ports sources but runts, which have no digest. Their order and the
// window's state do not depend on what becomes of them.
// Configuration is taken over while idle_i (the ring is off), and the window is empty when the ring starts.
// ReadCycles: of the stores, 1 to 4.
module record_judge
  import twinstamp_pkg::*;
#(
  parameter int unsigned Ports = 4,
  parameter int unsigned Sources = 5,
  parameter int unsigned StoreLog2 = 15,
  parameter int unsigned WindowLog2 = 13,
  parameter int unsigned ReadCycles = 1
) (
  input  logic        clk_i,
  input  logic        rst_ni,

  input  logic        idle_i,
  input  logic        enable_i,
  input  logic        drop_duplicates_i,
  input  logic        by_count_i,
  input  logic [WindowLog2:0] count_i,
  input  logic        by_time_i,
  input  logic [61:0] window_ns_i,
  input  logic [31:0] constant_q32_i [Ports],
  output logic        active_o,
  output logic [31:0] judged_o,       // since the ring was enabled
  output logic [31:0] duplicates_o,
  output logic [31:0] limited_o,      // time windows that the window's size cut
  output logic [15:0] cycles_o,       // the most that a frame has taken in the window

  // The stores.
  input  logic [StoreLog2-3:0] committed_i [Sources],
  output logic [Sources-1:0]   read_o,
  output logic [StoreLog2-4:0] read_address_o,
  input  logic [63:0]          read_data_i [Sources],

  // The packer.
  output logic [StoreLog2-3:0] offered_o [Sources],
  output logic                 more_o,          // there are records that are not offered yet
  output logic                 duplicate_o,     // the one offered is a duplicate
  output logic                 drop_o,          // and is to be dropped
  input  logic [StoreLog2-3:0] taken_i [Sources],
  input  logic [Sources-1:0]   read_i           // stores that the packer reads
);
  if (ReadCycles < 1 || ReadCycles > 4) $fatal(1, "record_judge: ReadCycles must be 1 to 4");
  localparam int unsigned A = StoreLog2 - 3;
  localparam int unsigned PortBits = Sources > 1 ? $clog2(Sources) : 1;

  logic active_q, was_idle_q, drop_q, by_count_q, by_time_q;
  logic [WindowLog2:0] count_q;
  logic [61:0] window_ns_q;

  // Up to where records have been read for the window, and offered to the packer.
  logic [A:0] seen_q [Sources];
  logic [A:0] offered_q [Sources];
  logic [Sources-1:0] unseen_q, untaken, unoffered;
  for (genvar s = 0; s < int'(Sources); s++) begin : gen_source
    assign untaken[s] = taken_i[s] != offered_q[s];
    assign unoffered[s] = committed_i[s] != offered_q[s];
    assign offered_o[s] = offered_q[s];
  end

  // Reading: 0, 1 and 3 of a header's words.
  typedef enum logic [2:0] {RdPick, RdWord0, RdWord1, RdWord3, RdWait, RdHand, RdNext} read_e;
  read_e read_q;
  logic [PortBits-1:0] source_q, next_source;
  logic [A-1:0] address_q;
  logic reads, granted;
  logic [Sources-1:0] source_mask;
  assign source_mask = Sources'(1) << source_q;
  assign reads = active_q && (read_q == RdWord0 || read_q == RdWord1 || read_q == RdWord3);
  assign granted = reads && !read_i[source_q];
  assign read_o = reads ? source_mask : '0;
  assign read_address_o = address_q;
  rr_pick #(.N(Sources)) u_turn (.last_i(source_q), .valid_i(unseen_q), .next_o(next_source));

  // Words on their way from the store, and what they say.
  logic [ReadCycles:1] coming_q;
  logic [1:0] word_q;
  logic [63:0] data;
  logic [11:0] words_q;
  logic        plain_q;     // takes no part
  logic [63:0] stamp_q, digest_q;
  logic [31:0] constant_q;
  assign data = read_data_i[source_q];

  // Converting, judging: the record at each stage.
  logic hand, stamp_ready, stamp_valid, stamp_take;
  logic [61:0] time_ns, low_ns;
  logic convert_q, convert_plain_q;
  logic [PortBits-1:0] convert_source_q, judge_source_q;
  logic [11:0] convert_words_q, judge_words_q;
  logic [63:0] convert_digest_q;
  logic judge_q, judge_wait_q, verdict_q;   // a record is here; its verdict is to come, or is this
  logic window_ready, window_take, window_done, window_duplicate, window_limit, judge_free, offer_now;
  assign hand = read_q == RdHand && !convert_q && stamp_ready;
  assign judge_free = !judge_q;
  assign stamp_take = convert_q && judge_free && (convert_plain_q || (stamp_valid && window_ready));
  assign window_take = stamp_take && !convert_plain_q;

  stamp_ns u_stamp (
    .clk_i, .rst_ni, .valid_i(hand && !plain_q), .ready_o(stamp_ready), .q32_i(stamp_q), .constant_q32_i(constant_q),
    .window_ns_i(window_ns_q), .valid_o(stamp_valid), .ready_i(stamp_take), .time_o(time_ns), .low_o(low_ns)
  );
  duplicate_window #(.DepthLog2(WindowLog2)) u_window (
    .clk_i, .rst_ni, .flush_i(idle_i && enable_i), .by_time_i(by_time_q), .by_count_i(by_count_q),
    .count_i(count_q), .valid_i(window_take), .ready_o(window_ready), .digest_i(convert_digest_q),
    .time_i(time_ns), .low_i(low_ns), .done_o(window_done), .duplicate_o(window_duplicate),
    .limit_o(window_limit), .cycles_o
  );

  // Offering: only when the packer has taken what was offered before.
  assign offer_now = judge_q && !judge_wait_q && untaken == '0;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      active_q <= 1'b0;
      was_idle_q <= 1'b1;
      drop_q <= 1'b0;
      by_count_q <= 1'b0;
      by_time_q <= 1'b0;
      count_q <= '0;
      window_ns_q <= '0;
      for (int s = 0; s < int'(Sources); s++) begin
        seen_q[s] <= '0;
        offered_q[s] <= '0;
      end
      unseen_q <= '0;
      read_q <= RdPick;
      source_q <= '0;
      address_q <= '0;
      coming_q <= '0;
      word_q <= '0;
      words_q <= '0;
      plain_q <= 1'b0;
      stamp_q <= '0;
      digest_q <= '0;
      constant_q <= '0;
      convert_q <= 1'b0;
      convert_plain_q <= 1'b0;
      convert_source_q <= '0;
      convert_words_q <= '0;
      convert_digest_q <= '0;
      judge_q <= 1'b0;
      judge_wait_q <= 1'b0;
      judge_source_q <= '0;
      judge_words_q <= '0;
      verdict_q <= 1'b0;
      more_o <= 1'b0;
      duplicate_o <= 1'b0;
      drop_o <= 1'b0;
      judged_o <= '0;
      duplicates_o <= '0;
      limited_o <= '0;
    end else begin
      more_o <= active_q && unoffered != '0;
      was_idle_q <= idle_i && enable_i;
      if (idle_i) begin
        active_q <= enable_i;
        if (enable_i) begin
          drop_q <= drop_duplicates_i;
          by_count_q <= by_count_i;
          by_time_q <= by_time_i;
          count_q <= count_i;
          window_ns_q <= window_ns_i;
          for (int s = 0; s < int'(Sources); s++) begin
            seen_q[s] <= taken_i[s];
            offered_q[s] <= taken_i[s];
          end
        end
        unseen_q <= '0;
        duplicate_o <= 1'b0;
        drop_o <= 1'b0;
      end else if (active_q) begin
        for (int s = 0; s < int'(Sources); s++) unseen_q[s] <= committed_i[s] != seen_q[s];

        // Reading.
        coming_q <= ReadCycles'({coming_q, granted});
        unique case (read_q)
          RdPick: if (unseen_q != '0) begin
            source_q <= next_source;
            address_q <= seen_q[next_source][A-1:0];
            word_q <= '0;
            read_q <= RdWord0;
          end
          RdWord0: if (granted) begin
            address_q <= address_q + A'(1);
            read_q <= RdWord1;
          end
          RdWord1: if (granted) begin
            address_q <= address_q + A'(2);
            read_q <= RdWord3;
          end
          RdWord3: if (granted) read_q <= RdWait;
          RdWait: if (coming_q[ReadCycles] && word_q == 2'd2) read_q <= RdHand;
          RdHand: if (hand) begin
            seen_q[source_q] <= seen_q[source_q] + (A+1)'(words_q);
            read_q <= RdNext;
          end
          default: read_q <= RdPick;  // unseen_q follows
        endcase
        if (coming_q[ReadCycles]) begin
          word_q <= word_q + 2'd1;
          unique case (word_q)
            2'd0: begin
              words_q <= 12'(RecordHeaderWords) + 12'((data[15:0] + 16'd7) >> 3);
              plain_q <= 32'(source_q) >= Ports || data[48 + FlagRunt] || data[48 + FlagTx];
            end
            2'd1: stamp_q <= data;
            default: digest_q <= data;
          endcase
        end
        for (int unsigned p = 0; p < Ports; p++) if (32'(source_q) == p) constant_q <= constant_q32_i[p];

        // Converting.
        if (stamp_take) convert_q <= 1'b0;
        if (hand) begin
          convert_q <= 1'b1;
          convert_plain_q <= plain_q;
          convert_source_q <= source_q;
          convert_words_q <= words_q;
          convert_digest_q <= digest_q;
        end

        // Judging.
        if (was_idle_q) begin
          judged_o <= '0;
          duplicates_o <= '0;
          limited_o <= '0;
        end
        if (window_done) begin
          judge_wait_q <= 1'b0;
          verdict_q <= window_duplicate;
          judged_o <= judged_o + 32'd1;
          if (window_duplicate) duplicates_o <= duplicates_o + 32'd1;
        end
        if (window_limit) limited_o <= limited_o + 32'd1;
        if (offer_now) judge_q <= 1'b0;
        if (stamp_take) begin
          judge_q <= 1'b1;
          judge_wait_q <= !convert_plain_q;
          judge_source_q <= convert_source_q;
          judge_words_q <= convert_words_q;
          verdict_q <= 1'b0;
        end

        // Offering.
        if (offer_now) begin
          offered_q[judge_source_q] <= offered_q[judge_source_q] + (A+1)'(judge_words_q);
          duplicate_o <= verdict_q && !drop_q;
          drop_o <= verdict_q && drop_q;
        end
      end
    end
  end
  assign active_o = active_q;

  // Simulation: nothing moves until it is enabled (tools/model_edges.py).
  logic asleep;
  assign asleep = !active_q && !enable_i && !more_o && !duplicate_o && !drop_o && !judge_q && !convert_q &&
                  read_q == RdPick && window_ready && stamp_ready;
endmodule
