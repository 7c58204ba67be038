// SPDX-License-Identifier: Apache-2.0
// Packs the ports' records into blocks of a single-producer single-consumer ring in host memory.
//
// Clock: the core clock. Sources (the ports' frame stores, departure stamps) are
// served in turn, a record each. A block (docs/card.md) is filled from
// behind its 64-byte header; it closes when the next record does not fit, when its time-out has passed, on
// flush_i, when the time-epoch changes and when the ring is disabled. Then the header is written, and after
// the memory has acknowledged every write of the block producer_o moves.
// Back-pressure and overflow: with no free block, or a memory that stalls, records stay in the frame stores,
// which drop whole frames when full. After enable_i falls, records for which there is no block are
// discarded, each with a pulse of discard_o, so that the ring always comes to rest.
// error_o stays until enable_i falls: memory refused a write; nothing is handed over any more.
// base_i, size_log2_i and count_log2_i are taken over when the ring starts: nothing is ever written outside the
// ring that was valid then.
module block_packer
  import twinstamp_pkg::*;
#(
  parameter int unsigned Ports = 4,
  parameter int unsigned Sources = 5,   // frame stores of the ports, then others
  parameter int unsigned StoreLog2 = 15,
  parameter int unsigned WriterLog2 = 6,  // words that wait for the bus, 4 to 8
  // Cycles, log2, from the last that a store may keep to the last that it makes visible: a frame's end waits for
  // its digest and flow hash, 82 cycles at most (frame_digest).
  parameter int unsigned SettleLog2 = 8
) (
  input  logic        clk_i,
  input  logic        rst_ni,

  input  logic        enable_i,
  input  logic        flush_i,
  input  logic [63:0] base_i,
  input  logic [4:0]  size_log2_i,
  input  logic [3:0]  count_log2_i,
  input  logic [31:0] timeout_i,
  input  logic [31:0] consumer_i,
  output logic [31:0] producer_o,
  output logic        error_o,
  output logic        bad_shape_o,
  output logic        idle_o,
  output logic        store_o,        // frame stores may keep frames

  input  logic [63:0] now_q32_i,
  input  logic [31:0] epoch_i,
  input  logic [31:0] bound_ns_i,
  input  utc_t        utc_i,
  input  logic [3:0]  servo_i,        // state in 2:0, disciplined in 3
  input  logic        locked_i,
  input  logic        slewing_i,
  input  logic [31:0] drops_i [Ports],

  input  logic [StoreLog2-3:0] committed_i [Sources],
  output logic [StoreLog2-3:0] taken_o [Sources],
  output logic [Sources-1:0]   read_o,
  output logic [StoreLog2-4:0] read_address_o,
  input  logic [63:0]          read_data_i [Sources],
  output logic [Sources-1:0]   discard_o,

  // Of record_judge, which offers one record at a time: others are still to come, and the one offered is a
  // duplicate, to be marked or dropped (a pulse of duplicate_o).
  input  logic                 more_i,
  input  logic                 mark_i,
  input  logic                 drop_i,
  output logic [Sources-1:0]   duplicate_o,

  output logic        awvalid,
  input  logic        awready,
  output logic [63:0] awaddr,
  output logic [7:0]  awlen,
  output logic        wvalid,
  input  logic        wready,
  output logic [63:0] wdata,
  output logic        wlast,
  input  logic        bvalid,
  output logic        bready,
  input  logic [1:0]  bresp
);
  if (Ports < 1 || Ports > 4) $fatal(1, "block_packer: Ports must be 1 to 4 (the block header has room for 4)");
  if (WriterLog2 < 4 || WriterLog2 > 8) $fatal(1, "block_packer: WriterLog2 must be 4 to 8");
  localparam int unsigned A = StoreLog2 - 3;
  localparam int unsigned PortBits = Sources > 1 ? $clog2(Sources) : 1;

  typedef enum logic [3:0] {
    StOff, StSettle, StIdle, StPeek, StWeigh, StJudge, StCopy, StDrain, StHeadSet, StHead, StHeadDrain, StMark,
    StFault
  } state_e;
  state_e state_q;

  logic [PortBits-1:0] port_q;
  logic [A:0] taken_q [Sources];
  logic [Sources-1:0] waiting;
  for (genvar p = 0; p < int'(Sources); p++) begin : gen_waiting
    assign waiting[p] = committed_i[p] != taken_q[p];
    assign taken_o[p] = taken_q[p];
  end
  // The next port in turn, after port_q, that has a record.
  logic [PortBits-1:0] next_port;
  rr_pick #(.N(Sources)) u_turn (
    .last_i(port_q), .valid_i(state_q == StIdle ? waiting : '0), .next_o(next_port)
  );

  // Block under way.
  logic open_q;
  logic [31:0] opened_q, producer_q, records_q, epoch_q, timer_q;
  logic [19:0] place_q;       // next word within the block
  logic locked_q;             // at its opening
  logic [31:0] bound_q;       // the largest since its opening
  logic flush_q, error_q, bad_shape_q;
  logic [SettleLog2-1:0] settled_q;  // cycles since enable_i fell
  logic [63:12] base_q;
  logic [4:0] size_log2_q;
  logic [3:0] count_log2_q;
  // Where the block lies and whether it is free: in steps, all of them done when a record is judged, three cycles
  // after opened_q changed at the earliest (StSettle, StIdle, StPeek). The ring can only get more room meanwhile.
  logic [19:0] block_words_q;
  logic [63:0] block_address_q;
  logic [37:0] block_offset_q;
  logic [15:0] block_index_q;
  logic room_q, timed_q, expired;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      block_words_q <= '0;
      block_address_q <= '0;
      block_offset_q <= '0;
      block_index_q <= '0;
      {room_q, timed_q} <= '0;
    end else if (state_q != StOff) begin
      block_words_q <= 20'd1 << (size_log2_q - 5'd3);
      block_index_q <= 16'(opened_q & ((32'd1 << count_log2_q) - 32'd1));
      block_offset_q <= 38'(block_index_q) << size_log2_q;
      block_address_q <= {base_q, 12'b0} + 64'(block_offset_q);
      room_q <= (opened_q - consumer_i) < (32'd1 << count_log2_q);
      timed_q <= open_q && timeout_i != '0 && timer_q >= timeout_i;
    end
  end
  assign expired = open_q && (flush_q || timed_q || (!enable_i && waiting == '0 && !more_i));

  // Record under way.
  logic [63:0] head;
  assign head = read_data_i[port_q];
  logic [11:0] record_words, words_q, read_q;
  logic [7:0] record_epoch_q;
  assign record_words = 12'(RecordHeaderWords) + 12'((head[15:0] + 16'd7) >> 3);
  logic [A-1:0] start;
  assign start = taken_q[port_q][A-1:0];

  // Stream to memory.
  logic s_set, s_valid, s_flush, s_empty, s_error;
  logic [63:0] s_address, s_data;
  logic [WriterLog2:0] s_room;
  logic [31:0] issued, acked;
  logic data_valid_q;         // a word read last cycle
  logic first_q;              // it is the record's first
  logic read_now;
  assign read_now = state_q == StPeek || (state_q == StCopy && read_q < words_q && s_room > (WriterLog2+1)'(4));
  always_comb begin
    read_o = '0;
    read_o[port_q] = read_now;
  end
  assign read_address_o = start + (state_q == StCopy ? A'(read_q) : '0);

  logic [3:0] head_q;
  logic [63:0] head_word;
  logic [31:0] drops [4];
  for (genvar p = 0; p < 4; p++) begin : gen_drops
    if (p < Ports) assign drops[p] = drops_i[p];
    else assign drops[p] = '0;
  end
  always_comb begin
    unique case (head_q[2:0])
      3'd0: head_word = {16'(8 * BlockHeaderWords), 16'd1, 32'h31425354};  // "TSB1"
      3'd1: head_word = {32'b0, opened_q};
      3'd2: head_word = {records_q, 9'b0, place_q, 3'b000};
      3'd3: head_word = now_q32_i;
      3'd4: head_word = {4'b0, servo_i, 2'b0, utc_i.leap, utc_i.valid, slewing_i, locked_q, locked_i, utc_i.s, bound_q};
      3'd5: head_word = {utc_i.leap_at, epoch_q};
      3'd6: head_word = {drops[1], drops[0]};
      default: head_word = {drops[3], drops[2]};
    endcase
  end

  assign s_valid = state_q == StHead || (state_q == StCopy && data_valid_q);
  logic [63:0] mark;
  assign mark = 64'(first_q && mark_i) << (48 + FlagDuplicate);
  assign s_data = state_q == StHead ? head_word : head | mark;
  assign s_flush = state_q == StDrain || state_q == StHeadDrain || state_q == StFault;
  assign s_set = (state_q == StJudge && !open_q) || state_q == StHeadSet;
  assign s_address = state_q == StHeadSet ? block_address_q : block_address_q + 64'(8 * BlockHeaderWords);

  // Closed blocks whose writes are not all acknowledged.
  logic [31:0] marks [4];
  logic [2:0] mark_w_q, mark_r_q;
  logic marks_full, marks_any;
  assign marks_full = mark_w_q == {~mark_r_q[2], mark_r_q[1:0]};
  assign marks_any = mark_w_q != mark_r_q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= StOff;
      port_q <= '0;
      for (int p = 0; p < int'(Sources); p++) taken_q[p] <= '0;
      open_q <= 1'b0;
      base_q <= '0;
      size_log2_q <= 5'd14;
      count_log2_q <= 4'd1;
      opened_q <= '0;
      producer_q <= '0;
      records_q <= '0;
      epoch_q <= '0;
      timer_q <= '0;
      place_q <= '0;
      locked_q <= 1'b0;
      bound_q <= '0;
      flush_q <= 1'b0;
      settled_q <= '0;
      error_q <= 1'b0;
      bad_shape_q <= 1'b0;
      words_q <= '0;
      record_epoch_q <= '0;
      read_q <= '0;
      data_valid_q <= 1'b0;
      head_q <= '0;
      mark_w_q <= '0;
      mark_r_q <= '0;
      discard_o <= '0;
      duplicate_o <= '0;
      first_q <= 1'b0;
    end else begin
      discard_o <= '0;
      duplicate_o <= '0;
      if (state_q == StJudge || data_valid_q) first_q <= state_q == StJudge;
      data_valid_q <= read_now && state_q == StCopy;
      timer_q <= open_q ? timer_q + 32'd1 : '0;
      if (!open_q || bound_ns_i > bound_q) bound_q <= bound_ns_i;
      // A frame store may still be finishing a record when enable_i falls.
      settled_q <= enable_i ? '0 : settled_q + SettleLog2'(settled_q != '1);
      if (flush_i) flush_q <= 1'b1;
      if (s_error) error_q <= 1'b1;
      if (marks_any && !error_q && acked - marks[mark_r_q[1:0]] < 32'h80000000) begin
        mark_r_q <= mark_r_q + 3'd1;
        producer_q <= producer_q + 32'd1;
      end

      unique case (state_q)
        StOff: begin
          flush_q <= 1'b0;
          error_q <= 1'b0;
          bad_shape_q <= 1'b0;
          if (enable_i) begin
            if (size_log2_i < 5'd14 || size_log2_i > 5'd22 || count_log2_i == '0 || base_i[11:0] != '0) begin
              bad_shape_q <= 1'b1;
            end else begin
              base_q <= base_i[63:12];
              size_log2_q <= size_log2_i;
              count_log2_q <= count_log2_i;
              opened_q <= '0;
              producer_q <= '0;
              state_q <= StSettle;
            end
          end
        end

        StSettle: state_q <= StIdle;

        StIdle: begin
          if (error_q && (enable_i || open_q)) state_q <= StFault;
          else if (expired) state_q <= StDrain;
          else if (waiting != '0 && (open_q || room_q || !enable_i)) begin
            port_q <= next_port;
            state_q <= StPeek;
          end else if (settled_q == '1 && (!marks_any || error_q) && !open_q && !more_i) state_q <= StOff;
          if (!open_q) flush_q <= 1'b0;
        end

        StPeek: state_q <= StWeigh;

        StWeigh: begin
          words_q <= record_words;
          record_epoch_q <= head[47:40];
          state_q <= StJudge;
        end

        StJudge: begin
          read_q <= '0;
          if (drop_i) begin
            taken_q[port_q] <= taken_q[port_q] + (A+1)'(words_q);
            duplicate_o[port_q] <= 1'b1;
            state_q <= StIdle;
          end else if (!open_q && (!room_q || error_q)) begin  // only when disabled, or after a fault
            taken_q[port_q] <= taken_q[port_q] + (A+1)'(words_q);
            discard_o[port_q] <= 1'b1;
            state_q <= StIdle;
          end else if (!open_q) begin
            open_q <= 1'b1;
            records_q <= '0;
            place_q <= 20'(BlockHeaderWords);
            locked_q <= locked_i;
            epoch_q <= epoch_i - {24'b0, epoch_i[7:0] - record_epoch_q};
            state_q <= StCopy;
          end else if (place_q + 20'(words_q) > block_words_q || record_epoch_q != epoch_q[7:0]) begin
            state_q <= StDrain;
          end else state_q <= StCopy;
        end

        StCopy: begin
          if (read_now) read_q <= read_q + 12'd1;
          if (data_valid_q) place_q <= place_q + 20'd1;
          if (read_q == words_q && !read_now) begin  // the last word leaves now
            taken_q[port_q] <= taken_q[port_q] + (A+1)'(words_q);
            records_q <= records_q + 32'd1;
            state_q <= StIdle;
          end
        end

        StDrain: if (s_empty) state_q <= StHeadSet;
        StHeadSet: begin
          head_q <= '0;
          state_q <= StHead;
        end
        StHead: begin
          head_q <= head_q + 4'd1;
          if (head_q == 4'(BlockHeaderWords - 1)) state_q <= StHeadDrain;
        end
        StHeadDrain: if (s_empty) state_q <= StMark;
        StMark: if (error_q) state_q <= StFault;
        else if (!marks_full) begin
          mark_w_q <= mark_w_q + 3'd1;
          opened_q <= opened_q + 32'd1;
          open_q <= 1'b0;
          flush_q <= 1'b0;
          state_q <= StSettle;
        end

        StFault: if (!enable_i && s_empty && acked == issued) begin
          open_q <= 1'b0;
          mark_r_q <= mark_w_q;
          state_q <= StIdle;
        end

        default: state_q <= StOff;
      endcase
    end
  end
  always_ff @(posedge clk_i) begin
    if (state_q == StMark && !marks_full) marks[mark_w_q[1:0]] <= issued;
  end

  axi_stream_writer #(.DepthLog2(WriterLog2)) u_writer (
    .clk_i, .rst_ni,
    .address_set_i(s_set), .address_i(s_address),
    .valid_i(s_valid), .data_i(s_data), .ready_o()  /* s_room says it earlier */, .room_o(s_room),
    .flush_i(s_flush), .empty_o(s_empty),
    .issued_o(issued), .acked_o(acked), .error_o(s_error),
    .awvalid, .awready, .awaddr, .awlen, .wvalid, .wready, .wdata, .wlast, .bvalid, .bready, .bresp
  );

  assign producer_o = producer_q;
  assign error_o = error_q;
  assign bad_shape_o = bad_shape_q;
  assign idle_o = state_q == StOff;
  // A register: it goes to every store's judgement, across the die.
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) store_o <= 1'b0;
    else store_o <= enable_i && state_q != StOff && state_q != StFault;
  end
endmodule
