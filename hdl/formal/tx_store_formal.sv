// SPDX-License-Identifier: Apache-2.0
// tx_store: the n-th good frame on the stream is the n-th frame out, byte by byte; n is any. One clock for both
// sides (the crossing is async_fifo's, with a proof of its own), a store of four words, frames of 1 or 9
// bytes (0 and 10 are refused), a MAC that takes a byte in every period.
module tx_store_formal
  import twinstamp_tx_pkg::*;
#(
  parameter int unsigned Place = 3      // the byte of the frame that is watched: 0 to 8
) (
  input logic        clk_i,
  input logic        tvalid_i,
  input logic [8:0]  free_i,
  input logic [7:0]  tkeep_i,
  input logic        tlast_i,
  input logic        go_i,
  input logic        drop_i,
  input logic        frame_ready_i,
  input logic        release_i
);
  logic [2:0] watched;      // any
  always_ff @(posedge clk_i) watched <= watched;
  localparam logic [3:0] place = 4'(Place);

  logic rst_n = 1'b0;
  always_ff @(posedge clk_i) rst_n <= 1'b1;

  logic tready, malformed, meta_valid, go_ready, frame_valid, byte_valid, byte_last, empty, release_now;
  tx_meta_t meta;
  tx_frame_t go, frame;
  logic [7:0] byte_data;
  logic go_valid;
  logic [63:0] tdata_i;
  // Frames that are out and whose words are not given back yet, oldest first.
  logic [10:0] held_words [4];
  logic [2:0] held_w = '0, held_r = '0;
  assign go_valid = meta_valid && go_i && go_ready;
  assign go = '{drop: drop_i, bad_fcs: 1'b0, stage: meta.head.stage, length: meta.head.length};
  tx_store #(.StoreLog2(5), .MetaLog2(1), .MinLength(1), .MaxLength(9)) u_store (
    .clk_i, .rst_ni(rst_n), .s_axis_tvalid(tvalid_i && rst_n), .s_axis_tready(tready), .s_axis_tdata(tdata_i),
    .s_axis_tkeep(tkeep_i), .s_axis_tlast(tlast_i), .malformed_o(malformed), .meta_valid_o(meta_valid),
    .meta_o(meta), .meta_ready_i(go_valid), .empty_o(empty), .launch_waiting_o(), .go_valid_i(go_valid),
    .go_i(go), .go_ready_o(go_ready), .release_i(release_now), .release_words_i(11'(held_words[held_r[1:0]])),
    .tx_clk_i(clk_i), .tx_rst_ni(rst_n), .frame_valid_o(frame_valid), .frame_o(frame),
    .frame_ready_i, .byte_valid_o(byte_valid), .byte_o(byte_data), .byte_last_o(byte_last), .byte_ready_i(1'b1),
    .late_i('0)
  );

  // Reference: the stream as the header of tx_store describes it.
  logic [3:0] beat_q = '0;
  logic ok_q = 1'b1;
  logic [3:0] length_q = '0;
  logic [13:0] stage_q = '0;
  logic [7:0] byte_q = '0, watched_byte_q = '0;
  logic [3:0] watched_length_q = '0;
  logic [13:0] watched_stage_q = '0;
  logic [3:0] in_q = '0;                 // good frames so far
  logic beat, ok, done;
  logic [3:0] words_expected, rest;
  tx_head_t head;
  // Free is what somebody looks at: length, the bits that must be 0, two bits of the stage; the byte watched.
  always_comb begin
    tdata_i = '0;
    if (beat_q == 4'd0) tdata_i[19:0] = {free_i[8:7], 2'b00, free_i[6:5], 9'b0, free_i[4:0]};
    else if (beat_q >= 4'd2) tdata_i[8*place[2:0] +: 8] = free_i[7:0];
  end
  assign head = tx_head_t'(tdata_i);
  assign beat = tvalid_i && tready && rst_n;
  assign words_expected = length_q > 4'd8 ? 4'd2 : 4'd1;
  assign rest = length_q > 4'd8 ? length_q - 4'd8 : length_q;
  always_comb begin
    ok = ok_q;
    if (beat_q == 4'd0) begin
      ok = head.length >= 14'd1 && head.length <= 14'd9 && head.zero == '0 && tkeep_i == 8'hFF && !tlast_i;
    end else if (beat_q == 4'd1) ok = ok_q && tkeep_i == 8'hFF && !tlast_i;
    else if (beat_q < words_expected + 4'd1) ok = ok_q && tkeep_i == 8'hFF && !tlast_i;
    else if (beat_q == words_expected + 4'd1) ok = ok_q && tlast_i && tkeep_i == 8'((9'd1 << rest) - 9'd1);
    else ok = 1'b0;
  end
  assign done = beat && tlast_i;
  always_ff @(posedge clk_i) begin
    if (beat) begin
      beat_q <= beat_q == '1 ? '1 : beat_q + 4'd1;
      ok_q <= ok;
      if (beat_q == '0) begin
        length_q <= head.length[3:0];
        stage_q <= head.stage;
      end
      if (beat_q >= 4'd2 && beat_q - 4'd2 == 4'(place[3])) byte_q <= tdata_i[8*place[2:0] +: 8];
      if (tlast_i) begin
        beat_q <= '0;
        ok_q <= 1'b1;
        if (ok) begin
          in_q <= in_q + 4'd1;
          if (in_q == {1'b0, watched}) begin
            watched_length_q <= length_q;
            watched_stage_q <= stage_q;
            watched_byte_q <= (beat_q - 4'd2 == 4'(place[3])) ? tdata_i[8*place[2:0] +: 8] : byte_q;
          end
        end
      end
    end
  end

  // Out.
  logic [3:0] out_q = '0, byte_place_q = '0;
  logic sending_q = 1'b0, watching_q = 1'b0;
  logic malformed_expected_q = 1'b0;
  always_ff @(posedge clk_i) begin
    malformed_expected_q <= done && !ok;
    if (rst_n && frame_valid && frame_ready_i) begin
      out_q <= out_q + 4'd1;
      byte_place_q <= '0;
      if (!frame.drop) begin
        sending_q <= 1'b1;
        watching_q <= out_q == {1'b0, watched};
      end
    end
    if (rst_n && byte_valid) begin
      byte_place_q <= byte_place_q + 4'd1;
      if (byte_last) sending_q <= 1'b0;
    end
  end

  assign release_now = release_i && held_w != held_r;
  logic [3:0] last_length_q = '0;
  always_ff @(posedge clk_i) begin
    if (rst_n && frame_valid && frame_ready_i) last_length_q <= frame.length[3:0];
    if (rst_n && ((frame_valid && frame_ready_i && frame.drop) || (byte_valid && byte_last))) begin
      held_words[held_w[1:0]] <= (frame_valid && frame_ready_i ? frame.length[3:0] : last_length_q) > 4'd8 ? 11'd2 : 11'd1;
      held_w <= held_w + 3'd1;
    end
    if (release_now) held_r <= held_r + 3'd1;
  end

  always_comb begin
    if (rst_n) begin
      assume (in_q < 4'd4);
      assume (watched < 3'd4);
      if (beat_q == 4'd0) assume (free_i[4:0] == 5'd1 || free_i[4:0] == 5'd9 || free_i[4:0] == 5'd0 || free_i[4:0] == 5'd10);
      assume (3'(held_w - held_r) < 3'd4);
      assert (malformed == malformed_expected_q);
      // Nothing out that did not come in, nothing while another is being sent.
      if (frame_valid) assert (out_q < in_q);
      if (frame_valid) assert (!sending_q);
      if (byte_valid) assert (sending_q);
      if (frame_valid && out_q == {1'b0, watched}) begin
        assert (frame.length == 14'(watched_length_q));
        assert (frame.stage == watched_stage_q);
      end
      if (byte_valid && watching_q) begin
        if (byte_place_q == place) assert (byte_data == watched_byte_q);
        assert (byte_last == (byte_place_q == watched_length_q - 4'd1));
      end
      if (empty) assert (in_q == out_q && !sending_q);
    end
    cover (rst_n && out_q == 4'd3 && empty && in_q == 4'd3);
  end
endmodule
