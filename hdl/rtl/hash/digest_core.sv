// SPDX-License-Identifier: Apache-2.0
// Half 0 of the keyed frame digest (twinstamp/hash.h, profile `exact`: domain 0) over a stream of words.
//
// Clock: clk_i; the key is written in key_clk_i. One 32 x 32 multiplier serves NH (two products a word) and,
// in the clocks it leaves free, level 2 (seven a limb).
// Stream: tokens of a word (word_valid_i; eight bytes, first lowest, the last word padded with zeros), of the
// end of a message (end_i, with length_i, its bytes), or of both. start_i goes with a message's first token;
// where the message before it had no end, that one is forgotten.
// Rate: a word in four clocks, 24 clocks more for each message; ready_o holds tokens back otherwise.
// Result: done_o for one clock with digest_o, for each end in order, 35 to 60 clocks after it.
// Key: 32-bit words 0 to 263 are HashKey::nh, from 264 on limbs[0], as they lie in memory; those of a
// 9216-byte frame end at 343. Written only while no message is under way. Longest message:
// 1024 * ((512 - 264) / 8 - 1) = 30720 bytes.
module digest_core (
  input  logic        clk_i,
  input  logic        rst_ni,

  input  logic        key_clk_i,
  input  logic        key_write_i,
  input  logic [8:0]  key_address_i,
  input  logic [31:0] key_data_i,

  input  logic        valid_i,
  output logic        ready_o,
  input  logic        start_i,
  input  logic        end_i,
  input  logic        word_valid_i,
  input  logic [63:0] word_i,
  input  logic [15:0] length_i,

  output logic        done_o,
  output logic [63:0] digest_o
);
  localparam logic [7:0] LimbBase = 8'd132;  // in pairs of 32-bit words

  // Key memory, two banks of 32 bits, with an output register.
  logic [31:0] key_low [256];
  logic [31:0] key_high [256];
  logic [31:0] low_ram_q, high_ram_q, low_key_q, high_key_q;
  logic [7:0] address;
  always_ff @(posedge key_clk_i) begin
    if (key_write_i && !key_address_i[0]) key_low[key_address_i[8:1]] <= key_data_i;
    if (key_write_i && key_address_i[0]) key_high[key_address_i[8:1]] <= key_data_i;
  end
  always_ff @(posedge clk_i) begin
    low_ram_q <= key_low[address];
    high_ram_q <= key_high[address];
    low_key_q <= low_ram_q;
    high_key_q <= high_ram_q;
  end

  // What goes along with a product: operand stages 0 to 3 (address, memory, key, operands), then mul32.
  typedef struct packed {
    logic       nh;      // a product of NH, of stream `stream`
    logic       level2;  // or one of level 2
    logic       stream;
    logic       first;   // its sum starts here
    logic       last;    // the digest ends here
    logic [1:0] column;
    logic       key_odd;
  } op_t;
  localparam int unsigned Stages = 7;
  op_t op, op_q [1:Stages];

  // NH: words of the block under way.
  logic [63:0] word_q;
  logic [2:0]  phase_q;      // 0: no word; 1, 2: its products start; 3, 4: the word is still needed
  logic [6:0]  index_q;      // place in the block of the word in word_q
  logic [6:0]  next_q;       // of the next one
  logic        some_q;       // the block has words
  logic        open_q;       // a message is under way
  logic        closing_q;    // the block is full or the message at its end: waits for level 2
  logic        end_q;
  logic [15:0] length_q;
  logic [5:0]  pair_q;       // block of the message
  logic [63:0] nh_q [2];

  // Level 2.
  typedef enum logic [1:0] {StepFirst, StepSecond, StepLength, StepConstant} step_e;
  logic        busy_q;
  step_e       step_q;
  logic [2:0]  product_q;    // key word product_q >> 1, half product_q & 1 of the value
  logic        last_q;       // the job ends the digest
  logic        fresh_q;      // the sum starts with the next product
  logic [63:0] n_q [2];
  logic [15:0] job_length_q;
  logic [5:0]  job_pair_q;
  logic [31:0] value, value1_q, value2_q;

  logic nh_turn, nh_pending, accept, last_word;
  assign nh_turn = phase_q == 3'd1 || phase_q == 3'd2;
  always_comb begin
    nh_pending = nh_turn;
    for (int i = 1; i <= int'(Stages) - 1; i++) nh_pending |= op_q[i].nh;
  end

  // A message without an end is only forgotten when level 2 is through with its blocks.
  assign ready_o = (phase_q == 3'd0 || phase_q == 3'd4) && !closing_q && !(start_i && open_q && busy_q);
  assign accept = valid_i && ready_o;
  assign last_word = (start_i ? 7'd0 : next_q) == 7'd127;

  logic handover;
  assign handover = closing_q && !nh_pending && !busy_q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      phase_q <= '0;
      index_q <= '0;
      next_q <= '0;
      some_q <= 1'b0;
      open_q <= 1'b0;
      closing_q <= 1'b0;
      end_q <= 1'b0;
      pair_q <= '0;
      length_q <= '0;
      word_q <= '0;
    end else begin
      if (phase_q != '0) phase_q <= phase_q == 3'd4 ? 3'd0 : phase_q + 3'd1;
      if (accept) begin
        open_q <= !end_i;
        end_q <= end_i;
        length_q <= length_i;
        if (start_i) begin
          pair_q <= '0;
          next_q <= '0;
          some_q <= 1'b0;
        end
        if (word_valid_i) begin
          word_q <= word_i;
          phase_q <= 3'd1;
          index_q <= start_i ? 7'd0 : next_q;
          next_q <= (start_i ? 7'd0 : next_q) + 7'd1;
          some_q <= 1'b1;
        end
        closing_q <= end_i || (word_valid_i && last_word);
      end
      if (handover) begin
        closing_q <= 1'b0;
        some_q <= 1'b0;
        end_q <= 1'b0;
        pair_q <= pair_q + 6'd1;
      end
    end
  end

  // The next product's key words and operands. NH goes first.
  logic [2:0] product_next;
  logic step_done, job_done;
  // Products of weight 2^128 and more are left out: the highest key word meets the value's low half only;
  // the length and the constant's factor 1 have a low half only.
  assign product_next = product_q + (step_q == StepLength || step_q == StepConstant ? 3'd2 : 3'd1);
  assign step_done = product_q == 3'd6;
  assign job_done = step_done && (step_q == StepConstant || (step_q == StepSecond && !last_q));

  always_comb begin
    op = '0;
    address = {1'b0, index_q} + (phase_q == 3'd2 ? 8'd1 : 8'd0);
    value = '0;
    unique case (step_q)
      StepFirst: value = product_q[0] ? n_q[0][63:32] : n_q[0][31:0];
      StepSecond: value = product_q[0] ? n_q[1][63:32] : n_q[1][31:0];
      StepLength: value = {16'b0, job_length_q};
      default: value = 32'd1;
    endcase
    if (nh_turn) begin
      op.nh = 1'b1;
      op.stream = phase_q == 3'd2;
      op.first = index_q == '0;
    end else if (busy_q) begin
      op.level2 = 1'b1;
      op.first = fresh_q;
      op.last = job_done && last_q;
      op.column = product_q[2:1] + 2'(product_q[0]);
      op.key_odd = product_q[1];
      unique case (step_q)
        StepFirst: address = LimbBase + 8'd4 + {job_pair_q, 2'b00} + 8'(product_q[2]);
        StepSecond: address = LimbBase + 8'd6 + {job_pair_q, 2'b00} + 8'(product_q[2]);
        StepLength: address = LimbBase + 8'd2 + 8'(product_q[2]);
        default: address = LimbBase + 8'(product_q[2]);
      endcase
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      busy_q <= 1'b0;
      step_q <= StepFirst;
      product_q <= '0;
      last_q <= 1'b0;
      fresh_q <= 1'b1;
      job_length_q <= '0;
      job_pair_q <= '0;
      n_q[0] <= '0;
      n_q[1] <= '0;
    end else begin
      if (busy_q && !nh_turn) begin
        fresh_q <= 1'b0;
        product_q <= product_next;
        if (step_done) begin
          product_q <= '0;
          if (job_done) begin
            busy_q <= 1'b0;
            fresh_q <= last_q;
          end else begin
            step_q <= step_e'(step_q + 2'd1);
          end
        end
      end
      if (accept && start_i && open_q) fresh_q <= 1'b1;
      if (handover) begin
        busy_q <= 1'b1;
        step_q <= some_q ? StepFirst : StepLength;
        last_q <= end_q;
        job_length_q <= length_q;
        job_pair_q <= pair_q;
        n_q[0] <= nh_q[0];
        n_q[1] <= nh_q[1];
      end
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      for (int i = 1; i <= int'(Stages); i++) op_q[i] <= '0;
    end else begin
      op_q[1] <= op;
      for (int i = 2; i <= int'(Stages); i++) op_q[i] <= op_q[i-1];
    end
  end

  // Operands, from the key words that arrive with op_q[2].
  logic [31:0] a_q, b_q;
  always_ff @(posedge clk_i) begin
    value1_q <= value;
    value2_q <= value1_q;
    if (op_q[2].nh) begin
      a_q <= word_q[31:0] + low_key_q;
      b_q <= word_q[63:32] + high_key_q;
    end else begin
      a_q <= value2_q;
      b_q <= op_q[2].key_odd ? high_key_q : low_key_q;
    end
  end

  logic [63:0] product;
  mul32 u_multiply (.clk_i, .a_i(a_q), .b_i(b_q), .product_o(product));

  always_ff @(posedge clk_i) begin
    for (int s = 0; s < 2; s++) begin
      if (op_q[6].nh && op_q[6].stream == 1'(s)) nh_q[s] <= (op_q[6].first ? 64'b0 : nh_q[s]) + product;
    end
  end

  logic [63:0] high;
  limb_sum u_sum (
    .clk_i, .valid_i(op_q[6].level2), .first_i(op_q[6].first), .column_i(op_q[6].column),
    .product_i(product), .low_o(), .high_o(high)
  );

  logic done_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) done_q <= 1'b0;
    else done_q <= op_q[7].last;
  end
  assign done_o = done_q;
  assign digest_o = high;
endmodule
