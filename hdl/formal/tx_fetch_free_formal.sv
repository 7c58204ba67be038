// SPDX-License-Identifier: Apache-2.0
// tx_fetch, two ports, whatever the host writes to enable, base, size and producer, in any cycle, and with memory
// errors: bursts stay within 256 bytes, so within 4 KiB, and within their port's FIFO; one at a time, its address
// held until it is taken. Nothing is said of the words themselves: see tx_fetch_formal.sv. Without bound.
module tx_fetch_free_formal (
  input logic        clk_i,
  input logic [1:0]  enable_i,
  input logic [63:0] base_i [2],
  input logic [4:0]  size_log2_i [2],
  input logic [31:0] producer_i [2],
  input logic [1:0]  drain_i,
  input logic        arready,
  input logic        rgo_i,
  input logic [1:0]  rresp
);
  logic rst_n = 1'b0;
  always_ff @(posedge clk_i) rst_n <= 1'b1;

  localparam int unsigned DepthLog2 = 6;
  logic [DepthLog2:0] room [2];
  logic [DepthLog2:0] room_q [2];             // as the port says it, a cycle late
  logic [DepthLog2:0] level_q [2];
  for (genvar p = 0; p < 2; p++) begin : gen_room
    assign room[p] = (DepthLog2+1)'(2**DepthLog2) - level_q[p];
  end
  logic [1:0] valid, valid_q;
  logic [63:0] araddr;
  logic [7:0] arlen;
  logic arvalid, rvalid, rready, rlast;
  tx_fetch #(.Ports(2), .DepthLog2(DepthLog2)) u_fetch (
    .clk_i, .rst_ni(rst_n), .enable_i, .base_i, .size_log2_i, .producer_i, .consumer_o(), .error_o(), .bad_shape_o(),
    .room_i(room_q), .valid_o(valid), .data_o(), .arvalid, .arready, .araddr, .arlen, .rvalid, .rready, .rdata('0),
    .rresp, .rlast
  );

  // The memory: one burst at a time, words after their address was taken.
  logic reading_q, held_q, erred_q;           // erred_q: there was an error, and it is over
  logic [7:0] left_q, held_len_q;
  logic [63:0] held_address_q;
  logic ar, r;
  assign ar = arvalid && arready;
  assign rvalid = reading_q && rgo_i;
  assign r = rvalid && rready;
  assign rlast = left_q == '0;
  always_ff @(posedge clk_i) begin
    held_address_q <= araddr;
    held_len_q <= arlen;
    valid_q <= rst_n ? valid : '0;
    if (!rst_n) begin
      reading_q <= 1'b0;
      left_q <= '0;
      held_q <= 1'b0;
      erred_q <= 1'b0;
      for (int p = 0; p < 2; p++) begin
        level_q[p] <= '0;
        room_q[p] <= (DepthLog2+1)'(2**DepthLog2);
      end
    end else begin
      held_q <= arvalid && !arready;
      if (u_fetch.error_o && enable_i == '0) erred_q <= 1'b1;
      if (ar) begin
        reading_q <= 1'b1;
        left_q <= arlen;
      end else if (r) begin
        left_q <= left_q - 8'd1;
        if (rlast) reading_q <= 1'b0;
      end
      for (int p = 0; p < 2; p++) begin
        room_q[p] <= room[p];
        level_q[p] <= level_q[p] + (DepthLog2+1)'(valid[p]) - (DepthLog2+1)'(drain_i[p] && level_q[p] != '0);
      end
    end
  end

  // Names of tx_fetch's states.
  localparam logic [2:0] StIdle = 0, StMeasure = 1, StAsk = 2, StData = 3, StSettle = 4;
  logic [2:0] state;
  assign state = u_fetch.state_q;
  logic now;
  assign now = u_fetch.port_q;
  always_comb begin
    if (rst_n) begin
      if (arvalid) assert ({1'b0, araddr[7:3]} + 6'(arlen) < 6'd32 && arlen < 8'd32 && araddr[2:0] == '0);
      if (held_q) assert (arvalid && araddr == held_address_q && arlen == held_len_q);
      assert (!(arvalid && reading_q) && valid != 2'b11);
      if (reading_q) assert (rready);
      for (int p = 0; p < 2; p++) begin
        if (valid[p]) assert (level_q[p] < (DepthLog2+1)'(2**DepthLog2));
        // Invariants.
        assert (level_q[p] <= (DepthLog2+1)'(2**DepthLog2));
        assert (8'(room[p]) + 8'(valid_q[p]) >= 8'(room_q[p]));
        if (state == StIdle && u_fetch.wants_q[p]) assert (room[p] >= (DepthLog2+1)'(32));
      end
      assert (state <= StSettle && (arvalid || reading_q) == (state == StData));
      if (state == StMeasure || state == StAsk) assert (room[now] >= (DepthLog2+1)'(32));
      if (valid_q != '0) assert (state == StData || state == StSettle);
      if (state == StAsk) assert (u_fetch.base_q[11:0] == '0);
      if (state == StData) begin
        assert (u_fetch.beats_q >= 6'd1 && u_fetch.beats_q <= 6'd32);
        if (reading_q) assert (left_q < 8'(u_fetch.beats_q));
        assert (9'(room[now]) >= (reading_q ? 9'(left_q) + 9'd1 : 9'(u_fetch.beats_q)));
      end
    end
    cover (erred_q && u_fetch.consumer_o[0] == 32'd3 && u_fetch.consumer_o[1] == 32'd2);
  end
endmodule
