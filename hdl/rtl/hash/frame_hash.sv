// SPDX-License-Identifier: Apache-2.0
// Frame digest and flow hash of one byte stream, one result a frame.
//
// Clocks, stream, keys: frame_digest and flow_hash. The key memory's addresses: 0 to 511 the digest's
// (digest_core), 512 to 535 the flow hash's.
// Stream, in addition: at least 5 clocks between last_i and the next first_i.
// Result: done_o for one clock with digest_o, flow_o and ok_o, for each last_i in order, at most 72 clocks
// after it. ok_o low: the frame was left out, because the three before it are not through; that takes frames
// of under 40 bytes, which no link may carry.
// Back-pressure: none.
module frame_hash #(
  parameter int unsigned MaxBytes = 9216
) (
  input  logic        clk_i,
  input  logic        rst_ni,

  input  logic        key_clk_i,
  input  logic        key_write_i,
  input  logic [9:0]  key_address_i,
  input  logic [31:0] key_data_i,

  input  logic        valid_i,
  input  logic [7:0]  data_i,
  input  logic        first_i,
  input  logic        last_i,
  input  logic        abort_i,

  output logic        done_o,
  output logic        ok_o,
  output logic [63:0] digest_o,
  output logic [63:0] flow_o
);
  // A stage of its own, so that the block's inputs have a whole clock. A frame that is left out stops here.
  logic valid_q, first_q, last_q, abort_q;
  logic [7:0] data_q;
  logic frame_q, left_out_q;   // a frame is under way; it is left out
  logic first, in_frame, left_out, ends, ends_q, ends_left_out_q;
  logic [1:0] owed_q;          // results under way
  logic take, take_result;
  assign first = valid_i && first_i;
  assign in_frame = (first || frame_q) && !abort_i;
  assign left_out = first ? owed_q == '1 : left_out_q;
  assign ends = in_frame && last_i;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      valid_q <= 1'b0;
      first_q <= 1'b0;
      last_q <= 1'b0;
      abort_q <= 1'b0;
      data_q <= '0;
      frame_q <= 1'b0;
      left_out_q <= 1'b0;
      ends_q <= 1'b0;
      ends_left_out_q <= 1'b0;
      owed_q <= '0;
    end else begin
      valid_q <= valid_i && !left_out;
      first_q <= first_i;
      last_q <= last_i && !left_out;
      abort_q <= abort_i;
      data_q <= data_i;
      frame_q <= in_frame && !last_i;
      left_out_q <= left_out;
      ends_q <= ends;
      ends_left_out_q <= left_out;
      owed_q <= owed_q + 2'(ends && !left_out) - 2'(take_result);
    end
  end

  logic digest_done, flow_done;
  logic [63:0] digest, flow;
  frame_digest #(.MaxBytes(MaxBytes)) u_digest (
    .clk_i, .rst_ni, .key_clk_i, .key_write_i(key_write_i && !key_address_i[9]),
    .key_address_i(key_address_i[8:0]), .key_data_i,
    .valid_i(valid_q), .data_i(data_q), .first_i(first_q), .last_i(last_q), .abort_i(abort_q),
    .done_o(digest_done), .digest_o(digest)
  );
  flow_hash u_flow (
    .clk_i, .rst_ni, .key_clk_i, .key_write_i(key_write_i && key_address_i[9]),
    .key_address_i(key_address_i[4:0]), .key_data_i,
    .valid_i(valid_q), .data_i(data_q), .first_i(first_q), .last_i(last_q), .abort_i(abort_q),
    .done_o(flow_done), .hash_o(flow)
  );

  // Either may be first; both have a result for each frame that was not left out, in order. At most ten
  // frames that are left out end within a flow hash, so u_order never fills.
  logic order_waits, order_left_out, digest_waits, flow_waits;
  logic [6:0] unused_order_used;
  logic [4:0] unused_digest_used, unused_flow_used;
  token_fifo #(.Width(1), .DepthLog2(6)) u_order (
    .clk_i, .rst_ni, .write_i(ends_q), .data_i(ends_left_out_q), .used_o(unused_order_used),
    .valid_o(order_waits), .data_o(order_left_out), .take_i(take)
  );
  assign take_result = order_waits && !order_left_out && digest_waits && flow_waits;
  assign take = take_result || (order_waits && order_left_out);
  token_fifo #(.Width(64)) u_digests (
    .clk_i, .rst_ni, .write_i(digest_done), .data_i(digest), .used_o(unused_digest_used),
    .valid_o(digest_waits), .data_o(digest_o), .take_i(take_result)
  );
  token_fifo #(.Width(64)) u_flows (
    .clk_i, .rst_ni, .write_i(flow_done), .data_i(flow), .used_o(unused_flow_used),
    .valid_o(flow_waits), .data_o(flow_o), .take_i(take_result)
  );
  assign done_o = take;
  assign ok_o = take_result;
endmodule
