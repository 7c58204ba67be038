// SPDX-License-Identifier: Apache-2.0
// Half 0 of the keyed digest of docs/decisions/0001-keyed-digest.md, over all ports' frames, or messages made of
// them, by one engine.
//
// Clock: the core clock. Each port hands over its words and, at a frame's end, its length in bytes and domain; done_o
// then pulses with the digest. One word a cycle for all ports together (four ports at line rate bring half
// of that); a block of 128 words or a frame's end takes 12 cycles of level 2. Latency from the end: 20
// cycles alone, at most about 70 when all ports end at once. So frames of at least 64 bytes are kept up with,
// and shorter ones must be forgotten, which costs nothing. Back-pressure: ready_o, a FIFO of four a port.
// Key, written through key_*: 32-bit words 0..257 are nh[0..257], words 320..399 are limbs[0][0..19], four
// words each, lowest first. Change it while no port receives. Longest frame: nine blocks.
module frame_digest #(
  parameter int unsigned Ports = 4
) (
  input  logic             clk_i,
  input  logic             rst_ni,

  input  logic [Ports-1:0] valid_i,
  input  logic [Ports-1:0] end_i,
  input  logic [63:0]      word_i [Ports],   // with end_i: length, domain in 39:32; bit 63: forget, no digest
  output logic [Ports-1:0] ready_o,
  output logic [Ports-1:0] done_o,
  output logic [63:0]      digest_o,

  input  logic             key_write_i,
  input  logic [8:0]       key_address_i,
  input  logic [31:0]      key_data_i
);
  localparam int unsigned PortBits = Ports > 1 ? $clog2(Ports) : 1;

  // Level 1's key: pairs of words; stream 0 takes pair i, stream 1 pair i + 1.
  logic [31:0] pair0_lo [128];
  logic [31:0] pair0_hi [128];
  logic [31:0] pair1_lo [128];
  logic [31:0] pair1_hi [128];
  logic [31:0] limb0 [32];
  logic [31:0] limb1 [32];
  logic [31:0] limb2 [32];
  logic [31:0] limb3 [32];
  logic key_nh, key_limb;
  logic [7:0] key_pair;
  logic [6:0] key_pair_before;
  logic [4:0] key_limb_index;
  assign key_nh = key_write_i && key_address_i < 9'd258;
  assign key_limb = key_write_i && key_address_i >= 9'd320 && key_address_i < 9'd400;
  assign key_pair = key_address_i[8:1];
  assign key_pair_before = 7'(key_pair - 8'd1);
  assign key_limb_index = 5'((key_address_i - 9'd320) >> 2);
  always_ff @(posedge clk_i) begin
    if (key_nh && !key_address_i[0] && !key_pair[7]) pair0_lo[key_pair[6:0]] <= key_data_i;
    if (key_nh && key_address_i[0] && !key_pair[7]) pair0_hi[key_pair[6:0]] <= key_data_i;
    if (key_nh && !key_address_i[0] && key_pair != '0) pair1_lo[key_pair_before] <= key_data_i;
    if (key_nh && key_address_i[0] && key_pair != '0) pair1_hi[key_pair_before] <= key_data_i;
    if (key_limb && key_address_i[1:0] == 2'd0) limb0[key_limb_index] <= key_data_i;
    if (key_limb && key_address_i[1:0] == 2'd1) limb1[key_limb_index] <= key_data_i;
    if (key_limb && key_address_i[1:0] == 2'd2) limb2[key_limb_index] <= key_data_i;
    if (key_limb && key_address_i[1:0] == 2'd3) limb3[key_limb_index] <= key_data_i;
  end

  // Words waiting, per port; a port rests from its block's or frame's last word until level 2 is done.
  logic [Ports-1:0] ready_now, head_end, resting_q, word_taken, job_now;
  logic [63:0] head [Ports];
  logic [6:0] index_q [Ports];    // of the next word within its block
  logic [4:0] limb_q [Ports];     // of its block's first coefficient
  logic [63:0] sum0_q [Ports];
  logic [63:0] sum1_q [Ports];
  logic [127:0] total_q [Ports];
  logic [Ports-1:0] at_end_q;     // the job is a frame's end
  logic [Ports-1:0] any_q;        // the block has a word
  logic [23:0] length_q [Ports];  // domain, length

  for (genvar p = 0; p < int'(Ports); p++) begin : gen_fifo
    logic [63:0] fifo [4];
    logic [3:0] fifo_end;
    logic [2:0] wptr_q, rptr_q;
    logic full;
    assign full = wptr_q == {~rptr_q[2], rptr_q[1:0]};
    assign ready_o[p] = !full;
    assign head[p] = fifo[rptr_q[1:0]];
    assign head_end[p] = fifo_end[rptr_q[1:0]];
    assign ready_now[p] = wptr_q != rptr_q && !resting_q[p];
    always_ff @(posedge clk_i) begin
      if (valid_i[p] && !full) begin
        fifo[wptr_q[1:0]] <= word_i[p];
        fifo_end[wptr_q[1:0]] <= end_i[p];
      end
    end
    always_ff @(posedge clk_i or negedge rst_ni) begin
      if (!rst_ni) begin
        wptr_q <= '0;
        rptr_q <= '0;
      end else begin
        if (valid_i[p] && !full) wptr_q <= wptr_q + 3'd1;
        if (word_taken[p]) rptr_q <= rptr_q + 3'd1;
      end
    end
  end

  // Level 1. Stage 0: a port's head is taken, its key pairs are read. 1: sums. 2: products. 3: added.
  logic [PortBits-1:0] turn_q, port0, port1_q, port2_q, port3_q;
  logic take, mul1_q, mul2_q, mul3_q, last1_q, last2_q, last3_q, forget1_q, forget2_q, forget3_q;
  logic forget;
  always_comb begin
    port0 = turn_q;
    for (int unsigned i = Ports; i > 0; i--) begin
      automatic logic [PortBits:0] sum = (PortBits+1)'(turn_q) + (PortBits+1)'(i);
      automatic logic [PortBits-1:0] candidate =
          PortBits'(sum >= (PortBits+1)'(Ports) ? sum - (PortBits+1)'(Ports) : sum);
      if (ready_now[candidate]) port0 = candidate;
    end
    word_taken = '0;
    word_taken[port0] = ready_now[port0];
  end
  assign take = ready_now[port0];
  assign forget = head_end[port0] && head[port0][63];

  logic [63:0] word_q;
  logic [31:0] k0lo_q, k0hi_q, k1lo_q, k1hi_q;
  logic [31:0] a0_q, b0_q, a1_q, b1_q;
  logic [63:0] p0_q, p1_q;
  always_ff @(posedge clk_i) begin
    if (take) begin
      word_q <= head[port0];
      k0lo_q <= pair0_lo[index_q[port0]];
      k0hi_q <= pair0_hi[index_q[port0]];
      k1lo_q <= pair1_lo[index_q[port0]];
      k1hi_q <= pair1_hi[index_q[port0]];
    end
    if (mul1_q) begin
      a0_q <= word_q[31:0] + k0lo_q;
      b0_q <= word_q[63:32] + k0hi_q;
      a1_q <= word_q[31:0] + k1lo_q;
      b1_q <= word_q[63:32] + k1hi_q;
    end
    if (mul2_q) begin
      p0_q <= 64'(a0_q) * 64'(b0_q);
      p1_q <= 64'(a1_q) * 64'(b1_q);
    end
  end

  // Level 2: sum of limb * coefficient modulo 2^128, two slots for each of up to four products:
  // 0 limb 0 * 1, 1 limb 1 * length (both at a frame's end), 2 and 3 the block's two sums.
  logic [Ports-1:0] job_q;        // level 1 is through, level 2 has something to do
  logic busy_q, slot1_q, slot2_q, high1_q, high2_q, final1_q, final2_q;
  logic [2:0] slot_q, slot_last_q;
  logic [PortBits-1:0] job_port_q, next_job;
  logic [127:0] limb_read_q;
  logic [63:0] coefficient_q;
  logic [63:0] x0_q, x1_q, x2_q, x3_q;
  logic [127:0] total_q2;
  logic issue;
  assign issue = busy_q;
  always_comb begin
    next_job = '0;
    for (int unsigned i = 0; i < Ports; i++) if (job_q[i]) next_job = PortBits'(i);
  end
  logic [4:0] limb_address;
  always_comb begin
    unique case (slot_q[2:1])
      2'd0: limb_address = 5'd0;
      2'd1: limb_address = 5'd1;
      2'd2: limb_address = limb_q[job_port_q];
      default: limb_address = limb_q[job_port_q] + 5'd1;
    endcase
  end
  logic [31:0] c0, c1, l0, l1;
  assign {c1, c0} = coefficient_q;
  assign {l1, l0} = high1_q ? limb_read_q[127:64] : limb_read_q[63:0];
  // The lower half of the limb counts whole, of the upper one what stays below 2^128.
  function automatic logic [127:0] partial(input logic high, input logic [63:0] x0, input logic [63:0] x1,
                                           input logic [63:0] x2, input logic [63:0] x3);
    if (high) return {x0 + {x1[31:0] + x2[31:0], 32'b0}, 64'b0};
    return 128'(x0) + ((128'(x1) + 128'(x2)) << 32) + {x3, 64'b0};
  endfunction
  always_ff @(posedge clk_i) begin
    if (issue) begin
      limb_read_q <= {limb3[limb_address], limb2[limb_address], limb1[limb_address], limb0[limb_address]};
      unique case (slot_q[2:1])
        2'd0: coefficient_q <= 64'd1;
        2'd1: coefficient_q <= {24'b0, length_q[job_port_q][23:16], 16'b0, length_q[job_port_q][15:0]};
        2'd2: coefficient_q <= sum0_q[job_port_q];
        default: coefficient_q <= sum1_q[job_port_q];
      endcase
    end
    if (slot1_q) begin
      x0_q <= 64'(l0) * 64'(c0);
      x1_q <= 64'(l0) * 64'(c1);
      x2_q <= 64'(l1) * 64'(c0);
      x3_q <= 64'(l1) * 64'(c1);
    end
  end

  always_comb begin
    job_now = '0;
    job_now[port3_q] = last3_q;
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      turn_q <= '0;
      port1_q <= '0;
      port2_q <= '0;
      port3_q <= '0;
      mul1_q <= 1'b0;
      mul2_q <= 1'b0;
      mul3_q <= 1'b0;
      last1_q <= 1'b0;
      last2_q <= 1'b0;
      last3_q <= 1'b0;
      forget1_q <= 1'b0;
      forget2_q <= 1'b0;
      forget3_q <= 1'b0;
      resting_q <= '0;
      at_end_q <= '0;
      any_q <= '0;
      job_q <= '0;
      for (int p = 0; p < int'(Ports); p++) begin
        index_q[p] <= '0;
        limb_q[p] <= 5'd2;
        sum0_q[p] <= '0;
        sum1_q[p] <= '0;
        total_q[p] <= '0;
        length_q[p] <= '0;
      end
      busy_q <= 1'b0;
      slot_q <= '0;
      slot_last_q <= '0;
      slot1_q <= 1'b0;
      slot2_q <= 1'b0;
      high1_q <= 1'b0;
      high2_q <= 1'b0;
      final1_q <= 1'b0;
      final2_q <= 1'b0;
      job_port_q <= '0;
      total_q2 <= '0;
      done_o <= '0;
      digest_o <= '0;
    end else begin
      // Level 1.
      mul1_q <= take && !head_end[port0];
      last1_q <= take && !forget && (head_end[port0] || index_q[port0] == '1);
      forget1_q <= take && forget;
      forget2_q <= forget1_q;
      forget3_q <= forget2_q;
      port1_q <= port0;
      mul2_q <= mul1_q;
      last2_q <= last1_q;
      port2_q <= port1_q;
      mul3_q <= mul2_q;
      last3_q <= last2_q;
      port3_q <= port2_q;
      if (take) begin
        turn_q <= port0;
        if (head_end[port0]) begin
          length_q[port0] <= {head[port0][39:32], head[port0][15:0]};
          at_end_q[port0] <= !forget;
          resting_q[port0] <= 1'b1;
        end else begin
          any_q[port0] <= 1'b1;
          index_q[port0] <= index_q[port0] + 7'd1;
          if (index_q[port0] == '1) resting_q[port0] <= 1'b1;
        end
      end
      if (mul3_q) begin
        sum0_q[port3_q] <= sum0_q[port3_q] + p0_q;
        sum1_q[port3_q] <= sum1_q[port3_q] + p1_q;
      end
      if (forget3_q) begin
        sum0_q[port3_q] <= '0;
        sum1_q[port3_q] <= '0;
        any_q[port3_q] <= 1'b0;
        total_q[port3_q] <= '0;
        index_q[port3_q] <= '0;
        limb_q[port3_q] <= 5'd2;
        resting_q[port3_q] <= 1'b0;
      end
      job_q <= job_q | job_now;

      // Level 2.
      done_o <= '0;
      slot1_q <= issue;
      high1_q <= slot_q[0];
      final1_q <= issue && slot_q == slot_last_q;
      slot2_q <= slot1_q;
      high2_q <= high1_q;
      final2_q <= final1_q;
      if (!busy_q && !slot1_q && !slot2_q && job_q != '0) begin
        busy_q <= 1'b1;
        job_port_q <= next_job;
        job_q[next_job] <= 1'b0;
        total_q2 <= total_q[next_job];
        slot_q <= at_end_q[next_job] ? 3'd0 : 3'd4;
        slot_last_q <= any_q[next_job] ? 3'd7 : 3'd3;
      end else if (issue) begin
        slot_q <= slot_q + 3'd1;
        if (slot_q == slot_last_q) busy_q <= 1'b0;
      end
      if (slot2_q) begin
        automatic logic [127:0] total = total_q2 + partial(high2_q, x0_q, x1_q, x2_q, x3_q);
        total_q2 <= total;
        if (final2_q) begin
          resting_q[job_port_q] <= 1'b0;
          sum0_q[job_port_q] <= '0;
          sum1_q[job_port_q] <= '0;
          any_q[job_port_q] <= 1'b0;
          if (at_end_q[job_port_q]) begin
            done_o[job_port_q] <= 1'b1;
            digest_o <= total[127:64];
            total_q[job_port_q] <= '0;
            index_q[job_port_q] <= '0;
            limb_q[job_port_q] <= 5'd2;
            at_end_q[job_port_q] <= 1'b0;
          end else begin
            total_q[job_port_q] <= total;
            if (limb_q[job_port_q] != 5'd18) limb_q[job_port_q] <= limb_q[job_port_q] + 5'd2;
          end
        end
      end
    end
  end
endmodule
