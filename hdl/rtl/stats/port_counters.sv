// SPDX-License-Identifier: Apache-2.0
// One port's 64-bit counters, latched at an instant that all ports share.
//
// Clock: the core clock. An event adds to up to eight counters, one a cycle: a frame to six, counts of carrier events
// without one to two. Events wait in a queue of 16. gmii_rx keeps SFDs MinStampDistance (12) cycles apart, and
// entries of counts alone as far behind the last entry, so at most ten additions come in twelve cycles;
// frame_store can hold events up only for a few cycles, so the queue cannot overflow (overflow_o says for a
// cycle that it did: a fault).
// Additions go into one of two memories of differences. flip_i changes over to the other one at that very
// cycle; then the differences of the first are added to the totals, which the host reads, and cleared
// (busy_o meanwhile). flip_i is allowed only a cycle after ready_o. The first 32 cycles after reset clear everything.
module port_counters
  import twinstamp_pkg::*;
(
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic        event_i,
  input  rx_end_t     event_end_i,
  input  logic        event_giant_i,
  input  logic        event_stored_i,
  input  logic        event_dropped_i,
  input  logic        discard_i,
  input  logic        duplicate_i,   // dropped
  input  logic        sent_i,
  input  logic [15:0] sent_length_i,
  input  logic        sent_multicast_i,   // with sent_i; broadcast too
  input  logic        sent_broadcast_i,
  input  logic        sent_late_i,
  input  logic        flip_i,
  output logic        ready_o,
  output logic        busy_o,
  output logic        overflow_o,

  // Totals: counter number; data a cycle later.
  input  logic        read_i,
  input  logic [4:0]  read_address_i,
  output logic [63:0] read_data_o
);
  typedef struct packed {
    logic    bank;
    rx_end_t e;
    logic    giant;
    logic    stored;
    logic    dropped;
  } event_t;

  // Queue of events.
  event_t queue [16];
  logic [4:0] wptr_q, rptr_q;
  logic bank_q;
  // The event under way, out of the queue, with its class.
  event_t next, head_q;
  logic queued_q, waiting_q, full, noise_q, counts_q, runt_q, bad_q, good, last;
  logic [4:0] size_index, size_index_q;
  assign full = wptr_q == {~rptr_q[4], rptr_q[3:0]};
  assign next = queue[rptr_q[3:0]];
  always_ff @(posedge clk_i) begin
    if (event_i) begin
      queue[wptr_q[3:0]] <= '{bank: bank_q, e: event_end_i, giant: event_giant_i,
                              stored: event_stored_i, dropped: event_dropped_i};
    end
  end

  logic fetch;
  logic [4:0] level_q;                // of the queue
  assign fetch = queued_q && (!waiting_q || last);
  always_comb begin
    if (next.e.length <= 24'd64) size_index = 5'(CntSize64);
    else if (next.e.length <= 24'd127) size_index = 5'(CntSize127);
    else if (next.e.length <= 24'd255) size_index = 5'(CntSize255);
    else if (next.e.length <= 24'd511) size_index = 5'(CntSize511);
    else if (next.e.length <= 24'd1023) size_index = 5'(CntSize1023);
    else if (next.e.length <= 24'd1518) size_index = 5'(CntSize1518);
    else size_index = 5'(CntSizeLarger);
  end
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      waiting_q <= 1'b0;
      head_q <= '0;
      {noise_q, counts_q, runt_q, bad_q} <= '0;
      size_index_q <= '0;
    end else if (fetch) begin
      waiting_q <= 1'b1;
      head_q <= next;
      noise_q <= !next.e.frame;
      counts_q <= next.e.no_sfds != '0 || next.e.preamble_errors != '0;
      runt_q <= next.e.length < 24'd64;
      bad_q <= !next.e.fcs_ok || next.e.rx_er;
      size_index_q <= size_index;
    end else if (last) waiting_q <= 1'b0;
  end

  // What the event under way adds in this cycle.
  logic [2:0] slot_q;
  // What can wait is gathered, and picked, one kind after the other, for the cycles that events leave. Wide enough for
  // all that comes while the others have their turn.
  localparam int unsigned Kinds = 7;
  logic [Kinds-1:0] has_q, take;
  logic [19:0] sum_q [Kinds];
  logic pick_q, pick_now, picks;
  logic [4:0] pick_index, pick_index_q;
  logic [19:0] pick_amount, pick_amount_q;
  always_comb begin
    pick_now = pick_q && !waiting_q;
    picks = !pick_q || pick_now;
    take = '0;
    pick_index = '0;
    pick_amount = '0;
    for (int k = int'(Kinds) - 1; k >= 0; k--) begin
      if (has_q[k]) begin
        take = Kinds'(1) << k;
        pick_amount = sum_q[k];
        pick_index = k == 6 ? 5'(CntDuplicatesDropped) : k == 5 ? 5'(CntDiscarded) : 5'(CntTxFrames) + 5'(k);
      end
    end
    if (!picks) take = '0;
  end
  logic add;
  logic [4:0] index;
  logic [23:0] amount;
  assign good = !runt_q && !bad_q && !head_q.giant;
  assign last = waiting_q && slot_q == (noise_q ? 3'd1 : counts_q ? 3'd7 : 3'd5);
  always_comb begin
    add = 1'b1;
    amount = 24'd1;
    index = '0;
    if (!waiting_q) begin
      // What can wait, in the cycles that are left.
      index = pick_index_q;
      amount = 24'(pick_amount_q);
      add = pick_q;
    end else if (noise_q || slot_q[2:1] == 2'b11) begin
      index = slot_q[0] ? 5'(CntNoSfd) : 5'(CntPreambleErrors);
      amount = slot_q[0] ? 24'(head_q.e.no_sfds) : 24'(head_q.e.preamble_errors);
    end else begin
      unique case (slot_q)
        3'd0: begin
          index = good ? 5'(CntOctetsGood) : 5'(CntOctetsBad);
          amount = head_q.e.length;
        end
        3'd1: begin
          if (runt_q) index = bad_q ? 5'(CntFragments) : 5'(CntUndersize);
          else if (head_q.giant) index = bad_q ? 5'(CntJabbers) : 5'(CntOversize);
          else index = bad_q ? 5'(CntFcsErrors) : 5'(CntGood);
        end
        3'd2: begin
          // A frame with RX_ER is not good: one slot for both.
          index = head_q.e.rx_er ? 5'(CntSymbolErrors) : head_q.e.broadcast ? 5'(CntBroadcast) : 5'(CntMulticast);
          add = head_q.e.rx_er ? !runt_q : good && head_q.e.multicast;
        end
        3'd3: begin
          // Nor has a PAUSE frame a tag.
          index = head_q.e.pause ? 5'(CntPause) : 5'(CntTagged);
          add = good && (head_q.e.tags != '0 || head_q.e.pause);
        end
        3'd4: index = head_q.stored ? 5'(CntStored) : head_q.dropped ? 5'(CntDropped) : 5'(CntNotWanted);
        default: begin
          add = !runt_q;
          index = size_index_q;
        end
      endcase
    end
  end
  logic add_bank;
  assign add_bank = waiting_q ? head_q.bank : bank_q;

  // Second cycle of an addition, second cycle of a step of the walk.
  logic add_q, add_bank_q, walk_q, walking_q, clearing_q;
  logic [4:0] add_index_q, walk_index_q, step_q;
  logic [23:0] amount_q;
  logic old_bank;
  assign old_bank = !bank_q;
  // Events from before the flip go first.
  logic old_left;
  assign old_left = (waiting_q && head_q.bank == old_bank) || (queued_q && next.bank == old_bank) || (add_q && add_bank_q == old_bank);

  logic [63:0] difference0 [32];
  logic [63:0] difference1 [32];
  logic [63:0] totals [32];
  logic [63:0] read0_q, read1_q, total_q;
  // Twice the same counter in a row: the memory's answer is a cycle too old.
  logic again_q;
  logic [63:0] added, added_q;
  assign added = (again_q ? added_q : add_bank_q ? read1_q : read0_q) + 64'(amount_q);

  logic we0, we1;
  logic [4:0] ra0, ra1, wa0, wa1;
  assign ra0 = (walking_q && !old_bank) ? step_q : index;
  assign ra1 = (walking_q && old_bank) ? step_q : index;
  assign we0 = clearing_q || (add_q && !add_bank_q) || (walk_q && !old_bank);
  assign we1 = clearing_q || (add_q && add_bank_q) || (walk_q && old_bank);
  assign wa0 = clearing_q ? step_q : (walk_q && !old_bank) ? walk_index_q : add_index_q;
  assign wa1 = clearing_q ? step_q : (walk_q && old_bank) ? walk_index_q : add_index_q;
  // Simulation: nothing moves until an input says so (tools/model_edges.py).
  logic asleep;
  assign asleep = !queued_q && level_q == '0 && !waiting_q && !pick_q && has_q == '0 && !add_q && !again_q &&
                  !busy_o;
  always_ff @(posedge clk_i) begin
    if (add || walking_q) begin
      read0_q <= difference0[ra0];
      read1_q <= difference1[ra1];
    end
    if (we0) difference0[wa0] <= (clearing_q || (walk_q && !old_bank)) ? '0 : added;
    if (we1) difference1[wa1] <= (clearing_q || (walk_q && old_bank)) ? '0 : added;
    if (walking_q) total_q <= totals[step_q];
    if (clearing_q) totals[step_q] <= '0;
    else if (walk_q) totals[walk_index_q] <= total_q + (old_bank ? read1_q : read0_q);
    if (read_i) read_data_o <= totals[read_address_i];
  end

  logic flipped_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      wptr_q <= '0;
      rptr_q <= '0;
      level_q <= '0;
      queued_q <= 1'b0;
      bank_q <= 1'b0;
      slot_q <= '0;
      for (int k = 0; k < int'(Kinds); k++) sum_q[k] <= '0;
      has_q <= '0;
      pick_q <= 1'b0;
      pick_index_q <= '0;
      pick_amount_q <= '0;
      add_q <= 1'b0;
      again_q <= 1'b0;
      added_q <= '0;
      add_bank_q <= 1'b0;
      add_index_q <= '0;
      amount_q <= '0;
      walk_q <= 1'b0;
      walk_index_q <= '0;
      walking_q <= 1'b0;
      clearing_q <= 1'b1;
      step_q <= '0;
      flipped_q <= 1'b0;
      overflow_o <= 1'b0;
    end else begin
      overflow_o <= event_i && full;
      if (event_i) begin
        wptr_q <= wptr_q + 5'd1;
      end
      if (waiting_q) slot_q <= last ? '0 : slot_q + 3'd1;
      if (fetch) rptr_q <= rptr_q + 5'd1;
      level_q <= level_q + 5'(event_i) - 5'(fetch);
      queued_q <= level_q + 5'(event_i) != 5'(fetch);
      // From the inputs themselves: a simulation that left this module out has not worked out more.
      sum_q[0] <= (take[0] ? '0 : sum_q[0]) + 20'(sent_i);
      sum_q[1] <= (take[1] ? '0 : sum_q[1]) + (sent_i ? 20'(sent_length_i) : '0);
      sum_q[2] <= (take[2] ? '0 : sum_q[2]) + 20'(sent_i && sent_broadcast_i);
      sum_q[3] <= (take[3] ? '0 : sum_q[3]) + 20'(sent_i && sent_multicast_i && !sent_broadcast_i);
      sum_q[4] <= (take[4] ? '0 : sum_q[4]) + 20'(sent_i && sent_late_i);
      sum_q[5] <= (take[5] ? '0 : sum_q[5]) + 20'(discard_i);
      sum_q[6] <= (take[6] ? '0 : sum_q[6]) + 20'(duplicate_i);
      has_q <= (has_q & ~take) | {duplicate_i, discard_i, sent_i && sent_late_i,
                                  sent_i && sent_multicast_i && !sent_broadcast_i, sent_i && sent_broadcast_i,
                                  sent_i, sent_i};
      if (picks) begin
        pick_q <= take != '0;
        pick_index_q <= pick_index;
        pick_amount_q <= pick_amount;
      end
      add_q <= add;
      again_q <= add_q && index == add_index_q && add_bank == add_bank_q;
      if (add_q) added_q <= added;
      if (add) begin
        add_bank_q <= add_bank;
        add_index_q <= index;
        amount_q <= amount;
      end

      if (flip_i) begin
        bank_q <= !bank_q;
        flipped_q <= 1'b1;
      end
      if (flipped_q && !old_left) begin
        flipped_q <= 1'b0;
        walking_q <= 1'b1;
      end
      walk_q <= walking_q;
      walk_index_q <= step_q;
      if (walking_q || clearing_q) begin
        step_q <= step_q + 5'd1;
        if (step_q == '1) begin
          walking_q <= 1'b0;
          clearing_q <= 1'b0;
        end
      end
    end
  end
  assign ready_o = has_q == '0 && !sent_i && !discard_i && !duplicate_i && !pick_q && !busy_o;
  assign busy_o = clearing_q || walking_q || walk_q || flipped_q;
endmodule
