// SPDX-License-Identifier: Apache-2.0
// Fetches the ports' transmit records from rings of words in host memory over AXI4.
//
// Clock: the core clock. Ports in turn, one read burst at a time, at most 32 words, never across 256 bytes;
// a burst is asked for only when the port's FIFO has room for all of it, and for a word more: room_i is of the cycle
// before, which may not know of the last word of the burst that came last. Indices count words and run free;
// consumer_o moves when a burst's data has come, after which the host may reuse the memory.
// A read error stops everything (error_o) until all ports are disabled. A port whose base is no multiple of
// 4096, or whose ring is not 2^9 to 2^20 words, does not fetch (bad_shape_o): a burst could cross 4 KiB.
module tx_fetch #(
  parameter int unsigned Ports = 4,
  parameter int unsigned DepthLog2 = 11
) (
  input  logic             clk_i,
  input  logic             rst_ni,
  input  logic [Ports-1:0] enable_i,
  input  logic [63:0]      base_i [Ports],
  input  logic [4:0]       size_log2_i [Ports],  // in words
  input  logic [31:0]      producer_i [Ports],
  output logic [31:0]      consumer_o [Ports],
  output logic             error_o,
  output logic [Ports-1:0] bad_shape_o,

  input  logic [DepthLog2:0] room_i [Ports],
  output logic [Ports-1:0] valid_o,
  output logic [63:0]      data_o,

  output logic        arvalid,
  input  logic        arready,
  output logic [63:0] araddr,
  output logic [7:0]  arlen,
  input  logic        rvalid,
  output logic        rready,
  input  logic [63:0] rdata,
  input  logic [1:0]  rresp,
  input  logic        rlast
);
  localparam int unsigned PortBits = Ports > 1 ? $clog2(Ports) : 1;
  // A burst: whose turn (StIdle), how much from where (StMeasure), how long (StAsk), its data (StData); then a cycle
  // in which what it changed gets into wants_q.
  typedef enum logic [2:0] {StIdle, StMeasure, StAsk, StData, StSettle} state_e;
  state_e state_q;
  logic [PortBits-1:0] port_q, next_port;
  logic [31:0] consumer_q [Ports];
  logic busy, ar_q;
  logic [5:0] beats_q;
  assign busy = state_q == StMeasure || state_q == StAsk || state_q == StData;

  logic [Ports-1:0] wants_q;
  for (genvar p = 0; p < int'(Ports); p++) begin : gen_wants
    assign bad_shape_o[p] = enable_i[p] && (base_i[p][11:0] != '0 || size_log2_i[p] < 5'd9 ||
                                            size_log2_i[p] > 5'd20);
    always_ff @(posedge clk_i or negedge rst_ni) begin
      if (!rst_ni) wants_q[p] <= 1'b0;
      else begin
        wants_q[p] <= enable_i[p] && !bad_shape_o[p] && producer_i[p] != consumer_q[p] &&
                      room_i[p] >= (DepthLog2+1)'(33);
      end
    end
    assign consumer_o[p] = consumer_q[p];
  end
  rr_pick #(.N(Ports)) u_turn (.last_i(port_q), .valid_i(wants_q), .next_o(next_port));
  logic [31:0] left_q, place_q;
  logic [63:0] base_q;
  logic [5:0] to_boundary, beats;
  assign to_boundary = 6'd32 - {1'b0, place_q[4:0]};
  assign beats = left_q < 32'(to_boundary) ? left_q[5:0] : to_boundary;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= StIdle;
      port_q <= '0;
      for (int p = 0; p < int'(Ports); p++) consumer_q[p] <= '0;
      ar_q <= 1'b0;
      beats_q <= '0;
      left_q <= '0;
      place_q <= '0;
      base_q <= '0;
      araddr <= '0;
      error_o <= 1'b0;
    end else begin
      for (int p = 0; p < int'(Ports); p++) begin
        if (!enable_i[p] && !(busy && port_q == PortBits'(p))) consumer_q[p] <= '0;
      end
      if (enable_i == '0 && !busy) error_o <= 1'b0;
      if (arvalid && arready) ar_q <= 1'b0;
      unique case (state_q)
        StIdle: if (wants_q != '0 && !error_o) begin
          port_q <= next_port;
          state_q <= StMeasure;
        end
        StMeasure: begin
          left_q <= producer_i[port_q] - consumer_q[port_q];
          place_q <= consumer_q[port_q] & ((32'd1 << size_log2_i[port_q]) - 32'd1);
          base_q <= base_i[port_q];
          state_q <= enable_i[port_q] && !bad_shape_o[port_q] ? StAsk : StSettle;
        end
        StAsk: begin
          ar_q <= 1'b1;
          beats_q <= beats;
          araddr <= base_q + {29'b0, place_q, 3'b000};
          state_q <= left_q == '0 ? StSettle : StData;
          if (left_q == '0) ar_q <= 1'b0;
        end
        StData: if (rvalid && rready) begin
          if (rresp != 2'b00) error_o <= 1'b1;
          if (rlast) begin
            state_q <= StSettle;
            consumer_q[port_q] <= consumer_q[port_q] + 32'(beats_q);
          end
        end
        default: state_q <= StIdle;
      endcase
    end
  end
  assign arvalid = ar_q;
  assign arlen = 8'(beats_q) - 8'd1;
  assign rready = state_q == StData;
  assign data_o = rdata;
  always_comb begin
    valid_o = '0;
    valid_o[port_q] = rvalid && rready && rresp == 2'b00;
  end

  // Simulation: nothing moves until the host has more to send (tools/model_edges.py).
  logic asleep;
  always_comb begin
    asleep = state_q == StIdle && wants_q == '0;
    for (int p = 0; p < int'(Ports); p++) if (enable_i[p] && producer_i[p] != consumer_q[p]) asleep = 1'b0;
  end
endmodule
