// SPDX-License-Identifier: Apache-2.0
// Half 0 of the keyed frame digest (twinstamp/hash.h, profile `exact`) over a stream of bytes.
//
// Clock: clk_i, a byte a clock at most; the key is written in key_clk_i (digest_core says how).
// Stream: first_i with a frame's first byte, last_i with its last one or in any later clock before the next
// first_i (a frame without bytes: last_i alone is not a frame and ignored). abort_i, or a first_i without a
// last_i before it, forgets the frame. Bytes behind MaxBytes are left out, as a capture that is cut there.
// Result: done_o for one clock with digest_o, for each last_i in order, at most 64 clocks after it; nothing
// for a forgotten frame.
// Back-pressure: none. Whoever feeds it starts no frame while three results are owed (frame_hash sees to it).
// MaxBytes: 64 to 16384.
module frame_digest #(
  parameter int unsigned MaxBytes = 9216
) (
  input  logic        clk_i,
  input  logic        rst_ni,

  input  logic        key_clk_i,
  input  logic        key_write_i,
  input  logic [8:0]  key_address_i,
  input  logic [31:0] key_data_i,

  input  logic        valid_i,
  input  logic [7:0]  data_i,
  input  logic        first_i,
  input  logic        last_i,
  input  logic        abort_i,

  output logic        done_o,
  output logic [63:0] digest_o
);
  if (MaxBytes < 64 || MaxBytes > 16384) $fatal(1, "frame_digest: MaxBytes must be 64 to 16384");

  typedef struct packed {
    logic        start;
    logic        ends;
    logic        word_valid;
    logic [15:0] length;
    logic [63:0] word;
  } token_t;

  logic frame_q;             // between first_i and last_i or abort_i
  logic started_q;           // a token of this frame was made
  logic        longest_q;           // MaxBytes were taken
  logic [15:0] length_q;
  logic [63:0] word_q;

  // Frame state with this clock's byte in it.
  logic first, in_frame, take, started;
  logic [15:0] offset, length;
  logic [63:0] word;
  logic word_full, word_some;
  assign first = valid_i && first_i;
  assign in_frame = (first || frame_q) && !abort_i;
  assign offset = first ? '0 : length_q;
  assign take = valid_i && in_frame && (first || !longest_q);
  assign length = offset + 16'(take);
  assign started = !first && started_q;
  always_comb begin
    word = offset[2:0] == '0 && take ? '0 : word_q;
    if (take) word[8*offset[2:0] +: 8] = data_i;
  end
  assign word_full = take && length[2:0] == '0;
  assign word_some = word_full || length[2:0] != '0;

  logic ends, make;
  logic [4:0] unused_used;
  token_t token_q;
  logic token_valid_q;
  assign ends = in_frame && last_i;
  assign make = in_frame && (word_full || ends);

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      frame_q <= 1'b0;
      started_q <= 1'b0;
      longest_q <= 1'b0;
      length_q <= '0;
      word_q <= '0;
      token_q <= '0;
      token_valid_q <= 1'b0;
    end else begin
      frame_q <= in_frame && !last_i;
      started_q <= started || make;
      longest_q <= length == 16'(MaxBytes);
      length_q <= length;
      word_q <= word;
      token_valid_q <= make;
      if (make) begin
        token_q.start <= !started;
        token_q.ends <= ends;
        token_q.word_valid <= word_some;
        token_q.length <= length;
        token_q.word <= word;
      end
    end
  end

  token_t token;
  logic token_valid, token_ready;
  token_fifo #(.Width($bits(token_t))) u_fifo (
    .clk_i, .rst_ni, .write_i(token_valid_q), .data_i(token_q), .used_o(unused_used),
    .valid_o(token_valid), .data_o(token), .take_i(token_valid && token_ready)
  );

  digest_core u_core (
    .clk_i, .rst_ni, .key_clk_i, .key_write_i, .key_address_i, .key_data_i,
    .valid_i(token_valid), .ready_o(token_ready), .start_i(token.start), .end_i(token.ends),
    .word_valid_i(token.word_valid), .word_i(token.word), .length_i(token.length),
    .done_o, .digest_o
  );
endmodule
