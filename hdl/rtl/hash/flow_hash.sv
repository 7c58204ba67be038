// SPDX-License-Identifier: Apache-2.0
// The flow hash of Ethernet frames over a stream of bytes, as twinstamp/flow.h has it for a frame alone:
// parse_frame (layer `outer`), flow_key and flow_hash in mode `flow`, bit for bit, at any depth of headers.
//
// Not in it is what takes more than the frame itself: a later fragment has no ports here (the host may know
// them from the first one), an ICMP error is hashed by its own addresses, not by those of the packet that it
// quotes. A flow's direction makes no difference.
// Clock: clk_i, a byte a clock at most; the key is written in key_clk_i: FlowHashKey as it lies in memory,
// in 32-bit words 0 to 23, while no frame is under way.
// Stream: as frame_digest; bytes are not counted, so a cut at the longest frame makes no difference but for
// an IP header cut there. At least 5 clocks between last_i and the next first_i.
// Result: done_o for one clock with hash_o, for each last_i in order, at most 72 clocks after it, later
// where frames of under 40 bytes follow each other at full rate.
// Back-pressure: none. Whoever feeds it starts no frame while three results are owed (frame_hash sees to it).
module flow_hash (
  input  logic        clk_i,
  input  logic        rst_ni,

  input  logic        key_clk_i,
  input  logic        key_write_i,
  input  logic [4:0]  key_address_i,
  input  logic [31:0] key_data_i,

  input  logic        valid_i,
  input  logic [7:0]  data_i,
  input  logic        first_i,
  input  logic        last_i,
  input  logic        abort_i,

  output logic        done_o,
  output logic [63:0] hash_o
);
  // Headers (twinstamp/parse.h), a byte at a time.
  typedef enum logic [3:0] {
    StMac, StType, StTag, StPppoe, StLlc, StIpv4, StIpv6, StExtension, StPorts, StDone
  } state_e;
  state_e      state_q;
  logic [11:0] count_q;      // bytes of this header before this one
  logic        frame_q, end_q;
  logic [7:0]  previous_q;
  logic [95:0] macs_q;       // destination, source
  logic        macs_known_q;
  logic        macs_above_q, macs_differ_q;  // source > destination; they differ so far
  logic [15:0] ethertype_q;
  logic [2:0]  family_q;     // 4, 6, or 0
  logic [7:0]  protocol_q;   // IPv6: of the header under way
  logic [7:0]  next_q;
  logic        later_q;      // a later fragment
  logic [16:0] left_q;       // bytes of layer 3 behind the header under way; bit 16: up to the frame's end
  logic [11:0] header_q;     // bytes of the header under way
  // Addresses; of IPv4 both stand in destination0_q.
  logic [63:0] source1_q, source0_q, destination1_q, destination0_q;
  logic        above_q, differ_q;
  logic [31:0] ports_q;
  logic [7:0]  before1_q, before2_q;  // bytes before previous_q

  logic        first, take, in_frame;
  state_e      state;
  logic [11:0] count;
  logic [15:0] pair;
  assign first = valid_i && first_i;
  assign in_frame = (first || frame_q) && !abort_i;
  assign take = valid_i && in_frame;
  assign state = first ? StMac : state_q;
  assign count = first ? '0 : count_q;
  assign pair = {previous_q, data_i};

  // An IPv6 extension header's length, from its second byte.
  logic [11:0] extension;
  always_comb begin
    unique case (protocol_q)
      8'd44: extension = 12'd8;
      8'd51: extension = (12'(data_i) + 12'd2) << 2;
      default: extension = (12'(data_i) + 12'd1) << 3;
    endcase
  end

  // Where a header chain goes on: behind IPv6's own header with protocol_q, behind an extension with next_q.
  // (No functions: their names would differ from port to port, and Verilator share no code between them.)
  logic [7:0] protocol;
  logic       has_ports, is_extension, any_left;
  state_e     after;
  assign protocol = state == StExtension ? next_q : protocol_q;
  assign has_ports = protocol inside {8'd6, 8'd17, 8'd33, 8'd132, 8'd136};
  assign is_extension = protocol inside {8'd0, 8'd43, 8'd44, 8'd51, 8'd60, 8'd135, 8'd139, 8'd140};
  assign any_left = left_q[16:2] != '0;
  always_comb begin
    after = has_ports && any_left ? StPorts : StDone;
    if (is_extension) after = left_q[16:3] == '0 ? StDone : StExtension;
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= StDone;
      count_q <= '0;
      frame_q <= 1'b0;
      end_q <= 1'b0;
      macs_known_q <= 1'b0;
      macs_above_q <= 1'b0;
      macs_differ_q <= 1'b0;
      ethertype_q <= '0;
      family_q <= '0;
      protocol_q <= '0;
      next_q <= '0;
      later_q <= 1'b0;
      left_q <= '0;
      header_q <= '0;
      above_q <= 1'b0;
      differ_q <= 1'b0;
      ports_q <= '0;
    end else begin
      frame_q <= in_frame && !last_i;
      end_q <= in_frame && last_i;
      if (first) begin
        macs_known_q <= 1'b0;
        macs_differ_q <= 1'b0;
        macs_above_q <= 1'b0;
        ethertype_q <= '0;
        family_q <= '0;
        later_q <= 1'b0;
        differ_q <= 1'b0;
        above_q <= 1'b0;
        ports_q <= '0;
      end
      if (take) begin
        state_q <= state;
        count_q <= count + 12'd1;
        unique case (state)
          StMac: begin
            if (count >= 12'd6 && !macs_differ_q && data_i != macs_q[47:40]) begin
              macs_differ_q <= 1'b1;
              macs_above_q <= data_i > macs_q[47:40];
            end
            if (count == 12'd11) begin
              macs_known_q <= 1'b1;
              state_q <= StType;
              count_q <= '0;
            end
          end

          StType, StTag: if (count == (state == StType ? 12'd1 : 12'd3)) begin
            count_q <= '0;
            if (pair inside {16'h8100, 16'h88A8, 16'h9100}) begin
              state_q <= StTag;
            end else begin
              ethertype_q <= pair;
              unique case (pair)
                16'h0800: state_q <= StIpv4;
                16'h86DD: state_q <= StIpv6;
                16'h8864: state_q <= StPppoe;
                default: state_q <= pair < 16'h0600 ? StLlc : StDone;
              endcase
            end
          end

          // A length, which says nothing about who talks.
          StLlc: if (count == 12'd2) begin
            if (ethertype_q >= 16'd3) ethertype_q <= '0;
            state_q <= StDone;
          end

          StPppoe: if (count == 12'd7) begin
            count_q <= '0;
            unique case (pair)
              16'h0021: state_q <= StIpv4;
              16'h0057: state_q <= StIpv6;
              default: state_q <= StDone;
            endcase
          end

          StIpv4: begin
            unique case (count)
              12'd0: begin
                header_q <= {6'b0, data_i[3:0], 2'b00};
                if (data_i[7:4] != 4'd4 || data_i[3:0] < 4'd5) state_q <= StDone;
              end
              12'd3: begin
                // Segmentation offload leaves 0: the packet is what was captured.
                left_q <= pair == '0 ? 17'h10000 : {1'b0, pair - {4'b0, header_q}};
                if (pair != '0 && pair < {4'b0, header_q}) state_q <= StDone;
              end
              12'd7: later_q <= pair[12:0] != '0;
              12'd9: protocol_q <= data_i;
              12'd16, 12'd17, 12'd18, 12'd19: if (!differ_q && data_i != destination0_q[31:24]) begin
                differ_q <= 1'b1;
                above_q <= data_i < destination0_q[31:24];
              end
              default: ;
            endcase
            if (count == header_q - 12'd1 && count > 12'd3) begin
              family_q <= 3'd4;
              count_q <= '0;
              state_q <= !later_q && has_ports && any_left ? StPorts : StDone;
            end
          end

          StIpv6: begin
            unique case (count)
              12'd0: if (data_i[7:4] != 4'd6) state_q <= StDone;
              12'd5: left_q <= {1'b0, pair};
              12'd6: begin
                protocol_q <= data_i;
                // A jumbogram (RFC 2675), or a segment left to hardware; where nothing follows, it is no matter.
                if (left_q == '0) left_q <= 17'h10000;
              end
              default: ;
            endcase
            if (count >= 12'd24 && !differ_q && data_i != destination1_q[63:56]) begin
              differ_q <= 1'b1;
              above_q <= data_i < destination1_q[63:56];
            end
            if (count == 12'd39) begin
              family_q <= 3'd6;
              count_q <= '0;
              state_q <= after;
            end
          end

          // Cut by its own packet's end: protocol_q stays at the extension header, as it does where the
          // frame ends.
          StExtension: begin
            if (count == 12'd0) next_q <= data_i;
            if (count == 12'd1) begin
              header_q <= extension;
              if (!left_q[16]) left_q <= left_q - 17'(extension);
              if (!left_q[16] && left_q[15:0] < 16'(extension)) state_q <= StDone;
            end
            if (count == 12'd3 && protocol_q == 8'd44 && pair[15:3] != '0) later_q <= 1'b1;
            if (count == header_q - 12'd1 && count > 12'd1) begin
              count_q <= '0;
              protocol_q <= next_q;
              state_q <= later_q ? StDone : after;
            end
          end

          // Above each other only where the addresses are equal; known only when both are there.
          StPorts: if (count == 12'd3) begin
            ports_q <= {before2_q, before1_q, previous_q, data_i};
            state_q <= StDone;
          end

          default: count_q <= '0;
        endcase
      end
    end
  end

  always_ff @(posedge clk_i) begin
    if (take) begin
      previous_q <= data_i;
      before1_q <= previous_q;
      before2_q <= before1_q;
      if (state == StMac) macs_q <= {macs_q[87:0], data_i};
      if ((state == StIpv4 && count inside {[12'd12:12'd19]}) || (state == StIpv6 && count >= 12'd8)) begin
        source1_q <= {source1_q[55:0], source0_q[63:56]};
        source0_q <= {source0_q[55:0], destination1_q[63:56]};
        destination1_q <= {destination1_q[55:0], destination0_q[63:56]};
        destination0_q <= {destination0_q[55:0], data_i};
      end
    end
  end

  // Characters of the multilinear hash, endpoints in sorted order, into a FIFO.
  typedef struct packed {
    logic        final_one;
    logic [63:0] value;
  } character_t;
  character_t character, head;
  logic [2:0] step_q;
  logic making_q, reversed, write, head_valid, head_take;
  logic [4:0] unused_used;
  logic [63:0] a0, b0;

  // Of MAC addresses only the pair counts: ports_q is 0.
  assign reversed = family_q == '0 ? macs_above_q
                  : differ_q       ? above_q
                                   : ports_q[31:16] > ports_q[15:0];
  assign write = end_q || making_q;
  always_comb begin
    a0 = '0;
    b0 = '0;
    character = '0;
    if (write) begin
      if (family_q == 3'd6) begin
        a0 = reversed ? destination1_q : source1_q;
        b0 = reversed ? source1_q : destination1_q;
      end else if (macs_known_q) begin
        a0 = {reversed ? macs_q[95:48] : macs_q[47:0], 16'b0};
        b0 = {reversed ? macs_q[47:0] : macs_q[95:48], 16'b0};
      end
      unique case (step_q)
        3'd0: character.value = {
            13'b0, family_q, family_q == '0 ? ethertype_q : {8'b0, protocol_q},
            reversed ? {ports_q[15:0], ports_q[31:16]} : ports_q
        };
        3'd1: character.value = family_q != 3'd4 ? a0
                              : reversed         ? {destination0_q[31:0], destination0_q[63:32]}
                                                 : destination0_q;
        3'd2: character.value = b0;
        3'd3: character.value = reversed ? destination0_q : source0_q;
        default: character.value = reversed ? source0_q : destination0_q;
      endcase
      // The lower halves of MAC addresses are zero, and so are their products.
      character.final_one = step_q == (family_q == 3'd4 ? 3'd1 : family_q == 3'd6 ? 3'd4 : 3'd2);
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      step_q <= '0;
      making_q <= 1'b0;
    end else if (write) begin
      making_q <= !character.final_one;
      step_q <= character.final_one ? 3'd0 : step_q + 3'd1;
    end
  end
  token_fifo #(.Width($bits(character_t))) u_fifo (
    .clk_i, .rst_ni, .write_i(write), .data_i(character), .used_o(unused_used),
    .valid_o(head_valid), .data_o(head), .take_i(head_take)
  );

  // Key, in distributed memory.
  logic [31:0] key_low [16];
  logic [31:0] key_high [16];
  always_ff @(posedge key_clk_i) begin
    if (key_write_i && !key_address_i[0]) key_low[key_address_i[4:1]] <= key_data_i;
    if (key_write_i && key_address_i[0]) key_high[key_address_i[4:1]] <= key_data_i;
  end

  // Products: the constant times 1, the characters, then those of mix64.
  typedef enum logic [2:0] {EnIdle, EnConstant, EnCharacter, EnMix1, EnMix2} engine_e;
  typedef struct packed {
    logic       valid;
    logic       first;
    logic       last;    // of its sum
    logic [1:0] column;
  } op_t;
  localparam int unsigned Stages = 6;
  localparam logic [63:0] Mix1 = 64'hBF58476D1CE4E5B9;
  localparam logic [63:0] Mix2 = 64'h94D049BB133111EB;
  engine_e engine_q;
  op_t op;
  op_t [Stages:1] op_q;
  logic [2:0] product_q;
  logic [2:0] limb_q;
  logic wait_q;              // all products of this sum have started
  logic [63:0] x_q, low, high, product;
  logic [31:0] a_q, b_q, key_word, mix_word;
  logic [63:0] mix;
  logic step_done, mixing;

  assign key_word = product_q[1] ? key_high[{limb_q, product_q[2]}] : key_low[{limb_q, product_q[2]}];
  assign mixing = engine_q == EnMix1 || engine_q == EnMix2;
  assign mix = engine_q == EnMix1 ? Mix1 : Mix2;
  // Products 0 (low, low), 1 (low constant, high value), 2 (high constant, low value).
  assign mix_word = product_q[1] ? mix[63:32] : mix[31:0];
  assign step_done = mixing ? product_q == 3'd2 : product_q == 3'd6;

  always_comb begin
    op = '0;
    op.valid = !wait_q && (engine_q == EnConstant || (engine_q == EnCharacter && head_valid) || mixing);
    op.first = product_q == '0 && engine_q != EnCharacter;
    op.last = step_done && (mixing || (engine_q == EnCharacter && head.final_one));
    op.column = product_q[2:1] + 2'(product_q[0]);
    head_take = op.valid && engine_q == EnCharacter && step_done;
  end

  logic sum_ready;
  // low_o of a finished sum; high_o is a clock later.
  assign sum_ready = (mixing && op_q[5].last) || (engine_q == EnCharacter && op_q[6].last);

  // Nothing moves between frames: less to switch, and to simulate.
  logic done_q, moving, active;
  always_comb begin
    moving = op.valid;
    for (int i = 1; i <= int'(Stages); i++) moving = moving || op_q[i].valid;
  end
  assign active = moving || engine_q != EnIdle || head_valid || done_q;
  logic [63:0] shifted;
  assign shifted = engine_q == EnCharacter ? high ^ (high >> 30)
                 : engine_q == EnMix1      ? low ^ (low >> 27)
                                           : low ^ (low >> 31);
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      engine_q <= EnIdle;
      product_q <= '0;
      limb_q <= '0;
      wait_q <= 1'b0;
      done_q <= 1'b0;
      x_q <= '0;
      op_q <= '0;
    end else if (active) begin
      done_q <= 1'b0;
      op_q <= {op_q[Stages-1:1], op};
      if (engine_q == EnIdle) begin
        limb_q <= '0;
        product_q <= '0;
        if (head_valid) engine_q <= EnConstant;
      end
      if (op.valid) begin
        product_q <= step_done ? 3'd0 : product_q + (engine_q == EnConstant ? 3'd2 : 3'd1);
        if (step_done && !mixing) limb_q <= limb_q + 3'd1;
        if (step_done && engine_q == EnConstant) engine_q <= EnCharacter;
        if (op.last) wait_q <= 1'b1;
      end
      if (sum_ready) begin
        wait_q <= 1'b0;
        x_q <= shifted;
        unique case (engine_q)
          EnCharacter: engine_q <= EnMix1;
          EnMix1: engine_q <= EnMix2;
          default: begin
            engine_q <= EnIdle;
            done_q <= 1'b1;
          end
        endcase
      end
    end
  end

  always_ff @(posedge clk_i) if (op.valid) begin
    if (mixing) begin
      a_q <= product_q[0] ? x_q[63:32] : x_q[31:0];
      b_q <= mix_word;
    end else begin
      a_q <= engine_q == EnConstant ? 32'd1 : product_q[0] ? head.value[63:32] : head.value[31:0];
      b_q <= key_word;
    end
  end
  mul32 u_multiply (.clk_i, .enable_i(moving), .a_i(a_q), .b_i(b_q), .product_o(product));
  limb_sum u_sum (
    .clk_i, .valid_i(op_q[4].valid), .first_i(op_q[4].first), .column_i(op_q[4].column),
    .product_i(product), .low_o(low), .high_o(high)
  );

  assign done_o = done_q;
  assign hash_o = x_q;
endmodule
