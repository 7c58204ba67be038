// SPDX-License-Identifier: Apache-2.0
// The duplicate window (docs/hdl-dedup.md): is this frame a copy of one of the last 2^DepthLog2 - 1 before it?
//
// Frame i is a duplicate when some earlier frame j with the same digest has j > i - count_i (count), and
// t_j <= t_i and no frame k with j <= k < i has t_i - t_k > T (time); with both windows one j must meet both.
// Exact for stamps in any order. What it takes (twinstamp_kernels' key_table.h does the same):
//   ring   the last 2^DepthLog2 frames: digest, stamp, links. A link is a frame's number modulo twice that.
//   heads  by the digest's lowest bits: the latest frame there. next: a bucket's frames, latest first, each
//          digest once, by its latest frame. All that lie behind a frame that has left the ring have left it too.
//   down   the latest earlier frame of the same digest whose stamp is not later. The frames between have later
//          stamps than a later frame, and will never be the answer: one step for each is all they cost.
//   cover  of frames in the order of the ring, the last one whose stamp is earlier; once a frame with no later
//          stamp has followed, that frame. So the least stamp since frame j stands at the end of j's covers;
//          each port's stamps rise, so there are at most as many covers as ports (and card times).
// A frame's number comes round after twice the ring: heads that point out of it are struck out, one with each
// frame, in time.
//
// Clock: the core clock. Memories have two cycles of latency. A verdict (done_o for one cycle) takes 5 cycles
// for an empty bucket, and 3 for each frame of another digest there (one on average in a full ring); 3 or 4
// cycles later the next frame can come. Stamps that run backwards cost 4 cycles for each frame that they step
// over, at most one for each frame that came, whenever that is.
// Back-pressure: ready_o. Nothing is ever left out; cycles_o is the most that a frame has taken.
// low_i: t - T, not below 0; ignored without by_time_i. count_i at most 2^DepthLog2.
// Configuration changes while flush_i, which forgets all frames (2^DepthLog2 cycles, once).
// DepthLog2: 5 to 16.
module duplicate_window #(
  parameter int unsigned DepthLog2 = 13,
  parameter int unsigned TimeBits = 62
) (
  input  logic                 clk_i,
  input  logic                 rst_ni,
  input  logic                 flush_i,
  input  logic                 by_time_i,
  input  logic                 by_count_i,
  input  logic [DepthLog2:0]   count_i,

  input  logic                 valid_i,
  output logic                 ready_o,
  input  logic [63:0]          digest_i,
  input  logic [TimeBits-1:0]  time_i,
  input  logic [TimeBits-1:0]  low_i,
  output logic                 done_o,
  output logic                 duplicate_o,
  output logic                 limit_o,     // pulse: a time window was cut by the ring's end
  output logic [15:0]          cycles_o
);
  if (DepthLog2 < 5 || DepthLog2 > 16) $fatal(1, "duplicate_window: DepthLog2 must be 5 to 16");
  localparam int unsigned L = DepthLog2;
  localparam int unsigned TagBits = 64 - L;
  typedef logic [L:0] link_t;
  typedef logic [TimeBits-1:0] stamp_t;

  typedef enum logic [3:0] {
    StSweep, StIdle, StHead0, StHead1, StHead2, StRead0, StRead1, StRead2, StAct, StPop, StWrite
  } state_e;
  typedef enum logic [2:0] {MdChain, MdDown, MdCover, MdPop, MdLimit} mode_e;
  state_e state_q;
  mode_e  mode_q;

  // A link's age: it points into the ring where it is 1 to 2^L - 1.
  function automatic logic inside_ring(input link_t age);
    return !age[L] && age != '0;
  endfunction

  // The frame under way.
  link_t  index_q;          // its number
  logic   full_q;           // there were 2^L before it
  logic [TagBits-1:0] tag_q;
  logic [L-1:0] bucket_q;
  stamp_t time_q, low_q;
  link_t  none;             // points out of the ring, now and as long as this frame is in it
  assign none = {~index_q[L], index_q[L-1:0]};

  // Memories, two cycles each.
  link_t heads [2**L];
  link_t nexts [2**L];
  link_t downs [2**L];
  logic [L+1:0] covers [2**L];   // top bit: a later frame, which covers this one; else an earlier one
  logic [TagBits-1:0] tags [2**L];
  stamp_t times [2**L];

  logic         head_read_q, head_read2_q, head_write;
  logic [L-1:0] head_at_q, head_write_at;
  link_t        head1_q, head2_q, head_write_data;
  logic         read_q, read2_q;
  link_t        at_q;            // of the node read
  link_t        next1_q, next2_q, down1_q, down2_q;
  logic [L+1:0] cover1_q, cover2_q;
  logic [TagBits-1:0] tag1_q, tag2_q;
  stamp_t       time1_q, time2_q;
  logic         next_write, cover_write, node_write;
  logic [L-1:0] next_write_at, cover_write_at;
  link_t        next_write_data;
  logic [L+1:0] cover_write_data;
  link_t        down_data_q;
  always_ff @(posedge clk_i) begin
    if (head_read_q) head1_q <= heads[head_at_q];
    if (head_read2_q) head2_q <= head1_q;
    if (head_write) heads[head_write_at] <= head_write_data;
    if (read_q) begin
      next1_q <= nexts[at_q[L-1:0]];
      down1_q <= downs[at_q[L-1:0]];
      cover1_q <= covers[at_q[L-1:0]];
      tag1_q <= tags[at_q[L-1:0]];
      time1_q <= times[at_q[L-1:0]];
    end
    if (read2_q) begin
      next2_q <= next1_q;
      down2_q <= down1_q;
      cover2_q <= cover1_q;
      tag2_q <= tag1_q;
      time2_q <= time1_q;
    end
    if (next_write) nexts[next_write_at] <= next_write_data;
    if (cover_write) covers[cover_write_at] <= cover_write_data;
    if (node_write) begin
      downs[index_q[L-1:0]] <= down_data_q;
      tags[index_q[L-1:0]] <= tag_q;
      times[index_q[L-1:0]] <= time_q;
    end
  end

  // The node looked at: its age, and what its stamp says.
  link_t age_q, node_q, node_age_q;
  logic  hit_q, not_later_q, not_earlier_q, recent_q, in_count_q;
  // What becomes of the bucket's chain.
  link_t chain_first_q;     // its first link, none where that points out of the ring
  link_t found_next_q;      // of the digest's latest frame, which leaves the chain
  logic [L-1:0] before_q;   // the one before it
  logic  found_q, at_front_q;
  // The last frame, from which covers are popped.
  logic  last_q, pop_q;
  stamp_t last_time_q;
  link_t last_cover_q, cover_data_q;
  // The time window's reach.
  logic  oldest_q, limit_q;  // the oldest frame is looked at; it is not too old
  link_t limit_at_q;
  logic  limit_covered_q, walk_limit;
  assign walk_limit = limit_q && limit_covered_q;
  // Heads to be struck out.
  logic [3:0] strike_q;
  link_t strike_age_q;
  logic  strike;
  logic [L-1:0] sweep_q;
  logic  clean_q, flush_q;
  logic [15:0] cycles_q;

  // A candidate: the latest frame of this digest with a stamp that is not later.
  logic candidate;
  assign candidate = state_q == StAct &&
      ((mode_q == MdChain && hit_q && (!by_time_i || not_later_q)) || (mode_q == MdDown && not_later_q));
  link_t next_link, down_link, cover_link;
  assign next_link = inside_ring(index_q - next2_q) ? next2_q : none;
  assign down_link = inside_ring(index_q - down2_q) ? down2_q : none;
  assign cover_link = cover2_q[L:0];

  assign strike = strike_q[3] && !inside_ring(strike_age_q);
  always_comb begin
    head_write = state_q == StSweep || strike || state_q == StWrite;
    head_write_at = state_q == StWrite ? bucket_q : index_q[L-1:0];
    head_write_data = state_q == StWrite ? index_q : none;
    if (state_q == StSweep) head_write_at = sweep_q;

    next_write = (state_q == StPop && found_q && !at_front_q) || state_q == StWrite;
    next_write_at = state_q == StWrite ? index_q[L-1:0] : before_q;
    next_write_data = state_q == StWrite ? (found_q && at_front_q ? found_next_q : chain_first_q)
                                         : found_next_q;

    cover_write = (state_q == StPop && pop_q && !walk_limit) || (state_q == StAct && mode_q == MdPop && not_earlier_q) ||
                  state_q == StWrite;
    cover_write_at = state_q == StWrite ? index_q[L-1:0]
                   : state_q == StPop   ? index_q[L-1:0] - L'(1) : node_q[L-1:0];
    cover_write_data = state_q == StWrite ? {1'b0, cover_data_q} : {1'b1, index_q};
    node_write = state_q == StWrite;
  end

  assign ready_o = state_q == StIdle && !flush_i;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= StIdle;
      mode_q <= MdChain;
      index_q <= '0;
      full_q <= 1'b0;
      tag_q <= '0;
      bucket_q <= '0;
      time_q <= '0;
      low_q <= '0;
      head_read_q <= 1'b0;
      head_read2_q <= 1'b0;
      head_at_q <= '0;
      read_q <= 1'b0;
      read2_q <= 1'b0;
      at_q <= '0;
      age_q <= '0;
      node_q <= '0;
      node_age_q <= '0;
      hit_q <= 1'b0;
      not_later_q <= 1'b0;
      not_earlier_q <= 1'b0;
      recent_q <= 1'b0;
      in_count_q <= 1'b0;
      chain_first_q <= '0;
      found_next_q <= '0;
      before_q <= '0;
      found_q <= 1'b0;
      at_front_q <= 1'b0;
      last_q <= 1'b0;
      pop_q <= 1'b0;
      last_time_q <= '0;
      last_cover_q <= '0;
      cover_data_q <= '0;
      down_data_q <= '0;
      oldest_q <= 1'b0;
      limit_q <= 1'b0;
      limit_at_q <= '0;
      limit_covered_q <= 1'b0;
      strike_q <= '0;
      strike_age_q <= '0;
      sweep_q <= '0;
      clean_q <= 1'b0;
      flush_q <= 1'b0;
      cycles_q <= '0;
      done_o <= 1'b0;
      duplicate_o <= 1'b0;
      limit_o <= 1'b0;
      cycles_o <= '0;
    end else begin
      done_o <= 1'b0;
      limit_o <= 1'b0;
      flush_q <= flush_i;
      head_read_q <= 1'b0;
      head_read2_q <= head_read_q;
      read_q <= 1'b0;
      read2_q <= read_q;
      strike_q <= {strike_q[2:0], 1'b0};
      strike_age_q <= index_q - head2_q;
      if (state_q != StIdle && state_q != StSweep && cycles_q != '1) cycles_q <= cycles_q + 16'd1;

      unique case (state_q)
        StSweep: begin
          sweep_q <= sweep_q + L'(1);
          cycles_o <= '0;
          if (sweep_q == '1) begin
            clean_q <= 1'b1;
            state_q <= StIdle;
          end
        end

        StIdle: begin
          if (flush_q && !flush_i) cycles_o <= '0;
          else if (cycles_q > cycles_o) cycles_o <= cycles_q;
          cycles_q <= 16'd1;
          if (flush_i) begin
            index_q <= '0;
            full_q <= 1'b0;
            last_q <= 1'b0;
            cycles_q <= '0;
            if (!clean_q) state_q <= StSweep;
          end else if (valid_i) begin
            clean_q <= 1'b0;
            {tag_q, bucket_q} <= digest_i;
            time_q <= time_i;
            low_q <= low_i;
            head_at_q <= digest_i[L-1:0];
            head_read_q <= 1'b1;
            // The oldest frame of the ring, for the time window's reach.
            oldest_q <= by_time_i && !by_count_i && full_q;
            at_q <= index_q + (L+1)'(1);
            read_q <= by_time_i && !by_count_i && full_q;
            state_q <= StHead0;
          end
        end

        StHead0: begin
          head_at_q <= index_q[L-1:0];   // to be struck out, perhaps
          head_read_q <= 1'b1;
          strike_q[0] <= 1'b1;
          found_q <= 1'b0;
          down_data_q <= none;
          mode_q <= MdChain;
          pop_q <= by_time_i && last_q && last_time_q >= time_q;
          state_q <= StHead1;
        end
        StHead1: state_q <= StHead2;
        StHead2: begin
          at_q <= head2_q;
          age_q <= index_q - head2_q;
          read_q <= 1'b1;
          at_front_q <= 1'b1;
          limit_q <= oldest_q && time2_q >= low_q;
          limit_covered_q <= cover2_q[L+1];
          limit_at_q <= cover_link;
          state_q <= StRead0;
        end

        // A node is on its way, where at_q points into the ring; covers always do.
        StRead0: begin
          if (mode_q == MdChain) chain_first_q <= inside_ring(age_q) ? at_q : none;
          if (mode_q == MdPop) cover_data_q <= inside_ring(age_q) ? at_q : none;
          state_q <= StRead1;
          if (!inside_ring(age_q)) begin
            read2_q <= 1'b0;
            if (mode_q == MdPop) state_q <= StWrite;
            else begin
              done_o <= 1'b1;
              duplicate_o <= 1'b0;
              state_q <= StPop;
            end
          end
        end
        StRead1: begin
          node_q <= at_q;
          node_age_q <= age_q;
          state_q <= StRead2;
        end
        StRead2: begin
          hit_q <= tag2_q == tag_q;
          not_later_q <= time2_q <= time_q;
          not_earlier_q <= time2_q >= time_q;
          recent_q <= time2_q >= low_q;
          in_count_q <= !by_count_i || node_age_q < count_i;
          // The next of the chain is fetched before it is known to be needed.
          if (mode_q == MdChain) begin
            at_q <= next2_q;
            age_q <= index_q - next2_q;
            read_q <= 1'b1;
          end
          state_q <= StAct;
        end

        StAct: begin
          state_q <= StRead0;
          if (mode_q == MdChain && hit_q) begin
            found_q <= 1'b1;
            found_next_q <= next_link;
            read2_q <= 1'b0;
          end
          if (candidate) begin
            down_data_q <= node_q;
            // The least stamp since the candidate is its own where nothing covers it.
            if (in_count_q && by_time_i && recent_q && cover2_q[L+1]) begin
              mode_q <= MdCover;
              at_q <= cover_link;
              age_q <= index_q - cover_link;
              read_q <= 1'b1;
            end else begin
              done_o <= 1'b1;
              duplicate_o <= in_count_q && (!by_time_i || recent_q);
              state_q <= StPop;
            end
          end else unique case (mode_q)
            MdChain: if (hit_q) begin
              mode_q <= MdDown;
              at_q <= down_link;
              age_q <= index_q - down_link;
              read_q <= 1'b1;
            end else begin
              before_q <= node_q[L-1:0];
              at_front_q <= 1'b0;
              if (inside_ring(age_q)) state_q <= StRead1;
              else begin
                read2_q <= 1'b0;
                done_o <= 1'b1;
                duplicate_o <= 1'b0;
                state_q <= StPop;
              end
            end
            MdDown: begin
              at_q <= down_link;
              age_q <= index_q - down_link;
              read_q <= 1'b1;
            end
            MdCover: if (recent_q && cover2_q[L+1]) begin
              at_q <= cover_link;
              age_q <= index_q - cover_link;
              read_q <= 1'b1;
            end else begin
              done_o <= 1'b1;
              duplicate_o <= recent_q;
              state_q <= StPop;
            end
            MdPop: if (not_earlier_q) begin
              at_q <= cover_link;
              age_q <= index_q - cover_link;
              read_q <= 1'b1;
            end else state_q <= StWrite;
            default: if (recent_q && cover2_q[L+1]) begin  // MdLimit
              at_q <= cover_link;
              age_q <= index_q - cover_link;
              read_q <= 1'b1;
            end else begin
              limit_q <= recent_q;
              limit_covered_q <= 1'b0;
              state_q <= StPop;
            end
          endcase
        end

        // The verdict is out. Where the oldest frame is covered, its covers say whether the ring's end cut the
        // time window; then the frames that this one covers.
        StPop: begin
          read_q <= walk_limit || pop_q;
          if (walk_limit) begin
            mode_q <= MdLimit;
            at_q <= limit_at_q;
            age_q <= index_q - limit_at_q;
            state_q <= StRead0;
          end else if (pop_q) begin
            mode_q <= MdPop;
            at_q <= last_cover_q;
            age_q <= index_q - last_cover_q;
            state_q <= StRead0;
          end else begin
            cover_data_q <= last_q ? index_q - (L+1)'(1) : none;
            state_q <= StWrite;
          end
        end

        StWrite: begin
          limit_o <= limit_q;
          last_q <= 1'b1;
          last_time_q <= time_q;
          last_cover_q <= cover_data_q;
          index_q <= index_q + (L+1)'(1);
          if (index_q[L-1:0] == '1) full_q <= 1'b1;
          state_q <= StIdle;
        end

        default: state_q <= StIdle;
      endcase
    end
  end
endmodule
