// SPDX-License-Identifier: Apache-2.0
// 32 counters of 64 bits, raised by events that each touch several of them; latched at an instant.
//
// Clock: the core clock. Events wait in a queue of four; the one at the head stands on raw_o, and for each
// slot_o from 0 to the one with last_i, the integrator's logic says what is added where (add_i, index_i,
// amount_i, in the same cycle). An addition takes a cycle.
// extra_i adds one to counter ExtraIndex, in cycles in which no event waits; up to 1023 wait.
// Owed by the integrator: no more events than that takes; overflow_o says if it did not work out: a fault.
// Additions go into one of two banks of differences. flip_i (only while !busy_o) changes over at that very
// cycle; then the first bank's differences are added to the totals, which the host reads, and cleared
// (busy_o meanwhile), in cycles that no addition needs. The first 64 cycles after reset clear everything.
module counter_memory #(
  parameter int unsigned RawWidth = 8,
  parameter logic [4:0]  ExtraIndex = 5'd31
) (
  input  logic                clk_i,
  input  logic                rst_ni,
  input  logic                event_i,
  input  logic [RawWidth-1:0] raw_i,
  input  logic                extra_i,

  output logic [RawWidth-1:0] raw_o,
  output logic [2:0]          slot_o,
  input  logic                add_i,
  input  logic [4:0]          index_i,
  input  logic [23:0]         amount_i,
  input  logic                last_i,

  input  logic                flip_i,
  output logic                busy_o,
  output logic                overflow_o,
  input  logic                read_i,
  input  logic [4:0]          read_address_i,
  output logic [63:0]         read_data_o     // a cycle later
);
  // Queue; each event remembers its bank.
  logic [RawWidth:0] queue [4];
  logic [2:0] queue_w_q, queue_r_q;
  logic bank_q, waiting, full, head_bank;
  assign waiting = queue_w_q != queue_r_q;
  assign full = queue_w_q == {~queue_r_q[2], queue_r_q[1:0]};
  assign {head_bank, raw_o} = queue[queue_r_q[1:0]];
  always_ff @(posedge clk_i) begin
    if (event_i && !full) queue[queue_w_q[1:0]] <= {bank_q, raw_i};
  end

  // One operation a cycle: its word is read, and written back in the next.
  logic [9:0] extra_q, extra_old_q;         // of this bank, of the one before the flip
  logic [2:0] slot_q;
  logic [4:0] walk_q;
  logic walking_q, flipped_q, clearing_q;
  logic [5:0] clear_q, address, address_q;
  logic slot_now, extra_now, walk_now, same, op_q, op_walk_q;
  logic [23:0] amount_q;
  assign slot_o = slot_q;
  assign same = op_q && address == address_q;
  assign slot_now = waiting && !clearing_q;
  assign extra_now = !waiting && (extra_q != '0 || extra_old_q != '0) && !clearing_q;
  assign walk_now = !waiting && extra_q == '0 && extra_old_q == '0 && walking_q;
  always_comb begin
    if (waiting) address = {head_bank, index_i};
    else if (extra_old_q != '0) address = {!bank_q, ExtraIndex};
    else if (extra_q != '0) address = {bank_q, ExtraIndex};
    else address = {!bank_q, walk_q};
  end

  logic [63:0] differences [64];
  logic [63:0] totals [32];
  logic [63:0] difference_q, difference, before_q, total_q;
  logic same_q;
  logic we, total_we;
  logic [5:0] waddr;
  logic [63:0] wdata;
  assign we = clearing_q || op_q;
  assign waddr = clearing_q ? clear_q : address_q;
  // An addition to the same counter as the one before takes what that one is just writing.
  assign difference = same_q ? before_q : difference_q;
  assign wdata = clearing_q || op_walk_q ? '0 : difference + 64'(amount_q);
  assign total_we = clearing_q || (op_q && op_walk_q);
  always_ff @(posedge clk_i) begin
    difference_q <= differences[address];
    before_q <= wdata;
    same_q <= same;
    if (we) differences[waddr] <= wdata;
  end
  always_ff @(posedge clk_i) begin
    total_q <= totals[walk_q];
    if (total_we) totals[waddr[4:0]] <= clearing_q ? '0 : total_q + difference;
  end
  // The host's port: a second copy, so that each memory has one write and one read.
  logic [63:0] totals_host [32];
  always_ff @(posedge clk_i) begin
    if (read_i) read_data_o <= totals_host[read_address_i];
    if (total_we) totals_host[waddr[4:0]] <= clearing_q ? '0 : total_q + difference;
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      queue_w_q <= '0;
      queue_r_q <= '0;
      bank_q <= 1'b0;
      extra_q <= '0;
      extra_old_q <= '0;
      slot_q <= '0;
      walk_q <= '0;
      walking_q <= 1'b0;
      flipped_q <= 1'b0;
      clearing_q <= 1'b1;
      clear_q <= '0;
      op_q <= 1'b0;
      op_walk_q <= 1'b0;
      address_q <= '0;
      amount_q <= '0;
      overflow_o <= 1'b0;
    end else begin
      if (event_i) begin
        if (full) overflow_o <= 1'b1;
        else queue_w_q <= queue_w_q + 3'd1;
      end
      if (flip_i) begin
        // extra_old_q is 0: the walk before waited for it.
        extra_old_q <= extra_q + 10'(extra_i) - 10'(extra_now);
        extra_q <= '0;
      end else begin
        extra_q <= extra_q + 10'(extra_i) - 10'(extra_now && extra_old_q == '0);
        extra_old_q <= extra_old_q - 10'(extra_now && extra_old_q != '0);
      end
      if (extra_i && extra_q == '1) overflow_o <= 1'b1;
      if (slot_now) begin
        slot_q <= last_i ? '0 : slot_q + 3'd1;
        if (last_i) queue_r_q <= queue_r_q + 3'd1;
      end
      op_q <= (slot_now && add_i) || extra_now || walk_now;
      op_walk_q <= walk_now;
      address_q <= address;
      amount_q <= waiting ? amount_i : 24'd1;

      if (clearing_q) begin
        clear_q <= clear_q + 6'd1;
        if (clear_q == '1) clearing_q <= 1'b0;
      end
      if (flip_i) begin
        bank_q <= !bank_q;
        flipped_q <= 1'b1;
      end
      // What came before the flip goes first.
      if (flipped_q && !(waiting && head_bank != bank_q) && extra_old_q == '0 && !op_q) begin
        flipped_q <= 1'b0;
        walking_q <= 1'b1;
      end
      if (walk_now) begin
        walk_q <= walk_q + 5'd1;
        if (walk_q == '1) walking_q <= 1'b0;
      end
    end
  end
  assign busy_o = clearing_q || flipped_q || walking_q || (op_q && op_walk_q);
endmodule
