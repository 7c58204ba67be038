// SPDX-License-Identifier: Apache-2.0
// Frame digest and flow hash of one byte stream, one result a frame.
//
// Clocks, stream, keys: frame_digest and flow_hash. The key memory's addresses: 0 to 511 the digest's
// (digest_core), 512 to 535 the flow hash's.
// Result: done_o for one clock, for each last_i in order, at most 96 clocks after it. A hash whose ok_o is
// low was left out (never in frames of 60 bytes and more).
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
  output logic        digest_ok_o,
  output logic [63:0] digest_o,
  output logic        flow_ok_o,
  output logic [63:0] flow_o
);
  // A stage of its own, so that the block's inputs have a whole clock.
  logic valid_q, first_q, last_q, abort_q;
  logic [7:0] data_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      valid_q <= 1'b0;
      first_q <= 1'b0;
      last_q <= 1'b0;
      abort_q <= 1'b0;
      data_q <= '0;
    end else begin
      valid_q <= valid_i;
      first_q <= first_i;
      last_q <= last_i;
      abort_q <= abort_i;
      data_q <= data_i;
    end
  end

  logic digest_done, digest_ok, flow_done, flow_ok;
  logic [63:0] digest, flow;
  frame_digest #(.MaxBytes(MaxBytes)) u_digest (
    .clk_i, .rst_ni, .key_clk_i, .key_write_i(key_write_i && !key_address_i[9]),
    .key_address_i(key_address_i[8:0]), .key_data_i,
    .valid_i(valid_q), .data_i(data_q), .first_i(first_q), .last_i(last_q), .abort_i(abort_q),
    .done_o(digest_done), .ok_o(digest_ok), .digest_o(digest)
  );
  flow_hash u_flow (
    .clk_i, .rst_ni, .key_clk_i, .key_write_i(key_write_i && key_address_i[9]),
    .key_address_i(key_address_i[4:0]), .key_data_i,
    .valid_i(valid_q), .data_i(data_q), .first_i(first_q), .last_i(last_q), .abort_i(abort_q),
    .done_o(flow_done), .ok_o(flow_ok), .hash_o(flow)
  );

  // Either may be first; both have one result a frame, in order.
  logic digest_waits, flow_waits, take;
  logic [64:0] digest_head, flow_head;
  logic [4:0] unused_digest_used, unused_flow_used;
  assign take = digest_waits && flow_waits;
  token_fifo #(.Width(65)) u_digests (
    .clk_i, .rst_ni, .write_i(digest_done), .data_i({digest_ok, digest}), .used_o(unused_digest_used),
    .valid_o(digest_waits), .data_o(digest_head), .take_i(take)
  );
  token_fifo #(.Width(65)) u_flows (
    .clk_i, .rst_ni, .write_i(flow_done), .data_i({flow_ok, flow}), .used_o(unused_flow_used),
    .valid_o(flow_waits), .data_o(flow_head), .take_i(take)
  );
  assign done_o = take;
  assign {digest_ok_o, digest_o} = digest_head;
  assign {flow_ok_o, flow_o} = flow_head;
endmodule
