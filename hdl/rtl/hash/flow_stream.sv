// SPDX-License-Identifier: Apache-2.0
// The flow hash of each frame of one byte stream, never out of step with the frames.
//
// Clocks, stream, key: flow_hash.
// Result: done_o for one clock with flow_o and ok_o, for each last_i in order, at most 72 clocks after it
// while frames have 40 bytes and more. ok_o low: the frame was left out, because the three before it are not
// through; that takes shorter frames, which no link may carry.
// Back-pressure: none.
module flow_stream (
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
  output logic        ok_o,
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

  logic flow_done;
  logic [63:0] flow;
  flow_hash u_flow (
    .clk_i, .rst_ni, .key_clk_i, .key_write_i, .key_address_i, .key_data_i,
    .valid_i(valid_q), .data_i(data_q), .first_i(first_q), .last_i(last_q), .abort_i(abort_q),
    .done_o(flow_done), .hash_o(flow)
  );

  // In the order of the frames, with those that were left out in between. At most ten of them end within a
  // flow hash, so u_order never fills.
  logic order_waits, order_left_out, flow_waits;
  logic [6:0] unused_order_used;
  logic [4:0] unused_flow_used;
  token_fifo #(.Width(1), .DepthLog2(6)) u_order (
    .clk_i, .rst_ni, .write_i(ends_q), .data_i(ends_left_out_q), .used_o(unused_order_used),
    .valid_o(order_waits), .data_o(order_left_out), .take_i(take)
  );
  assign take_result = order_waits && !order_left_out && flow_waits;
  assign take = take_result || (order_waits && order_left_out);
  token_fifo #(.Width(64)) u_flows (
    .clk_i, .rst_ni, .write_i(flow_done), .data_i(flow), .used_o(unused_flow_used),
    .valid_o(flow_waits), .data_o(flow_o), .take_i(take_result)
  );
  assign done_o = take;
  assign ok_o = take_result;
endmodule
