// SPDX-License-Identifier: Apache-2.0
// tx_fetch, two ports: each port gets the words of its ring in order, none left out or twice and never more than the
// host has put in or its FIFO has room for; bursts stay within 256 bytes and the ring; a port that wants waits for
// one burst of the other at most; consumer_o moves over whole bursts, when their words have come.
//
// A word is its address. The memory is free to stall; FIFOs drain as they like. Rings of 2^9 words, which begin
// anywhere on 4096; the host only moves its indices on. Without bound (k-induction).
module tx_fetch_formal (
  input logic        clk_i,
  input logic [1:0]  more_i,
  input logic [9:0]  amount_i,
  input logic [1:0]  drain_i,
  input logic [5:0]  filled_i [2],           // words in the FIFOs at reset
  input logic        arready,
  input logic        rgo_i
);
  logic rst_n = 1'b0;
  always_ff @(posedge clk_i) rst_n <= 1'b1;

  localparam int unsigned DepthLog2 = 6;
  logic [51:0] page [2];                     // any
  always_ff @(posedge clk_i) page <= page;
  logic [63:0] base [2];
  logic [4:0] size_log2 [2];
  logic [31:0] producer_q [2];
  logic [31:0] consumer [2];
  logic [DepthLog2:0] room [2];
  logic [DepthLog2:0] room_q [2];            // as the port says it, a cycle late
  logic [DepthLog2:0] level_q [2];
  logic [1:0] valid;
  logic [63:0] data, araddr, rdata;
  logic [7:0] arlen;
  logic arvalid, rvalid, rready, rlast, error;
  logic [1:0] bad_shape;
  for (genvar p = 0; p < 2; p++) begin : gen_port
    assign base[p] = {page[p], 12'b0};
    assign size_log2[p] = 5'd9;
    assign room[p] = (DepthLog2+1)'(2**DepthLog2) - level_q[p];
  end
  tx_fetch #(.Ports(2), .DepthLog2(DepthLog2)) u_fetch (
    .clk_i, .rst_ni(rst_n), .enable_i(2'b11), .base_i(base), .size_log2_i(size_log2), .producer_i(producer_q),
    .consumer_o(consumer), .error_o(error), .bad_shape_o(bad_shape), .room_i(room_q), .valid_o(valid), .data_o(data),
    .arvalid, .arready, .araddr, .arlen, .rvalid, .rready, .rdata, .rresp(2'b00), .rlast
  );

  // The memory: one burst at a time, words after their address was taken.
  logic reading_q;
  logic [63:0] place_q;
  logic [7:0] left_q;
  logic ar, r;
  assign ar = arvalid && arready;
  assign rvalid = reading_q && rgo_i;
  assign r = rvalid && rready;
  assign rdata = place_q;
  assign rlast = left_q == '0;
  logic [31:0] taken_q [2];                  // words that a port got
  logic [1:0] passed_q [2];                  // bursts of the other port begun while this one wanted
  logic [1:0] wants;                         // from the cycle on in which it does
  logic [1:0] fits;                          // it has something to fetch, and really room for a burst
  for (genvar p = 0; p < 2; p++) begin : gen_wants
    assign wants[p] = producer_q[p] != consumer[p] && room_q[p] >= (DepthLog2+1)'(33);
    assign fits[p] = producer_q[p] != consumer[p] && room[p] >= (DepthLog2+1)'(32);
  end
  // Names of tx_fetch's states.
  localparam logic [2:0] StIdle = 0, StMeasure = 1, StAsk = 2, StData = 3, StSettle = 4;
  logic [2:0] state;
  assign state = u_fetch.state_q;
  logic start;
  assign start = state == StIdle && u_fetch.wants_q != '0 && !error;
  logic [1:0] valid_q;
  always_ff @(posedge clk_i) begin
    valid_q <= rst_n ? valid : '0;
    if (!rst_n) begin
      reading_q <= 1'b0;
      place_q <= '0;
      left_q <= '0;
      for (int p = 0; p < 2; p++) begin
        producer_q[p] <= '0;
        level_q[p] <= (DepthLog2+1)'(filled_i[p]);
        room_q[p] <= (DepthLog2+1)'(2**DepthLog2) - (DepthLog2+1)'(filled_i[p]);
        taken_q[p] <= '0;
        passed_q[p] <= '0;
      end
    end else begin
      if (ar) begin
        reading_q <= 1'b1;
        place_q <= araddr;
        left_q <= arlen;
      end else if (r) begin
        place_q <= place_q + 64'd8;
        left_q <= left_q - 8'd1;
        if (rlast) reading_q <= 1'b0;
      end
      for (int p = 0; p < 2; p++) begin
        // Never more than a ring ahead of what was fetched.
        if (more_i[p] && producer_q[p] + 32'(amount_i) - consumer[p] <= 32'd512)
          producer_q[p] <= producer_q[p] + 32'(amount_i);
        room_q[p] <= room[p];
        level_q[p] <= level_q[p] + (DepthLog2+1)'(valid[p]) - (DepthLog2+1)'(drain_i[p] && level_q[p] != '0);
        if (valid[p]) taken_q[p] <= taken_q[p] + 32'd1;
        if (start) begin
          if (u_fetch.next_port == 1'(p) || !wants[p]) passed_q[p] <= '0;
          else passed_q[p] <= passed_q[p] + 2'd1;
        end else if (!wants[p]) passed_q[p] <= '0;
      end
    end
  end

  logic now;
  logic [31:0] done;
  assign now = u_fetch.port_q;
  assign done = taken_q[now] - consumer[now];        // of the burst under way
  always_comb begin
    if (rst_n) begin
      assert (!error && bad_shape == '0);
      for (int p = 0; p < 2; p++) begin
        assert (level_q[p] <= (DepthLog2+1)'(2**DepthLog2));
        assert (producer_q[p] - consumer[p] <= 32'd512);
        // In order, none left out or twice: word n of a port is the one at n modulo the ring's size.
        if (valid[p]) assert (data == base[p] + {52'b0, taken_q[p][8:0], 3'b000});
        if (valid[p]) assert (taken_q[p] - consumer[p] < producer_q[p] - consumer[p]);
        if (valid[p]) assert (level_q[p] < (DepthLog2+1)'(2**DepthLog2));
        assert (passed_q[p] <= 2'd1);
        // Invariants.
        if (!(state == StData && now == 1'(p))) assert (taken_q[p] == consumer[p]);
        if (passed_q[p] != '0) assert (now != 1'(p));
        if (passed_q[p] != '0 && state == StIdle) assert (u_fetch.wants_q[p]);
        if (u_fetch.wants_q[p] && state == StIdle) assert (fits[p]);           // what it wanted it still wants
        assert (8'(room[p]) + 8'(valid_q[p]) >= 8'(room_q[p]));
      end
      assert (!(valid[0] && valid[1]));
      if (arvalid) begin
        assert ({1'b0, araddr[7:3]} + 6'(arlen) < 6'd32 && arlen < 8'd32);
        assert (araddr[63:12] == page[now]);
      end
      assert (state <= StSettle);
      assert (!(arvalid && reading_q) && (!arvalid || state == StData) && (!reading_q || state == StData));
      if (state == StMeasure || state == StAsk) assert (fits[now]);
      if (valid_q != '0) assert (state == StData || state == StSettle);
      if (state == StAsk) begin
        assert (u_fetch.left_q != '0 && u_fetch.left_q <= producer_q[now] - consumer[now]);
        assert (u_fetch.place_q == {23'b0, consumer[now][8:0]} && u_fetch.base_q == base[now]);
      end
      if (state == StData) begin
        assert (arvalid || reading_q);
        assert (u_fetch.beats_q >= 6'd1 && u_fetch.beats_q <= 6'd32);
        assert (32'(u_fetch.beats_q) <= producer_q[now] - consumer[now]);
        assert ({1'b0, consumer[now][4:0]} + u_fetch.beats_q <= 6'd32);
        if (arvalid) assert (done == '0 && araddr == base[now] + {52'b0, consumer[now][8:0], 3'b000});
        if (reading_q) begin
          assert (left_q < 8'd32 && done < 32'd32);
          assert (done + 32'(left_q) + 32'd1 == 32'(u_fetch.beats_q));
          assert (place_q == base[now] + {52'b0, taken_q[now][8:0], 3'b000});
        end
        assert (32'(room[now]) >= 32'(u_fetch.beats_q) - done);
      end
    end
    cover (rst_n && consumer[0] == 32'd4 && consumer[1] == 32'd2);
  end
endmodule
