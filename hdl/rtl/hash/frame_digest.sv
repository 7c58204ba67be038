// SPDX-License-Identifier: Apache-2.0
// Half 0 of the keyed digest of docs/decisions/0001-keyed-digest.md, over all ports' frames, or messages made of
// them, by one engine.
//
// Clock: the core clock. Each port hands over its words and, at a frame's end, its length in bytes and domain; done_o
// then pulses with the digest. One word a cycle for all ports together, of a port one every other cycle (four ports
// at line rate bring one every other cycle together); a block of 128 words or a frame's end takes 18 cycles of
// level 2. Latency from the end: 28 cycles alone, at most about 82 when all four ports end at once. So frames of at
// least 64 bytes, 84 cycles apart, are kept up with,
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
  logic [Ports-1:0] waits, head_end, resting_q, job_now;
  logic [63:0] head [Ports];
  logic [6:0] index_q [Ports];    // of the next word within its block
  logic [4:0] limb_q [Ports];     // of its block's first coefficient
  logic [63:0] sum0_q [Ports];
  logic [63:0] sum1_q [Ports];
  logic [127:0] total_q [Ports];
  logic [Ports-1:0] at_end_q;     // the job is a frame's end
  logic [Ports-1:0] any_q;        // the block has a word
  logic [23:0] length_q [Ports];  // domain, length

  // Level 1. Steps: 0 a port is chosen, its word leaves the FIFO; 1 the word and its key pairs are read; 2 sums;
  // 3 to 5 products; 6 added to the block's. A step's registers have the number of the step that reads them.
  localparam int unsigned Steps = 6;
  typedef struct packed {
    logic                word;    // not an end
    logic                last;    // of a block or a frame: level 2 comes next
    logic                forget;
    logic [PortBits-1:0] port;
  } step_t;
  logic take1_q;
  logic [PortBits-1:0] port1_q, turn_q, port0;
  logic [1:0] slot1_q;
  step_t step1;
  step_t [Steps:2] step_q;
  logic take;
  logic [1:0] slots [Ports];

  for (genvar p = 0; p < int'(Ports); p++) begin : gen_fifo
    logic [63:0] fifo [4];
    logic [3:0] fifo_end;
    logic [2:0] wptr_q, rptr_q;
    logic full;
    assign full = wptr_q == {~rptr_q[2], rptr_q[1:0]};
    assign ready_o[p] = !full;
    assign slots[p] = rptr_q[1:0];
    // A word that is on its way may be the last one of its block: the port has to wait until that is known.
    assign waits[p] = wptr_q != rptr_q && !resting_q[p] && !(take1_q && port1_q == PortBits'(p));
    assign head[p] = fifo[slot1_q];
    assign head_end[p] = fifo_end[slot1_q];
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
        if (take && port0 == PortBits'(p)) rptr_q <= rptr_q + 3'd1;
      end
    end
  end

  rr_pick #(.N(Ports)) u_turn (.last_i(turn_q), .valid_i(waits), .next_o(port0));
  assign take = waits != '0;
  always_comb begin
    step1.word = take1_q && !head_end[port1_q];
    step1.forget = take1_q && head_end[port1_q] && head[port1_q][63];
    step1.last = take1_q && (head_end[port1_q] ? !head[port1_q][63] : index_q[port1_q] == '1);
    step1.port = port1_q;
  end

  logic [63:0] word_q;
  logic [31:0] k0lo_q, k0hi_q, k1lo_q, k1hi_q;
  logic [31:0] a0_q, b0_q, a1_q, b1_q;
  logic [63:0] p0, p1;
  logic multiplies;
  always_ff @(posedge clk_i) begin
    if (take1_q) begin
      word_q <= head[port1_q];
      k0lo_q <= pair0_lo[index_q[port1_q]];
      k0hi_q <= pair0_hi[index_q[port1_q]];
      k1lo_q <= pair1_lo[index_q[port1_q]];
      k1hi_q <= pair1_hi[index_q[port1_q]];
    end
    if (step_q[2].word) begin
      a0_q <= word_q[31:0] + k0lo_q;
      b0_q <= word_q[63:32] + k0hi_q;
      a1_q <= word_q[31:0] + k1lo_q;
      b1_q <= word_q[63:32] + k1hi_q;
    end
  end
  assign multiplies = step_q[3].word || step_q[4].word || step_q[5].word;
  mul32 u_product0 (.clk_i, .enable_i(multiplies), .a_i(a0_q), .b_i(b0_q), .product_o(p0));
  mul32 u_product1 (.clk_i, .enable_i(multiplies), .a_i(a1_q), .b_i(b1_q), .product_o(p1));

  // Level 2: sum of limb * coefficient modulo 2^128, two slots for each of up to four products:
  // 0 limb 0 * 1, 1 limb 1 * length (both at a frame's end), 2 and 3 the block's two sums. A slot takes the lower or
  // the upper half of a limb. Steps: 0 limb and coefficient are read; 1 to 3 four products; 4 the middle ones are
  // added; 5 to the outer ones; 6 and 7 to the total, its lower half first.
  localparam int unsigned Slots = 7;
  typedef struct packed {
    logic valid;
    logic high;
    logic last;
  } slot_t;
  logic [Ports-1:0] job_q;        // level 1 is through, level 2 has something to do
  logic busy_q, busy;
  slot_t slot0;
  slot_t [Slots:1] slots_q;
  logic [2:0] slot_q, slot_last_q;
  logic [PortBits-1:0] job_port_q, next_job;
  logic [63:0] limb_half_q;
  logic [63:0] coefficient_q;
  logic [63:0] x0, x1, x2, x3;
  logic multiplies2;
  always_comb begin
    next_job = '0;
    for (int unsigned i = 0; i < Ports; i++) if (job_q[i]) next_job = PortBits'(i);
    slot0.valid = busy_q;
    slot0.high = slot_q[0];
    slot0.last = busy_q && slot_q == slot_last_q;
    busy = busy_q;
    for (int i = 1; i <= int'(Slots); i++) if (slots_q[i].valid) busy = 1'b1;
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
  always_ff @(posedge clk_i) begin
    if (busy_q) begin
      limb_half_q <= slot_q[0] ? {limb3[limb_address], limb2[limb_address]}
                               : {limb1[limb_address], limb0[limb_address]};
      unique case (slot_q[2:1])
        2'd0: coefficient_q <= 64'd1;
        2'd1: coefficient_q <= {24'b0, length_q[job_port_q][23:16], 16'b0, length_q[job_port_q][15:0]};
        2'd2: coefficient_q <= sum0_q[job_port_q];
        default: coefficient_q <= sum1_q[job_port_q];
      endcase
    end
  end
  assign multiplies2 = slots_q[1].valid || slots_q[2].valid || slots_q[3].valid;
  mul32 u_x0 (.clk_i, .enable_i(multiplies2), .a_i(limb_half_q[31:0]), .b_i(coefficient_q[31:0]), .product_o(x0));
  mul32 u_x1 (.clk_i, .enable_i(multiplies2), .a_i(limb_half_q[31:0]), .b_i(coefficient_q[63:32]), .product_o(x1));
  mul32 u_x2 (.clk_i, .enable_i(multiplies2), .a_i(limb_half_q[63:32]), .b_i(coefficient_q[31:0]), .product_o(x2));
  mul32 u_x3 (.clk_i, .enable_i(multiplies2), .a_i(limb_half_q[63:32]), .b_i(coefficient_q[63:32]), .product_o(x3));

  // The lower half of a limb counts whole, of the upper one what stays below 2^128.
  logic [127:0] outer_q, term_q;
  logic [64:0] middle_q;
  logic [63:0] low_q, high_q, high_term_q;
  logic [64:0] low_sum;
  logic [63:0] high_sum;
  logic carry_q;
  assign low_sum = {1'b0, low_q} + {1'b0, slots_q[6].high ? 64'b0 : term_q[63:0]};
  assign high_sum = 64'(({high_q, 1'b1} + {high_term_q, carry_q}) >> 1);   // the carry comes in from below
  always_ff @(posedge clk_i) begin
    if (slots_q[4].valid) begin
      outer_q <= {x3, x0};
      middle_q <= {1'b0, x1} + {1'b0, x2};
    end
    if (slots_q[5].valid) term_q <= {outer_q[127:32] + {31'b0, middle_q}, outer_q[31:0]};
    if (slots_q[6].valid) begin
      carry_q <= low_sum[64];
      high_term_q <= slots_q[6].high ? term_q[63:0] : term_q[127:64];
    end
  end

  always_comb begin
    job_now = '0;
    job_now[step_q[Steps].port] = step_q[Steps].last;
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      turn_q <= '0;
      take1_q <= 1'b0;
      port1_q <= '0;
      slot1_q <= '0;
      step_q <= '0;
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
      slots_q <= '0;
      job_port_q <= '0;
      low_q <= '0;
      high_q <= '0;
      done_o <= '0;
      digest_o <= '0;
    end else begin
      // Level 1.
      take1_q <= take;
      if (take) begin
        turn_q <= port0;
        port1_q <= port0;
        slot1_q <= slots[port0];
      end
      step_q <= {step_q[Steps-1:2], step1};
      if (take1_q) begin
        if (head_end[port1_q]) begin
          length_q[port1_q] <= {head[port1_q][39:32], head[port1_q][15:0]};
          at_end_q[port1_q] <= !head[port1_q][63];
          resting_q[port1_q] <= 1'b1;
        end else begin
          any_q[port1_q] <= 1'b1;
          index_q[port1_q] <= index_q[port1_q] + 7'd1;
          if (index_q[port1_q] == '1) resting_q[port1_q] <= 1'b1;
        end
      end
      if (step_q[Steps].word) begin
        sum0_q[step_q[Steps].port] <= sum0_q[step_q[Steps].port] + p0;
        sum1_q[step_q[Steps].port] <= sum1_q[step_q[Steps].port] + p1;
      end
      if (step_q[Steps].forget) begin
        sum0_q[step_q[Steps].port] <= '0;
        sum1_q[step_q[Steps].port] <= '0;
        any_q[step_q[Steps].port] <= 1'b0;
        total_q[step_q[Steps].port] <= '0;
        index_q[step_q[Steps].port] <= '0;
        limb_q[step_q[Steps].port] <= 5'd2;
        resting_q[step_q[Steps].port] <= 1'b0;
      end
      job_q <= job_q | job_now;

      // Level 2.
      done_o <= '0;
      slots_q <= {slots_q[Slots-1:1], slot0};
      if (!busy && job_q != '0) begin
        busy_q <= 1'b1;
        job_port_q <= next_job;
        job_q[next_job] <= job_now[next_job];
        {high_q, low_q} <= total_q[next_job];
        slot_q <= at_end_q[next_job] ? 3'd0 : 3'd4;
        slot_last_q <= any_q[next_job] ? 3'd7 : 3'd3;
      end else if (busy_q) begin
        slot_q <= slot_q + 3'd1;
        if (slot_q == slot_last_q) busy_q <= 1'b0;
      end
      if (slots_q[6].valid) low_q <= low_sum[63:0];
      if (slots_q[7].valid) begin
        high_q <= high_sum;
        if (slots_q[7].last) begin
          resting_q[job_port_q] <= 1'b0;
          sum0_q[job_port_q] <= '0;
          sum1_q[job_port_q] <= '0;
          any_q[job_port_q] <= 1'b0;
          if (at_end_q[job_port_q]) begin
            done_o[job_port_q] <= 1'b1;
            digest_o <= high_sum;
            total_q[job_port_q] <= '0;
            index_q[job_port_q] <= '0;
            limb_q[job_port_q] <= 5'd2;
            at_end_q[job_port_q] <= 1'b0;
          end else begin
            total_q[job_port_q] <= {high_sum, low_q};
            if (limb_q[job_port_q] != 5'd18) limb_q[job_port_q] <= limb_q[job_port_q] + 5'd2;
          end
        end
      end
    end
  end

  // Simulation: nothing moves until a word comes (tools/model_edges.py).
  logic asleep;
  logic stepping;
  always_comb begin
    stepping = take1_q;
    for (int i = 2; i <= int'(Steps); i++) if (step_q[i].word || step_q[i].last || step_q[i].forget) stepping = 1'b1;
  end
  assign asleep = !stepping && !busy && waits == '0 && valid_i == '0 && job_q == '0 && done_o == '0;
endmodule
