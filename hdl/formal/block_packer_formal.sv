// SPDX-License-Identifier: Apache-2.0
// block_packer, two sources with records of four words: records are written whole, each source's in order, none
// lost or twice; dropped are those that are to be, whole, and marked is the first word of those that are to be; a
// block's header says what was written; producer_o moves after the header's acknowledgement.
// The ring is enabled all the time; block size is the smallest, so blocks close by flush_i only.
module block_packer_formal
  import twinstamp_pkg::*;
(
  input logic       clk_i,
  input logic [1:0] more_i,
  input logic       flush_i,
  input logic       mark_i,
  input logic       drop_i,
  input logic       awready,
  input logic       wready,
  input logic       bvalid
);
  logic rst_n = 1'b0;
  always_ff @(posedge clk_i) rst_n <= 1'b1;

  logic [5:0] committed_q [2];
  logic [5:0] taken [2];
  logic [1:0] read, discard, duplicate;
  logic [4:0] read_address;
  logic [63:0] data_q [2];
  logic [31:0] producer;
  logic [31:0] drops [1];
  assign drops[0] = '0;
  logic error, awvalid;
  block_packer #(.Ports(1), .Sources(2), .StoreLog2(8)) u_packer (
    .clk_i, .rst_ni(rst_n), .enable_i(1'b1), .flush_i, .base_i(64'h10000), .size_log2_i(5'd14),
    .count_log2_i(4'd1), .timeout_i('0), .consumer_i('0), .producer_o(producer), .error_o(error), .bad_shape_o(),
    .idle_o(), .store_o(), .now_q32_i('0), .epoch_i('0), .bound_ns_i('0), .utc_i('0), .servo_i('0), .locked_i(1'b0),
    .slewing_i(1'b0), .drops_i(drops), .committed_i(committed_q), .taken_o(taken), .read_o(read),
    .read_address_o(read_address), .read_data_i(data_q), .discard_o(discard),
    .more_i(1'b0), .mark_i, .drop_i, .duplicate_o(duplicate),
    .awvalid, .awready, .awaddr(), .awlen(), .wvalid(), .wready, .wdata(), .wlast(), .bvalid, .bready(),
    .bresp(2'b00)
  );

  // Words carry their source and place; length and epoch 0.
  always_ff @(posedge clk_i) begin
    for (int p = 0; p < 2; p++) begin
      if (!rst_n) committed_q[p] <= '0;
      else if (more_i[p] && 6'(committed_q[p] - taken[p]) <= 6'd28) committed_q[p] <= committed_q[p] + 6'd4;
      if (read[p]) data_q[p] <= {8'(p) + 8'h50, 3'b0, read_address, 48'b0};
    end
  end

  // What goes to memory.
  logic valid, heading;
  logic [63:0] data;
  assign valid = u_packer.s_valid;
  assign data = u_packer.s_data;
  logic [5:0] out_q [2];
  logic [1:0] part_q = '0;         // word within the record
  logic [2:0] head_q = '0;
  logic from, from_q = 1'b0, open_q = 1'b0;
  logic [3:0] records_q = '0, blocks_q = '0, set_q = '0;
  assign heading = data[63:56] != 8'h50 && data[63:56] != 8'h51;
  assign from = data[56];
  logic header_done;
  assign header_done = valid && heading && head_q == 3'd7;
  logic dropped_q = 1'b0, drops_q = 1'b0;    // a record was judged and is to be dropped; one was
  logic ended_q = 1'b0, need_q = 1'b0;       // the first block: header put, then let go
  logic [3:0] needed_q = '0;
  always_ff @(posedge clk_i) begin
    if (duplicate != '0) drops_q <= 1'b1;
    dropped_q <= u_packer.state_q == 4'd5 && drop_i;             // StJudge
    if (!rst_n) begin
      out_q[0] <= '0;
      out_q[1] <= '0;
    end else begin
      for (int p = 0; p < 2; p++) if (duplicate[p]) out_q[p] <= out_q[p] + 6'd4;
      if (valid && !heading) begin
        out_q[from] <= out_q[from] + 6'd1;
        part_q <= part_q + 2'd1;
        from_q <= from;
        if (part_q == 2'd3) records_q <= records_q + 4'd1;
      end
      if (valid && heading) head_q <= head_q + 3'd1;
      if (header_done) begin
        records_q <= '0;
        blocks_q <= blocks_q + 4'd1;
        ended_q <= 1'b1;
      end
      if (awvalid && ended_q && !need_q) begin
        need_q <= 1'b1;
        needed_q <= u_packer.issued[3:0] + 4'd1;
      end
    end
  end
  always_comb begin
`ifdef QUIET  // deeper: no stall, one record of a source at most; flush and acknowledgements stay free
    assume (wready && awready);
    assume (committed_q[0] <= 6'd4 && committed_q[1] <= 6'd4);
`endif
    if (rst_n) begin
      assert (discard == '0 && !error);
      if (valid && !heading) begin
        // In order, none left out or twice.
        assert (data == {7'h28, from, mark_i && part_q == '0, 2'b0, out_q[from][4:0], 48'b0});
        assert (out_q[from] != committed_q[from]);
        if (part_q != '0) assert (from == from_q);                          // whole
        assert (head_q == '0);
      end
      for (int p = 0; p < 2; p++) begin
        // Given back only what is written or dropped.
        assert (6'(out_q[p] + (duplicate[p] ? 6'd4 : 6'd0) - taken[p]) <= 6'd4);
        if (duplicate[p]) assert (out_q[p] != committed_q[p]);
      end
      assert ((duplicate != '0) == dropped_q && duplicate != 2'b11);
      if (duplicate != '0) assert (part_q == '0 && head_q == '0 && !valid);
      if (valid && heading) begin
        assert (part_q == '0 && records_q != '0);
        if (head_q == 3'd0) assert (data[31:0] == 32'h31425354);
        if (head_q == 3'd1) assert (data == 64'(blocks_q));
        if (head_q == 3'd2) assert (data == {28'b0, records_q, 32'd64 + {23'b0, records_q, 5'b0}});
      end
      if (u_packer.s_set) begin
        assert (u_packer.s_empty && !valid);
        assert (u_packer.s_address == 64'h10000 + {45'b0, blocks_q[0], 14'b0} + (records_q == '0 ? 64'd64 : 64'd0));
        assert (blocks_q < 4'd2);                                          // never over blocks the host holds
      end
      if (producer != '0) assert (need_q && u_packer.acked >= 32'(needed_q));
      assert (producer <= 32'(blocks_q));
    end
    cover (rst_n && producer == 32'd1 && blocks_q == 4'd1 && out_q[0] == 6'd4 && out_q[1] == 6'd4 && !drops_q);
    cover (rst_n && producer == 32'd1 && blocks_q == 4'd1 && out_q[0] == 6'd4 && out_q[1] == 6'd4 && drops_q);
  end
endmodule
