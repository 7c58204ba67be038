// SPDX-License-Identifier: Apache-2.0
// The schedule of a port's trains: from descriptors in memory the launch time, size and numbers of each train's
// next packet (its head), and of all heads the earliest one for the MAC.
//
// Clock: the core clock. Times are seconds 32.64; a launch time is the start plus the sum of all gaps before,
// so no error adds up. Laws and their arithmetic: docs/trains.md, the same bit for bit as
// host/twinstamp/train/laws.py. A head is there at most 76 cycles after the one before was taken, shorter than the
// shortest frame with its gap (84 cycles), so a train at line rate never waits for it. That is with one
// train taken from at a time; arming one costs 20 cycles more once.
// Equal launch times: the train with the lower number first.
//
// A descriptor: 32 words at 32 * train from word 128 of the memory on (word in its place: what it says):
//   0-2 start (lowest word first), 3 repeats - 1, 4 bursts - 1, 5 packets - 1,
//   6-8 gap: constant one, first one of a chirp, least of a Poisson law
//   9 list of gaps: [10:0] first word, [26:16] offset of the last entry (three words each)
//   10 source port: [15:0] first, [31:16] last
//   11 [1:0] gap law (constant, list, Poisson, chirp), [3:2] size law (constant, list, uniform, choice),
//      [4] IPv6, [5] stamp in PTP format, [6] report every departure, [11:7] offset of the IP header
//   12 sums: [15:0] of the IPv4 header, [31:16] of UDP, without what changes
//   13-15 period, 16-18 gap between bursts, 19-21 scale of a Poisson law, 22 ratio of a chirp
//   23 size: [13:0] constant, least, or first word of a list; [29:16] number of sizes
//   24-25 seed
module train_schedule (
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic        write_i,
  input  logic [10:0] write_address_i,
  input  logic [31:0] write_data_i,

  input  logic [3:0]  arm_i,              // ignored while active
  input  logic [3:0]  stop_i,
  output logic [3:0]  active_o,           // armed and not yet at its end
  output logic [3:0]  done_o,             // all heads taken
  output logic [3:0]  refused_o,          // its start was not in the future

  input  logic [95:0] soon_q64_i,
  output logic        quiet_o,            // no head is being made or compared
  output logic        head_valid_o,
  output logic        head_fresh_o,       // it is another one than a cycle ago
  input  logic        take_i,             // the head leaves now; only with head_valid_o
  output logic [63:0] head_q32_o,         // launch time, upper 64 bits
  output logic [31:0] head_low_o,         // and lower 32
  output logic [1:0]  head_train_o,
  output logic [13:0] head_size_o,        // with FCS
  output logic [31:0] head_sequence_o,
  output logic [15:0] head_port_o,
  output logic [7:0]  head_law_o,          // from bit 4 of the descriptor's on
  output logic [31:0] head_sums_o
);
  localparam logic [1:0] GapConstant = 2'd0, GapList = 2'd1, GapPoisson = 2'd2;
  localparam logic [1:0] SizeConstant = 2'd0, SizeList = 2'd1, SizeUniform = 2'd2;

  typedef enum logic [3:0] {
    StIdle, StLoad, StNext, StSeed, StFetch, StList, StLog, StRatio, StMultiply, StScaled, StAdd, StSize,
    StBelow, StPick, StReady
  } state_e;
  typedef enum logic [1:0] {MoveFirst, MoveGap, MoveBurst, MoveRepeat} move_e;
  state_e state_q;
  move_e move_q;
  logic [1:0] t_q;
  logic have_q;                           // data_q belongs to word_q
  logic [4:0] word_q, last_q;
  logic [5:0] step_q;

  // Descriptors and lists; the first 128 words are the templates, which train_mac keeps.
  logic [31:0] memory [2048];
  logic [31:0] data_q;
  logic [10:0] address_q;
  always_ff @(posedge clk_i) begin
    if (write_i) memory[write_address_i] <= write_data_i;
    if (state_q != StIdle) data_q <= memory[address_q];
  end

  // Of each train.
  logic [3:0] arm_q, active_q, valid_q, pending_q, done_q, refused_q;
  logic [95:0] time_q [4];
  logic [95:0] origin_q [4];              // start of this repetition
  logic [95:0] chirp_q [4];
  logic [31:0] left_q [4];                // packets after this one in the burst
  logic [31:0] bursts_q [4];
  logic [31:0] repeats_q [4];
  logic [31:0] number_q [4];              // in the repetition
  logic [31:0] sequence_q [4];
  logic [31:0] word0_q [4];               // first random word of the head
  logic [31:0] ports_q [4];
  logic [15:0] port_q [4];
  logic [31:0] sums_q [4];
  logic [11:0] law_q [4];
  logic [10:0] gap_place_q [4];
  logic [13:0] size_place_q [4];
  logic [13:0] size_q [4];

  logic [3:0] law;
  assign law = law_q[t_q][3:0];
  logic [10:0] base;
  assign base = {4'b0001, t_q, 5'b0};     // word 128 + 32 * train

  logic random_start, random_done;
  logic [31:0] random0, random1;
  logic [31:0] seed_q;
  logic [13:0] size_base_q, sizes_q;
  assign random_start = state_q == StSeed && have_q && word_q == 5'd2;
  train_random u_random (
    .clk_i, .rst_ni, .start_i(random_start), .counter_low_i(number_q[t_q]), .counter_high_i(data_q),
    .key_i(seed_q), .done_o(random_done), .word0_o(random0), .word1_o(random1)
  );

  // One multiplier: logarithm, scaling, sizes. Its product is there two cycles after the operands; a square, which
  // needs one addition less, already a cycle after them.
  logic [31:0] a_q, b_q, ll_q, lh_q, hl_q, hh_q;
  logic [63:0] product_q;
  logic [63:31] square;
  assign square = 33'(({hh_q, ll_q[31:17]} + {15'b0, lh_q}) >> 14);
  logic [127:0] sum_q;
  logic [95:0] gap_q, scale_q;            // gap_q is what is added; scale_q what is multiplied
  logic [31:0] factor_q;
  logic [22:0] log_q;

  // A 32-bit word as an odd number of 33 bits, shifted so that its first bit is set.
  // It is taken up in StNext and made while StSeed reads.
  logic [32:0] odd_q;
  logic [5:0] zeros, zeros_q;
  logic [31:0] mantissa_q;
  always_comb begin
    zeros = 6'd32;
    for (int i = 0; i < 33; i++) if (odd_q[i]) zeros = 6'(32 - i);
  end
  logic [31:0] squared;
  assign squared = square[63] ? square[63:32] : square[62:31];

  logic [1:0] next_arm, next_pending;
  always_comb begin
    next_arm = '0;
    next_pending = '0;
    for (int i = 3; i >= 0; i--) begin
      if (arm_q[i]) next_arm = 2'(i);
      if (pending_q[i]) next_pending = 2'(i);
    end
  end

  logic ready, refuse, taken, moved;
  logic [1:0] best_q;
  logic needs_random;
  assign needs_random = law[1:0] == GapPoisson || law[3];
  assign ready = state_q == StReady && (random_done || !needs_random);
  assign refuse = move_q == MoveFirst && soon_q64_i >= time_q[t_q];
  assign taken = head_valid_o && take_i;
  assign moved = state_q == StAdd;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= StIdle;
      move_q <= MoveFirst;
      t_q <= '0;
      have_q <= 1'b0;
      word_q <= '0;
      last_q <= '0;
      step_q <= '0;
      address_q <= '0;
      arm_q <= '0;
      active_q <= '0;
      valid_q <= '0;
      pending_q <= '0;
      done_q <= '0;
      refused_q <= '0;
      seed_q <= '0;
      size_base_q <= '0;
      sizes_q <= '0;
      a_q <= '0;
      b_q <= '0;
      {ll_q, lh_q, hl_q, hh_q} <= '0;
      product_q <= '0;
      sum_q <= '0;
      gap_q <= '0;
      scale_q <= '0;
      factor_q <= '0;
      log_q <= '0;
      odd_q <= '0;
      zeros_q <= '0;
      mantissa_q <= '0;
    end else if (active_q != '0 || arm_i != '0 || state_q != StIdle) begin
      ll_q <= {16'b0, a_q[15:0]} * {16'b0, b_q[15:0]};
      lh_q <= {16'b0, a_q[15:0]} * {16'b0, b_q[31:16]};
      hl_q <= {16'b0, a_q[31:16]} * {16'b0, b_q[15:0]};
      hh_q <= {16'b0, a_q[31:16]} * {16'b0, b_q[31:16]};
      product_q <= {{hh_q, ll_q[31:16]} + {15'b0, {1'b0, lh_q} + {1'b0, hl_q}}, ll_q[15:0]};
      if (state_q == StNext) odd_q <= {word0_q[t_q], 1'b1};
      if (state_q == StSeed) begin
        zeros_q <= zeros;
        mantissa_q <= 32'((odd_q << zeros_q) >> 1);
      end
      unique case (state_q)
        StIdle: begin
          have_q <= 1'b0;
          word_q <= '0;
          if (arm_q != '0) begin
            t_q <= next_arm;
            arm_q[next_arm] <= 1'b0;
            move_q <= MoveFirst;
            last_q <= 5'd12;
            address_q <= {4'b0001, next_arm, 5'd0};
            state_q <= StLoad;
          end else if (pending_q != '0) begin
            t_q <= next_pending;
            pending_q[next_pending] <= 1'b0;
            state_q <= StNext;
          end
        end
        StNext: begin
          address_q <= base + 11'd23;
          state_q <= StSeed;
          if (left_q[t_q] != '0) move_q <= MoveGap;
          else if (bursts_q[t_q] != '0) move_q <= MoveBurst;
          else if (repeats_q[t_q] != '0) move_q <= MoveRepeat;
          else begin
            active_q[t_q] <= 1'b0;
            done_q[t_q] <= active_q[t_q];
            state_q <= StIdle;
          end
        end
        StLoad: begin
          address_q <= address_q + 11'd1;
          have_q <= 1'b1;
          if (have_q) begin
            word_q <= word_q + 5'd1;
            if (word_q == 5'd0 || word_q == 5'd6) gap_q[31:0] <= data_q;
            if (word_q == 5'd1 || word_q == 5'd7) gap_q[63:32] <= data_q;
            if (word_q == last_q) begin
              have_q <= 1'b0;
              word_q <= '0;
              address_q <= base + 11'd23;
              state_q <= move_q == MoveFirst ? StSeed : StSize;
            end
          end
        end
        // Words 23 to 25: sizes and seed; the next packet's random numbers are made from here on.
        StSeed: begin
          address_q <= address_q + 11'd1;
          have_q <= 1'b1;
          if (have_q) begin
            word_q <= word_q + 5'd1;
            if (word_q == 5'd0) begin
              size_base_q <= data_q[13:0];
              sizes_q <= data_q[29:16];
            end
            if (word_q == 5'd1) seed_q <= data_q;
            if (word_q == 5'd2) begin
              have_q <= 1'b0;
              word_q <= '0;
              step_q <= '0;
              unique case (move_q)
                MoveFirst: state_q <= StSize;
                MoveBurst: begin
                  address_q <= base + 11'd16;
                  state_q <= StFetch;
                end
                MoveRepeat: begin
                  address_q <= base + 11'd13;
                  state_q <= StFetch;
                end
                default: begin
                  unique case (law[1:0])
                    GapConstant: begin
                      address_q <= base + 11'd6;
                      state_q <= StFetch;
                    end
                    GapList: begin
                      address_q <= base + 11'd9;
                      state_q <= StList;
                    end
                    GapPoisson: begin
                      address_q <= base + 11'd19;
                      a_q <= mantissa_q;
                      b_q <= mantissa_q;
                      state_q <= StLog;
                    end
                    default: begin
                      address_q <= base + 11'd22;
                      scale_q <= chirp_q[t_q];
                      gap_q <= chirp_q[t_q];
                      state_q <= StRatio;
                    end
                  endcase
                end
              endcase
            end
          end
        end
        StFetch: begin
          address_q <= address_q + 11'd1;
          have_q <= 1'b1;
          if (have_q) begin
            gap_q <= {data_q, gap_q[95:32]};
            word_q <= word_q + 5'd1;
            if (word_q == 5'd2) begin
              have_q <= 1'b0;
              state_q <= StAdd;
            end
          end
        end
        StList: begin
          have_q <= 1'b1;
          if (have_q) begin
            have_q <= 1'b0;
            address_q <= data_q[10:0] + gap_place_q[t_q];
            state_q <= StFetch;
          end
        end
        // 24 digits, two cycles each; meanwhile scale and least gap are read.
        StLog: begin
          step_q <= step_q + 6'd1;
          if (step_q == 6'd2) address_q <= base + 11'd6;
          else address_q <= address_q + 11'd1;
          if (step_q >= 6'd1 && step_q <= 6'd3) scale_q <= {data_q, scale_q[95:32]};
          if (step_q >= 6'd4 && step_q <= 6'd6) gap_q <= {data_q, gap_q[95:32]};
          if (step_q[0]) begin
            a_q <= squared;
            b_q <= squared;
            log_q <= {log_q[21:0], square[63]};
          end
          if (step_q == 6'd47) begin
            // zeros + 1 less the logarithm's digits
            factor_q <= {2'b0, zeros_q + 6'd1, 24'b0} - {8'b0, log_q, square[63]};
            sum_q <= '0;
            step_q <= '0;
            state_q <= StMultiply;
          end
        end
        StRatio: begin
          have_q <= 1'b1;
          if (have_q) begin
            factor_q <= data_q;
            have_q <= 1'b0;
            sum_q <= '0;
            state_q <= StMultiply;
          end
        end
        // sum = factor * scale, a word at a time
        StMultiply: begin
          step_q <= step_q + 6'd1;
          a_q <= factor_q;
          unique case (step_q)
            6'd0: b_q <= scale_q[31:0];
            6'd1: b_q <= scale_q[63:32];
            6'd2: b_q <= scale_q[95:64];
            6'd3: sum_q <= {64'b0, product_q};
            6'd4: sum_q <= sum_q + {32'b0, product_q, 32'b0};
            default: begin
              sum_q <= sum_q + {product_q, 64'b0};
              state_q <= StScaled;
            end
          endcase
        end
        StScaled: begin
          if (law[1:0] == GapPoisson) gap_q <= gap_q + sum_q[119:24];
          state_q <= StAdd;
        end
        StAdd: begin
          have_q <= 1'b0;
          word_q <= move_q == MoveBurst ? 5'd5 : 5'd4;
          last_q <= 5'd8;
          address_q <= base + (move_q == MoveBurst ? 11'd5 : 11'd4);
          state_q <= move_q == MoveGap ? StSize : StLoad;
        end
        StSize: begin
          a_q <= random1;
          b_q <= {18'b0, sizes_q};
          step_q <= '0;
          have_q <= 1'b0;
          unique case (law[3:2])
            SizeConstant: state_q <= StReady;
            SizeList: begin
              address_q <= 11'(size_base_q + size_place_q[t_q]);
              state_q <= StPick;
            end
            default: if (random_done) state_q <= StBelow;
          endcase
        end
        StBelow: begin
          step_q <= step_q + 6'd1;
          if (step_q[1]) begin
            address_q <= 11'(size_base_q + product_q[45:32]);
            state_q <= law[3:2] == SizeUniform ? StReady : StPick;
          end
        end
        StPick: begin
          have_q <= 1'b1;
          if (have_q) state_q <= StReady;
        end
        default: begin  // StReady
          if (ready) begin
            state_q <= StIdle;
            if (active_q[t_q] && !arm_q[t_q]) begin
              if (refuse) begin
                active_q[t_q] <= 1'b0;
                refused_q[t_q] <= 1'b1;
              end else valid_q[t_q] <= 1'b1;
            end
          end
        end
      endcase

      if (taken) begin
        valid_q[best_q] <= 1'b0;
        pending_q[best_q] <= 1'b1;
      end
      for (int i = 0; i < 4; i++) begin
        if (arm_i[i] && !active_q[i]) begin
          arm_q[i] <= 1'b1;
          active_q[i] <= 1'b1;
          done_q[i] <= 1'b0;
          refused_q[i] <= 1'b0;
        end
        if (stop_i[i]) begin
          arm_q[i] <= 1'b0;
          active_q[i] <= 1'b0;
          valid_q[i] <= 1'b0;
          pending_q[i] <= 1'b0;
        end
      end
    end
  end

  // What belongs to each train, written one at a time: no reset, so that it can be a memory.
  always_ff @(posedge clk_i) if (state_q != StIdle) begin
    if (state_q == StNext) begin
      sequence_q[t_q] <= sequence_q[t_q] + 32'd1;
      port_q[t_q] <= port_q[t_q] == ports_q[t_q][31:16] ? ports_q[t_q][15:0] : port_q[t_q] + 16'd1;
      number_q[t_q] <= number_q[t_q] + 32'd1;
      if (left_q[t_q] != '0) left_q[t_q] <= left_q[t_q] - 32'd1;
      else if (bursts_q[t_q] != '0) bursts_q[t_q] <= bursts_q[t_q] - 32'd1;
      else begin
        repeats_q[t_q] <= repeats_q[t_q] - 32'd1;
        number_q[t_q] <= '0;
      end
    end
    if (state_q == StLoad && have_q) begin
      unique case (word_q)
        5'd2: begin
          time_q[t_q] <= {data_q, gap_q[63:0]};
          origin_q[t_q] <= {data_q, gap_q[63:0]};
          sequence_q[t_q] <= '0;
          number_q[t_q] <= '0;
        end
        5'd3: repeats_q[t_q] <= data_q;
        5'd4: bursts_q[t_q] <= data_q;
        5'd5: left_q[t_q] <= data_q;
        5'd8: begin
          chirp_q[t_q] <= {data_q, gap_q[63:0]};
          gap_place_q[t_q] <= '0;
          size_place_q[t_q] <= '0;
        end
        5'd10: begin
          ports_q[t_q] <= data_q;
          port_q[t_q] <= data_q[15:0];
        end
        5'd11: law_q[t_q] <= data_q[11:0];
        5'd12: sums_q[t_q] <= data_q;
        default: ;
      endcase
    end
    if (state_q == StList && have_q) begin
      gap_place_q[t_q] <= gap_place_q[t_q] == data_q[26:16] ? '0 : gap_place_q[t_q] + 11'd3;
    end
    if (state_q == StScaled && law[1:0] != GapPoisson) chirp_q[t_q] <= sum_q[126:31];
    if (moved) begin
      time_q[t_q] <= (move_q == MoveRepeat ? origin_q[t_q] : time_q[t_q]) + gap_q;
      if (move_q == MoveRepeat) origin_q[t_q] <= origin_q[t_q] + gap_q;
    end
    if (state_q == StSize) begin
      size_q[t_q] <= size_base_q;
      if (law[3:2] == SizeList) begin
        size_place_q[t_q] <= size_place_q[t_q] + 14'd1 == sizes_q ? '0 : size_place_q[t_q] + 14'd1;
      end
    end
    if (state_q == StBelow && step_q[1]) size_q[t_q] <= size_base_q + product_q[45:32];
    if (state_q == StPick && have_q) size_q[t_q] <= data_q[13:0];
    if (ready) word0_q[t_q] <= random0;
  end

  // The earliest head. A change makes it look through all of them; what stood before stays offered until
  // then, so a head that is due leaves on its cycle.
  logic dirty_q, scanning_q, found_q;
  logic [1:0] scan_q, candidate_q;
  logic [95:0] least_q;
  logic change;
  assign change = ready || taken || stop_i != '0;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      dirty_q <= 1'b0;
      scanning_q <= 1'b0;
      found_q <= 1'b0;
      scan_q <= '0;
      candidate_q <= '0;
      least_q <= '0;
      best_q <= '0;
      head_valid_o <= 1'b0;
      head_fresh_o <= 1'b0;
      head_q32_o <= '0;
      head_low_o <= '0;
      head_size_o <= '0;
      head_sequence_o <= '0;
      head_port_o <= '0;
      head_law_o <= '0;
      head_sums_o <= '0;
    end else if (active_q != '0 || head_valid_o || change || dirty_q || scanning_q || head_fresh_o) begin
      head_fresh_o <= 1'b0;
      if (dirty_q) begin
        dirty_q <= 1'b0;
        scanning_q <= 1'b1;
        found_q <= 1'b0;
        scan_q <= '0;
      end else if (scanning_q) begin
        scan_q <= scan_q + 2'd1;
        if (valid_q[scan_q] && (!found_q || time_q[scan_q] < least_q)) begin
          found_q <= 1'b1;
          candidate_q <= scan_q;
          least_q <= time_q[scan_q];
        end
        if (scan_q == 2'd3) scanning_q <= 1'b0;
      end else if (found_q) begin
        found_q <= 1'b0;
        best_q <= candidate_q;
        head_valid_o <= 1'b1;
        head_fresh_o <= 1'b1;
        {head_q32_o, head_low_o} <= least_q;
        head_size_o <= size_q[candidate_q];
        head_sequence_o <= sequence_q[candidate_q];
        head_port_o <= port_q[candidate_q];
        head_law_o <= law_q[candidate_q][11:4];
        head_sums_o <= sums_q[candidate_q];
      end
      if (taken) head_valid_o <= 1'b0;
      if (stop_i[best_q]) head_valid_o <= 1'b0;
      if (change) begin
        dirty_q <= 1'b1;
        scanning_q <= 1'b0;
        found_q <= 1'b0;
      end
    end
  end
  assign quiet_o = state_q == StIdle && arm_q == '0 && pending_q == '0 && !dirty_q && !scanning_q && !found_q;
  assign head_train_o = best_q;
  assign active_o = active_q;
  assign done_o = done_q;
  assign refused_o = refused_q;
endmodule
