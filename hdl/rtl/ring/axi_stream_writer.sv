// SPDX-License-Identifier: Apache-2.0
// Writes a stream of 64-bit words to ascending addresses over AXI4, in bursts of up to 16 beats.
//
// Clock: the core clock. address_set_i starts a new run of words at address_i; allowed only while empty_o.
// Bursts end at multiples of 128 bytes, so none crosses 4 KiB; flush_i lets a partial burst go. All writes
// carry one ID, so responses come in order; issued_o and acked_o count bursts (they run free), which is how
// the caller knows that everything before some point has been acknowledged.
// Back-pressure: ready_o. Latency: two cycles from the sixteenth word to AWVALID.
module axi_stream_writer #(
  parameter int unsigned DepthLog2 = 6
) (
  input  logic        clk_i,
  input  logic        rst_ni,

  input  logic        address_set_i,
  input  logic [63:0] address_i,
  input  logic        valid_i,
  input  logic [63:0] data_i,
  output logic        ready_o,
  output logic [DepthLog2:0] room_o,
  input  logic        flush_i,
  output logic        empty_o,       // all words handed to the bus
  output logic [31:0] issued_o,
  output logic [31:0] acked_o,
  output logic        error_o,       // pulse: a response other than OKAY

  output logic        awvalid,
  input  logic        awready,
  output logic [63:0] awaddr,
  output logic [7:0]  awlen,
  output logic        wvalid,
  input  logic        wready,
  output logic [63:0] wdata,
  output logic        wlast,
  input  logic        bvalid,
  output logic        bready,
  input  logic [1:0]  bresp
);
  localparam int unsigned D = DepthLog2;
  logic [63:0] memory [2**D];
  logic [D:0] wptr_q, rptr_q, level;
  assign level = wptr_q - rptr_q;
  assign ready_o = !level[D];

  logic [63:0] address_q;
  logic [4:0] left_q;         // beats of the burst under way
  logic aw_q;                 // address still to be taken
  logic [7:0] awlen_q;
  logic [4:0] to_boundary, beats;
  assign to_boundary = 5'd16 - {1'b0, address_q[6:3]};
  assign beats = level >= (D+1)'(to_boundary) ? to_boundary : level[4:0];
  // A burst is measured, then begun: what waits can only become more meanwhile.
  logic measure, start_q;
  logic [4:0] beats_q;
  assign measure = left_q == '0 && !aw_q && !start_q && level != '0 &&
                   (level >= (D+1)'(to_boundary) || flush_i);

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      wptr_q <= '0;
      rptr_q <= '0;
      address_q <= '0;
      awaddr <= '0;
      left_q <= '0;
      start_q <= 1'b0;
      beats_q <= '0;
      room_o <= (D+1)'(2**D);
      empty_o <= 1'b1;
      aw_q <= 1'b0;
      awlen_q <= '0;
      issued_o <= '0;
      acked_o <= '0;
      error_o <= 1'b0;
    end else begin
      error_o <= 1'b0;
      room_o <= (D+1)'(2**D) - level;
      empty_o <= level == '0 && left_q == '0 && !aw_q && !start_q && !valid_i;
      if (valid_i && ready_o) wptr_q <= wptr_q + (D+1)'(1);
      if (address_set_i) address_q <= address_i;
      start_q <= measure;
      if (measure) beats_q <= beats;
      if (start_q) begin
        left_q <= beats_q;
        awlen_q <= 8'(beats_q) - 8'd1;
        aw_q <= 1'b1;
        awaddr <= address_q;
        address_q <= address_q + {56'b0, beats_q, 3'b000};
        issued_o <= issued_o + 32'd1;
      end
      if (awvalid && awready) aw_q <= 1'b0;
      if (wvalid && wready) begin
        left_q <= left_q - 5'd1;
        rptr_q <= rptr_q + (D+1)'(1);
      end
      if (bvalid && bready) begin
        acked_o <= acked_o + 32'd1;
        if (bresp != 2'b00) error_o <= 1'b1;
      end
    end
  end
  always_ff @(posedge clk_i) begin
    if (valid_i && ready_o) memory[wptr_q[D-1:0]] <= data_i;
  end

  assign awvalid = aw_q;
  assign awlen = awlen_q;
  assign wvalid = left_q != '0;
  assign wdata = memory[rptr_q[D-1:0]];
  assign wlast = left_q == 5'd1;
  assign bready = 1'b1;
endmodule
