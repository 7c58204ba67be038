// SPDX-License-Identifier: Apache-2.0
// Card time of the rising edges of a pulse per second, finer than a clock cycle.
//
// Clock: clk_i (core; a simulation may leave edges out while enable_i is low). word_i: what the board's sampler
// saw in the last cycle, N samples, earliest in bit 0, the last one taken at the edge at which word_i changes.
// A sampler that is later by whole cycles says so in SamplerCycles (hdl/boards).
// Where the stamp is taken: an edge with z samples low before it in its word lies between the samples z - 1
// and z; its time is the middle of the two, interpolated between the card times of the cycle's ends, less
// antenna and cable delay. Error: half a sample and the jitter of the sampler; a bit that the sampler caught
// in its change moves it by at most one sample. z counts zeros, so the place of a wrong bit does not matter.
// Latency: published after filter_i cycles of high line (at least five) and five more.
// Policy: a line that falls within filter_i cycles is a glitch: counted, not published. An edge needs filter_i
// cycles of low line before it; behind a glitch a quarter of them, so that a disturbance does not take the pulse
// after it away, and ringing is not taken for a pulse. A later edge overwrites what stands: whoever wants all of
// them keeps what published_o comes with. N: 2, 4 or 8 samples per cycle.
module pps_capture #(
  parameter int unsigned N = 8,
  parameter int unsigned SamplerCycles = 0,
  parameter int unsigned AddendBits = 49
) (
  input  logic                  clk_i,
  input  logic                  rst_ni,
  input  logic                  enable_i,
  input  logic                  invert_i,
  input  logic [N-1:0]          word_i,
  input  logic [103:0]          now_q72_i,       // card time at the edge at which word_i changed
  input  logic [AddendBits-1:0] addend_q72_i,    // what that edge added
  input  logic [15:0]           filter_i,
  input  logic [31:0]           period_i,
  input  logic [31:0]           tolerance_i,
  input  logic [31:0]           antenna_q48_i,
  input  logic [31:0]           cable_q48_i,
  output logic                  high_o,
  output logic [95:0]           edge_q64_o,
  output logic [3:0]            position_o,
  output logic                  first_o,
  output logic                  early_o,
  output logic                  doubled_o,
  output logic [31:0]           sequence_o,
  output logic [31:0]           interval_o,
  output logic [31:0]           glitches_o,
  output logic [31:0]           early_count_o,
  output logic [31:0]           doubled_count_o,
  output logic [31:0]           missing_o,
  output logic                  published_o      // one cycle
);
  if (N != 2 && N != 4 && N != 8) $fatal(1, "pps_capture: N must be 2, 4 or 8");
  localparam int unsigned Log2N = $clog2(N);

  // Word and the card time that belongs to it, registered once.
  logic [N-1:0] word_q;
  logic [103:0] now_q;
  logic [AddendBits-1:0] addend_q;
  logic [3:0] ones;
  always_comb begin
    ones = '0;
    for (int i = 0; i < int'(N); i++) ones += 4'(word_q[i]);
  end
  logic mostly_high;
  assign mostly_high = ones > 4'(N / 2);

  // The line, filtered. A candidate's time is worked out while the filter waits.
  typedef enum logic [2:0] {StStart, StLow, StRise, StHigh} state_e;
  state_e state_q;
  logic [15:0] filter, count_q, quiet;
  logic glitch_q;      // what went before was one
  assign filter = filter_i == '0 ? 16'd1 : filter_i;
  assign quiet = glitch_q ? filter >> 2 : filter;
  logic [103:0] at_q;
  logic [AddendBits-1:0] step_q;
  logic [3:0] zeros_q;
  // 2 z - (2 N - 1): half samples from the cycle's end back to the middle of the edge's two samples.
  // Multiplied in three pieces.
  localparam int unsigned Piece = 17, Pieces = (AddendBits + Piece - 1) / Piece;
  logic signed [Piece+6:0] part_q [Pieces];
  logic signed [AddendBits+5:0] product, product_q;
  always_comb begin
    product = '0;
    for (int i = 0; i < int'(Pieces); i++) product += (AddendBits+6)'(part_q[i]) <<< (i * int'(Piece));
  end
  logic signed [5:0] halves;
  assign halves = $signed({1'b0, zeros_q, 1'b0}) - $signed(6'(2 * N - 1));
  logic signed [49:0] delays_q;  // 2^-64 s
  logic signed [33:0] delays_q48;
  assign delays_q48 = 34'($signed(antenna_q48_i)) + 34'($signed(cable_q48_i));
  logic [95:0] edge_q;
  logic [103:0] sampled_q;
  logic signed [AddendBits+5-Log2N-1:0] back;
  assign back = (AddendBits+5-Log2N)'(product_q >>> (Log2N + 1));

  // Cycles since the last accepted edge, and since the last one that was on time.
  logic [31:0] since_q, due_q;
  logic seen_q, anchored_q, accept_q;
  logic [31:0] candidate_since_q, candidate_due_q;
  logic on_time, doubled;
  assign doubled = anchored_q && candidate_due_q < {1'b0, period_i[31:1]};
  logic [31:0] earliest_q, latest_q;
  assign on_time = candidate_due_q >= earliest_q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      word_q <= '0;
      now_q <= '0;
      addend_q <= '0;
      state_q <= StStart;
      count_q <= '0;
      at_q <= '0;
      step_q <= '0;
      zeros_q <= '0;
      part_q <= '{default: '0};
      product_q <= '0;
      sampled_q <= '0;
      earliest_q <= '0;
      latest_q <= '0;
      delays_q <= '0;
      edge_q <= '0;
      since_q <= '0;
      due_q <= '0;
      candidate_since_q <= '0;
      candidate_due_q <= '0;
      {seen_q, anchored_q, accept_q, glitch_q} <= '0;
      edge_q64_o <= '0;
      position_o <= '0;
      {first_o, early_o, doubled_o, published_o} <= '0;
      sequence_o <= '0;
      interval_o <= '0;
      glitches_o <= '0;
      early_count_o <= '0;
      doubled_count_o <= '0;
      missing_o <= '0;
    end else if (!enable_i) begin
      state_q <= StStart;
      count_q <= '0;
      {seen_q, anchored_q, accept_q, glitch_q, published_o} <= '0;
    end else begin
      word_q <= word_i ^ {N{invert_i}};
      now_q <= now_q72_i;
      addend_q <= addend_q72_i;
      published_o <= 1'b0;
      accept_q <= 1'b0;

      if (since_q != '1) since_q <= since_q + 32'd1;
      due_q <= due_q + 32'd1;
      // Not while a candidate waits for the filter: it may have been in time.
      if (seen_q && state_q != StRise && !accept_q && due_q > latest_q) begin
        anchored_q <= 1'b0;
        missing_o <= missing_o + 32'd1;
        due_q <= due_q - period_i + 32'd1;
      end

      earliest_q <= period_i - tolerance_i;
      latest_q <= period_i + tolerance_i;
      // Time of the candidate, in four steps, done by the fifth cycle.
      for (int i = 0; i < int'(Pieces); i++) begin
        part_q[i] <= (Piece+7)'($signed({1'b0, Piece'(step_q >> (i * int'(Piece)))})) * (Piece+7)'(halves);
      end
      product_q <= product;
      delays_q <= 50'(delays_q48) <<< 16;
      sampled_q <= at_q + 104'(back);
      edge_q <= 96'(sampled_q >> 8) - 96'(delays_q);

      unique case (state_q)
        // A pulse under way when it began to look is none.
        StStart: begin
          count_q <= ones == '0 ? count_q + 16'd1 : '0;
          if (ones == '0 && count_q >= quiet) begin
            state_q <= StLow;
            glitch_q <= 1'b0;
            count_q <= '0;
          end
        end
        StLow: if (ones != '0) begin
          state_q <= StRise;
          at_q <= now_q - 104'(addend_q) * SamplerCycles;
          step_q <= addend_q;
          zeros_q <= 4'(N) - ones;
          candidate_since_q <= since_q;
          candidate_due_q <= due_q;
          since_q <= 32'd1;
          count_q <= '0;
        end
        StRise: begin
          count_q <= count_q + 16'd1;
          // The word after a late edge may still have a bit that the sampler caught in its change.
          if (!mostly_high) begin
            state_q <= StStart;
            count_q <= '0;
            glitch_q <= 1'b1;
            glitches_o <= glitches_o + 32'd1;
            since_q <= candidate_since_q + 32'(count_q) + 32'd2;
          end else if (count_q >= filter && count_q >= 16'd5) begin
            state_q <= StHigh;
            count_q <= '0;
            accept_q <= 1'b1;
          end
        end
        StHigh: begin
          count_q <= mostly_high ? '0 : count_q + 16'd1;
          if (!mostly_high && count_q >= filter) begin
            state_q <= StLow;
            count_q <= '0;
          end
        end
        default: state_q <= StStart;
      endcase

      if (accept_q) begin
        published_o <= 1'b1;
        edge_q64_o <= edge_q;
        position_o <= zeros_q;
        sequence_o <= sequence_o + 32'd1;
        interval_o <= seen_q ? candidate_since_q : '1;
        seen_q <= 1'b1;
        first_o <= !anchored_q;
        early_o <= anchored_q && !doubled && !on_time;
        doubled_o <= doubled;
        if (!anchored_q || (!doubled && on_time)) begin
          // Since the edge: what has passed since the candidate.
          anchored_q <= 1'b1;
          due_q <= due_q - candidate_due_q + 32'd1;
        end
        if (anchored_q && doubled) doubled_count_o <= doubled_count_o + 32'd1;
        if (anchored_q && !doubled && !on_time) early_count_o <= early_count_o + 32'd1;
      end
    end
  end
  assign high_o = state_q == StHigh || state_q == StRise;
endmodule
