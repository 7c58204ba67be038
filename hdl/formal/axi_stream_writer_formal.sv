// SPDX-License-Identifier: Apache-2.0
// axi_stream_writer: the n-th word put in is written to the n-th address after the one set, for every n; bursts
// stay within 128 bytes and within the words put in; AXI4's rules for AW and W; acked_o never runs ahead of the
// responses, issued_o counts every burst at its start; empty_o means that no word is left.
// The memory is free to stall each channel and answers bursts in order, each after its last word and address.
module axi_stream_writer_formal (
  input logic        clk_i,
  input logic        valid_i,
  input logic [3:0]  data_i,
  input logic        flush_i,
  input logic        awready,
  input logic        wready,
  input logic        bgo_i
);
  logic rst_n = 1'b0, set_q = 1'b0;
  always_ff @(posedge clk_i) begin
    rst_n <= 1'b1;
    set_q <= rst_n;
  end
  logic [3:0] first;           // any: words from a multiple of 128 bytes
  logic [4:0] watched;         // any
  always_ff @(posedge clk_i) begin
    first <= first;
    watched <= watched;
  end
  logic ready, empty, error, awvalid, wvalid, wlast, bvalid, bready;
  logic [4:0] room;
  logic [31:0] issued, acked;
  logic [63:0] awaddr, wdata;
  logic [7:0] awlen;
  axi_stream_writer #(.DepthLog2(4)) u_writer (
    .clk_i, .rst_ni(rst_n), .address_set_i(rst_n && !set_q), .address_i({57'h100, first, 3'b000}),
    .valid_i(valid_i && set_q), .data_i({60'b0, data_i}), .ready_o(ready), .room_o(room), .flush_i(flush_i && set_q),
    .empty_o(empty), .issued_o(issued), .acked_o(acked), .error_o(error), .awvalid, .awready, .awaddr, .awlen,
    .wvalid, .wready, .wdata, .wlast, .bvalid, .bready, .bresp(2'b00)
  );

  logic [4:0] in_q = '0, out_q = '0, addressed_q = '0;   // words in, on W, covered by addresses taken
  logic [4:0] bursts_q = '0, lasts_q = '0, answered_q = '0;
  logic [3:0] watched_data_q = '0;
  logic take, aw, w, b;
  assign take = set_q && valid_i && ready;
  assign aw = awvalid && awready;
  assign w = wvalid && wready;
  assign bvalid = bgo_i && set_q && answered_q != bursts_q && answered_q != lasts_q;
  assign b = bvalid && bready;
  // The burst on W: its beats from its address, which may be taken after or before them.
  logic [7:0] beat_q = '0;
  logic aw_held_q = 1'b0;
  logic [63:0] awaddr_q;
  logic [7:0] awlen_q;
  always_ff @(posedge clk_i) begin
    aw_held_q <= awvalid && !awready;
    awaddr_q <= awaddr;
    awlen_q <= awlen;
    if (take) in_q <= in_q + 5'd1;
    if (take && in_q == watched) watched_data_q <= data_i;
    if (aw) begin
      bursts_q <= bursts_q + 5'd1;
      addressed_q <= addressed_q + awlen[4:0] + 5'd1;
    end
    if (w) begin
      out_q <= out_q + 5'd1;
      beat_q <= wlast ? '0 : beat_q + 8'd1;
      if (wlast) lasts_q <= lasts_q + 5'd1;
    end
    if (b) answered_q <= answered_q + 5'd1;
  end
  always_comb begin
    assume (in_q < 5'd24);
    if (set_q) begin
      // Addresses: in sequence, within the words put in, within 128 bytes.
      if (awvalid) begin
        assert (awaddr == {57'h100, first, 3'b000} + {56'b0, addressed_q, 3'b000});
        assert (addressed_q + awlen[4:0] + 5'd1 <= in_q && awlen < 8'd16);
        assert ({1'b0, awaddr[6:3]} + awlen[4:0] < 5'd16);
      end
      if (aw_held_q) assert (awvalid && awaddr == awaddr_q && awlen == awlen_q);
      // Words: in sequence, the last one marked, none without a burst.
      if (wvalid) assert (out_q < in_q);
      if (wvalid && out_q == watched) assert (wdata == {60'b0, watched_data_q});
      if (wvalid) assert (wlast == (beat_q == u_writer.awlen_q));
      if (wvalid && bursts_q == lasts_q) assert (awvalid);
      // Counters.
      assert (acked == {27'b0, answered_q});
      assert (issued >= {27'b0, bursts_q} && issued >= {27'b0, lasts_q});
      assert (issued <= {27'b0, lasts_q} + 32'd1);
      if (empty) assert (in_q == out_q && addressed_q == in_q && issued == {27'b0, bursts_q});
      assert (!error);
    end
    cover (set_q && out_q == 5'd18 && empty && acked == 32'd3 && first == 4'd14);
  end
endmodule
