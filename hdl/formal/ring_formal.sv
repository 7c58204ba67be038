// SPDX-License-Identifier: Apache-2.0
// block_packer with its axi_stream_writer, from any state on, blocks of every size: no write leaves the block that
// is open, whatever records come, the memory stalls or refuses, and the host writes to base and shape meanwhile;
// the FIFO never overflows; a block is opened only where the host gave it back, and no record is discarded while the
// ring is enabled and without a fault; a header says no more bytes than a block has. (That each word goes to its address, as it was put in, is proven of axi_stream_writer.)
//
// Free: everything but a record's length, which frame_store and departure_store keep within MaxStoredWords.
// ANY: no reset; the first state is any that the invariants allow. So a block that is nearly full is within reach.
module ring_formal
  import twinstamp_pkg::*;
(
  input logic        clk_i,
  input logic        enable_i,
  input logic        flush_i,
  input logic [63:0] base_i,
  input logic [4:0]  size_log2_i,
  input logic [3:0]  count_log2_i,
  input logic [31:0] timeout_i,
  input logic [31:0] consumer_i,
  input logic [11:0] committed_i [2],
  input logic [63:0] read_data_i [2],
  input logic [31:0] epoch_i,
  input logic        more_i,
  input logic        mark_i,
  input logic        drop_i,
  input logic        awready,
  input logic        wready,
  input logic        bvalid,
  input logic [1:0]  bresp
);
  localparam int unsigned WriterLog2 = 4;
`ifdef ANY
  logic rst_n = 1'b1;
`else
  logic rst_n = 1'b0;
`endif
  always_ff @(posedge clk_i) rst_n <= 1'b1;
  logic first_q = 1'b1;
  always_ff @(posedge clk_i) first_q <= 1'b0;

  logic awvalid, wvalid, wlast;
  logic [63:0] awaddr, wdata;
  logic [7:0] awlen;
  logic [31:0] producer;
  logic [1:0] discard;
  logic [31:0] drops [1];
  assign drops[0] = '0;
  block_packer #(.Ports(1), .Sources(2), .StoreLog2(14), .WriterLog2(WriterLog2), .SettleLog2(4)) u_packer (
    .clk_i, .rst_ni(rst_n), .enable_i, .flush_i, .base_i, .size_log2_i, .count_log2_i, .timeout_i, .consumer_i,
    .producer_o(producer), .error_o(), .bad_shape_o(), .idle_o(), .store_o(), .now_q32_i('0), .epoch_i,
    .bound_ns_i('0), .utc_i('0), .servo_i('0), .locked_i(1'b0), .slewing_i(1'b0), .drops_i(drops), .committed_i,
    .taken_o(), .read_o(), .read_address_o(), .read_data_i, .discard_o(discard), .more_i, .mark_i, .drop_i, .duplicate_o(),
    .awvalid, .awready, .awaddr, .awlen, .wvalid, .wready, .wdata, .wlast, .bvalid, .bready(), .bresp
  );

  // Names of block_packer's states.
  localparam logic [3:0] StOff = 0, StSettle = 1, StIdle = 2, StPeek = 3, StWeigh = 4, StJudge = 5, StCopy = 6,
                         StDrain = 7, StHeadSet = 8, StHead = 9, StHeadDrain = 10, StMark = 11, StFault = 12;
  logic [3:0] state;
  assign state = u_packer.state_q;
  logic [WriterLog2:0] level, left;
  assign level = u_packer.u_writer.level;
  assign left = (WriterLog2+1)'(u_packer.u_writer.left_q);
  logic [63:0] block, next, beat, place, size;
  logic [31:0] index;
  logic [19:0] words;          // of a block
  // The block that is open, or will be next, by the numbers that its address comes from.
  assign index = u_packer.opened_q & ((32'd1 << u_packer.count_log2_q) - 32'd1);
  assign block = {u_packer.base_q, 12'b0} + (64'(index) << u_packer.size_log2_q);
  assign size = 64'd1 << u_packer.size_log2_q;
  assign words = 20'd1 << (u_packer.size_log2_q - 5'd3);
  // Where the next word put in will go, and where the next beat on W goes.
  assign next = u_packer.u_writer.address_q + {{(61-WriterLog2-1){1'b0}}, (WriterLog2+1)'(level - left), 3'b000};
  assign beat = u_packer.u_writer.address_q - {{(61-WriterLog2-1){1'b0}}, left, 3'b000};
  assign place = {41'b0, u_packer.place_q, 3'b000};
  logic filling;
  assign filling = u_packer.open_q && (state == StIdle || state == StPeek || state == StWeigh || state == StJudge ||
                                       state == StCopy || state == StDrain);

  // Whether the ring has room for a block, now and in the two cycles before. The host moved its index on, not back.
  logic open_q, room, room_q, room_before_q, on, on_q;
  logic [31:0] consumer_q;
  assign room = u_packer.opened_q - consumer_i < 32'd1 << u_packer.count_log2_q;
  assign on = consumer_i - consumer_q <= u_packer.opened_q - consumer_q;
  // The record under way was begun while the ring was enabled, and the host only moved on since then.
  logic begun_q, kept_q;
  always_ff @(posedge clk_i) begin
    open_q <= u_packer.open_q;
    room_q <= room;
    room_before_q <= room_q;
    consumer_q <= consumer_i;
    on_q <= on;
    begun_q <= (state == StIdle ? enable_i : begun_q) && on;
    kept_q <= begun_q && !u_packer.error_q;
  end

  logic fine;
  always_comb begin
    fine = state <= StFault;
    if (state != StOff) begin
      fine = fine && u_packer.size_log2_q >= 5'd14 && u_packer.size_log2_q <= 5'd22 &&
             u_packer.count_log2_q != '0;
    end
    // Each step to the block's address is done when the next state reads it, all of them while a block is open.
    if (state != StOff && state != StSettle) begin
      fine = fine && u_packer.block_words_q == words && 32'(u_packer.block_index_q) == index;
      if ((state != StIdle && state != StFault) || u_packer.open_q) begin
        fine = fine && 64'(u_packer.block_offset_q) == 64'(index) << u_packer.size_log2_q;
        if (state != StPeek || u_packer.open_q) fine = fine && u_packer.block_address_q == block;
      end
    end
    // The packer's own look at the ring's room is one cycle old.
    if (state != StOff && state != StSettle) begin
      fine = fine && u_packer.room_q == room_q &&
             room_q == (u_packer.opened_q - consumer_q < 32'd1 << u_packer.count_log2_q);
    end
    if ((state == StPeek || state == StWeigh || state == StJudge) && begun_q && !u_packer.open_q) begin
      fine = fine && room_q;
    end
    // The writer: what it holds, the burst under way.
    fine = fine && level <= (WriterLog2+1)'(2**WriterLog2) && left <= level && u_packer.u_writer.left_q <= 5'd16;
    fine = fine && u_packer.u_writer.address_q[2:0] == '0 && u_packer.u_writer.awlen_q < 8'd16;
    // A burst that is measured begins in this cycle; empty_o and room_o are of the cycle before, yet empty_o holds
    // in its own: it is low after a word.
    if (u_packer.u_writer.start_q) begin
      fine = fine && left == '0 && !awvalid && u_packer.u_writer.beats_q != '0 &&
             u_packer.u_writer.beats_q <= 5'(level) && u_packer.u_writer.beats_q <= u_packer.u_writer.to_boundary;
    end
    if (u_packer.s_empty) fine = fine && level == '0 && left == '0 && !awvalid && !u_packer.u_writer.start_q;
    fine = fine && 6'(u_packer.s_room) + 6'(level) >= 6'(2**WriterLog2 - 1) &&
           6'(u_packer.s_room) + 6'(level) <= 6'(2**WriterLog2 + 1);
    if (awvalid) begin
      fine = fine && awaddr + {53'b0, awlen, 3'b000} + 64'd8 == u_packer.u_writer.address_q &&
             awaddr - block < size && {1'b0, awaddr[6:3]} + awlen[4:0] < 5'd16;
    end
    // Closed: nothing left, but in the fault.
    if (!u_packer.open_q) begin
      fine = fine && u_packer.s_empty && (state == StOff || state == StSettle || state == StIdle || state == StPeek ||
                                          state == StWeigh || state == StJudge || state == StFault);
    end
    if (state == StOff || state == StSettle) fine = fine && !u_packer.open_q;
    if (state == StHeadSet || state == StMark) fine = fine && u_packer.s_empty && u_packer.open_q;
    // The next word's address.
    if (u_packer.open_q) fine = fine && u_packer.u_writer.address_q - block <= size && next - block <= size;
    if (u_packer.open_q && level != '0) fine = fine && beat - block <= size && beat - block < next - block;
    if (filling) fine = fine && next == block + place && place <= size && u_packer.place_q >= 20'd8;
    if (state == StHead) begin
      fine = fine && u_packer.open_q && u_packer.head_q <= 4'd7 && next == block + {57'b0, u_packer.head_q[3:0], 3'b000} &&
             5'(level) <= 5'(u_packer.head_q);
    end
    if (state == StHeadDrain) fine = fine && u_packer.open_q && next == block + 64'd64 && level <= 5'd8;
    if (state == StHeadSet || state == StHead || state == StHeadDrain || state == StMark) begin
      fine = fine && place <= size;
    end
    // A record on its way fits.
    if (state == StJudge || state == StCopy) begin
      fine = fine && u_packer.words_q >= 12'd4 && u_packer.words_q <= 12'(MaxStoredWords + RecordHeaderWords);
    end
    if (state == StCopy) begin
      fine = fine && u_packer.open_q && u_packer.read_q <= u_packer.words_q &&
             (!u_packer.data_valid_q || u_packer.read_q != '0) &&
             20'(u_packer.words_q) - 20'(u_packer.read_q) + 20'(u_packer.data_valid_q) <=
                 words - u_packer.place_q &&
             u_packer.place_q <= words &&
             (!u_packer.data_valid_q || level < (WriterLog2+1)'(2**WriterLog2 - 1));
    end else fine = fine && !u_packer.data_valid_q;
    if (state == StDrain) fine = fine && u_packer.open_q;
  end

  logic full_q = 1'b0, exact_q = 1'b0, headed_q = 1'b0;
  logic [31:0] number_q;
  always_ff @(posedge clk_i) begin
    if (!headed_q) number_q <= u_packer.opened_q;
    if (state == StHeadDrain && level != '0) headed_q <= 1'b1;
    if (!exact_q && state == StJudge && u_packer.open_q && place + 64'd8 < size &&
        u_packer.place_q + 20'(u_packer.words_q) > words) full_q <= 1'b1;
    if (!full_q && state == StDrain && place == size) exact_q <= 1'b1;
  end

  always_comb begin
    // A record is no longer than frame_store makes it.
    assume (u_packer.head[15:0] <= 16'(8 * MaxStoredWords));
    // The solver is quick with one size at a time.
`ifdef SIZE
    assume (size_log2_i == 5'd`SIZE && base_i[63:24] == '0);
    if (state != StOff) assume (u_packer.size_log2_q == 5'd`SIZE && u_packer.base_q[63:24] == '0);
`endif
`ifdef ANY
    // Producer: behind the blocks that are closed by those that wait for their acknowledgements.
    if (first_q) assume (fine && producer == u_packer.opened_q - 32'(3'(u_packer.mark_w_q - u_packer.mark_r_q)));
`endif
    if (rst_n) begin
      assert (fine);
      // What docs/card.md promises, in terms of the bus only.
      if (awvalid) begin
        assert (awaddr - block < size);
        assert (awaddr + {53'b0, awlen, 3'b000} - block < size);
        assert ({1'b0, awaddr[11:3]} + {2'b0, awlen} < 10'd512);             // AXI4: within 4 KiB
      end
      if (wvalid) assert (beat - block < size);
      if (u_packer.s_valid) assert (u_packer.u_writer.ready_o);
      if (u_packer.open_q && !open_q && !first_q) begin
        assert (room_before_q);
        if (on_q) assert (room_q);
      end
      if (discard != '0 && !first_q) assert (!kept_q);  // only disabled or after a fault
      if (state == StHead && u_packer.head_q == 4'd2) assert (u_packer.s_data[31:0] <= size[31:0]);
    end
`ifdef ANY
    // A block that a record did not fit into gets its header, so does one that is filled to the last word; a
    // header that is written is acknowledged and the block handed over.
    cover (full_q && state == StHead && u_packer.head_q == 4'd1);
    cover (exact_q && state == StHead && u_packer.head_q == 4'd1);
    cover (headed_q && producer == number_q + 32'd1);
`endif
  end
endmodule
