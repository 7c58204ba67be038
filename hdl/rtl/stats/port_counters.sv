// SPDX-License-Identifier: Apache-2.0
// 64-bit counters of all ports, latched together.
//
// Clock: the core clock. Events add to small counters in flip-flops; a walk over all of them, one a cycle,
// adds each to its 64-bit sum in memory and clears it, so it comes by every Ports*Counters cycles, before
// any can overflow. latch_i copies the small counters of that very cycle; the next walk puts latched sum =
// 64-bit sum before it + copy into a second memory (busy_o meanwhile), which is what the host reads.
module port_counters
  import twinstamp_pkg::*;
#(
  parameter int unsigned Ports = 4
) (
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic [Ports-1:0] event_i,
  input  rx_end_t     event_end_i [Ports],
  input  logic [Ports-1:0] event_giant_i,
  input  logic [Ports-1:0] event_stored_i,
  input  logic [Ports-1:0] event_dropped_i,
  input  logic [Ports-1:0] discard_i,
  input  logic        latch_i,
  output logic        busy_o,

  // 32-bit words of the latched counters: {port, counter, half}; data a cycle after the request.
  input  logic        read_i,
  input  logic [7:0]  read_address_i,
  output logic [31:0] read_data_o,
  output logic        read_valid_o
);
  localparam int unsigned N = Ports * Counters;
  localparam int unsigned W = $clog2(N);
  localparam int unsigned Small = 8;    // an event takes at least two cycles: N/2 = 64 a walk
  localparam int unsigned Octets = 26;

  // What each event adds.
  logic [Small-1:0]  small_q [N];
  logic [Octets-1:0] octets_q [2*Ports];
  logic [CountersUsed-1:0] add [Ports];
  logic [Ports-1:0] good;
  for (genvar p = 0; p < int'(Ports); p++) begin : gen_add
    rx_end_t e;  // has_stamp is not counted
    logic frame, runt, bad;
    assign e = event_end_i[p];
    assign frame = event_i[p] && !e.no_sfd && !e.preamble_error;
    assign runt = e.length < 24'd64;
    assign bad = !e.fcs_ok || e.rx_er;
    assign good[p] = frame && !runt && !bad && !event_giant_i[p];
    always_comb begin
      add[p] = '0;
      add[p][CntGood] = good[p];
      add[p][CntBroadcast] = good[p] && e.broadcast;
      add[p][CntMulticast] = good[p] && e.multicast && !e.broadcast;
      add[p][CntTagged] = good[p] && e.tags != '0;
      add[p][CntFcsErrors] = frame && bad && !runt && !event_giant_i[p];
      add[p][CntUndersize] = frame && !bad && runt;
      add[p][CntFragments] = frame && bad && runt;
      add[p][CntOversize] = frame && !bad && event_giant_i[p] && !runt;
      add[p][CntJabbers] = frame && bad && event_giant_i[p] && !runt;
      add[p][CntNoSfd] = event_i[p] && e.no_sfd;
      add[p][CntPreambleErrors] = event_i[p] && e.preamble_error;
      add[p][CntStored] = event_i[p] && event_stored_i[p];
      add[p][CntDropped] = event_i[p] && event_dropped_i[p];
      add[p][CntDiscarded] = discard_i[p];
      add[p][CntNotWanted] = frame && !event_stored_i[p] && !event_dropped_i[p];
      add[p][CntSize64] = frame && e.length == 24'd64;
      add[p][CntSize127] = frame && e.length > 24'd64 && e.length <= 24'd127;
      add[p][CntSize255] = frame && e.length > 24'd127 && e.length <= 24'd255;
      add[p][CntSize511] = frame && e.length > 24'd255 && e.length <= 24'd511;
      add[p][CntSize1023] = frame && e.length > 24'd511 && e.length <= 24'd1023;
      add[p][CntSize1518] = frame && e.length > 24'd1023 && e.length <= 24'd1518;
      add[p][CntSizeLarger] = frame && e.length > 24'd1518;
    end
  end

  logic [W-1:0] step_q;          // counter whose sum is read this cycle
  logic [W-1:0] write_q;         // the one read last cycle, written now
  logic [63:0] sums [N];
  logic [63:0] latched [N];
  logic [63:0] sum_read_q, fresh_q, copy_q, base;
  logic copy_now_q, cleared_q;
  logic [Small-1:0]  small_copy_q [N];
  logic [Octets-1:0] octets_copy_q [2*Ports];
  logic [W:0] copying_q;         // counters still to be put into `latched`
  logic [63:0] fresh, copy;
  logic step_octets;
  assign step_octets = step_q[4:0] < 5'd2;
  logic [W-5:0] step_octet_index;
  assign step_octet_index = {step_q[W-1:5], step_q[0]};
  assign fresh = step_octets ? 64'(octets_q[step_octet_index]) : 64'(small_q[step_q]);
  assign copy = step_octets ? 64'(octets_copy_q[step_octet_index]) : 64'(small_copy_q[step_q]);

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      for (int i = 0; i < int'(N); i++) small_q[i] <= '0;
      for (int i = 0; i < int'(N); i++) small_copy_q[i] <= '0;
      for (int i = 0; i < int'(2*Ports); i++) octets_q[i] <= '0;
      for (int i = 0; i < int'(2*Ports); i++) octets_copy_q[i] <= '0;
      step_q <= '0;
      write_q <= '0;
      fresh_q <= '0;
      copy_q <= '0;
      copying_q <= '0;
      copy_now_q <= 1'b0;
      cleared_q <= 1'b0;
    end else begin
      for (int unsigned p = 0; p < Ports; p++) begin
        if (event_i[p]) begin
          octets_q[2*p + (good[p] ? 0 : 1)] <= octets_q[2*p + (good[p] ? 0 : 1)] + Octets'(event_end_i[p].length);
        end
        if (event_i[p] || discard_i[p]) begin
          for (int unsigned c = 2; c < CountersUsed; c++) begin
            if (add[p][c]) small_q[p*Counters + c] <= small_q[p*Counters + c] + Small'(1);
          end
        end
      end
      // The walk takes what was there before this cycle's events.
      if (step_octets) begin
        octets_q[step_octet_index] <= '0;
        if (event_i[step_q[W-1:5]] && good[step_q[W-1:5]] != step_q[0]) begin
          octets_q[step_octet_index] <= Octets'(event_end_i[step_q[W-1:5]].length);
        end
      end else begin
        small_q[step_q] <= '0;
        if (step_q[4:0] < 5'(CountersUsed)) begin
          small_q[step_q] <= Small'(add[step_q[W-1:5]][step_q[4:0]]);
        end
      end
      if (latch_i && !busy_o) begin
        small_copy_q <= small_q;
        octets_copy_q <= octets_q;
        copying_q <= (W+1)'(N);
      end else if (copying_q != '0) copying_q <= copying_q - (W+1)'(1);
      fresh_q <= fresh;
      copy_q <= copy;
      copy_now_q <= copying_q != '0;
      write_q <= step_q;
      step_q <= step_q == W'(N - 1) ? '0 : step_q + W'(1);
      if (write_q == W'(N - 1)) cleared_q <= 1'b1;
    end
  end

  // The memories start with unknown contents: the first walk takes 0 for them.
  assign base = cleared_q ? sum_read_q : '0;
  always_ff @(posedge clk_i) begin
    sum_read_q <= sums[step_q];
    sums[write_q] <= base + fresh_q;
    if (copy_now_q) latched[write_q] <= base + copy_q;
  end
  assign busy_o = copying_q != '0 || copy_now_q;

  logic [63:0] read_q;
  logic half_q;
  always_ff @(posedge clk_i) begin
    if (read_i) begin
      read_q <= latched[read_address_i[W:1]];
      half_q <= read_address_i[0];
    end
  end
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) read_valid_o <= 1'b0;
    else read_valid_o <= read_i;
  end
  assign read_data_o = half_q ? read_q[63:32] : read_q[31:0];
endmodule
