// SPDX-License-Identifier: Apache-2.0
// Empties one port's receive path after a fault, so that nothing of before it is paired with what comes later.
//
// Clocks: the core clock and rx_clk_i (the port's receive clock). fault_i for a cycle is enough. Then both sides are
// flushed (flush_o, rx_flush_o) until the host has disabled the port and the receive side says that it has been
// flushed for HoldCycles of its clock, in which all that was under way there has ended; where that clock
// stands still, until it runs again. fault_o is what the host reads: from the fault until it disables the port.
// A fault of a port that is disabled is nobody's error.
module rx_guard #(
  parameter int unsigned HoldCycles = 256
) (
  input  logic clk_i,
  input  logic rst_ni,
  input  logic enable_i,
  input  logic fault_i,
  output logic fault_o,
  output logic flush_o,

  input  logic rx_clk_i,
  input  logic rx_rst_ni,
  output logic rx_flush_o,

  // Simulation: see sync_2ff.
  input  logic wlate_i,
  input  logic rlate_i
);
  localparam int unsigned Bits = $clog2(HoldCycles + 1);

  logic done;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      fault_o <= 1'b0;
      flush_o <= 1'b0;
    end else begin
      if (!enable_i) fault_o <= 1'b0;
      // Not again before the receive side has seen the end of the last one.
      if (!flush_o) begin
        if (fault_i && !done) {fault_o, flush_o} <= {enable_i, 1'b1};
      end else if (done && !fault_o) flush_o <= 1'b0;
    end
  end

  logic [Bits-1:0] left_q;
  logic done_q;
  sync_2ff u_flush (.clk_i(rx_clk_i), .rst_ni(rx_rst_ni), .late_i(wlate_i), .d_i(flush_o), .q_o(rx_flush_o));
  always_ff @(posedge rx_clk_i or negedge rx_rst_ni) begin
    if (!rx_rst_ni) begin
      left_q <= Bits'(HoldCycles);
      done_q <= 1'b0;
    end else if (!rx_flush_o) begin
      left_q <= Bits'(HoldCycles);
      done_q <= 1'b0;
    end else if (left_q != '0) left_q <= left_q - Bits'(1);
    else done_q <= 1'b1;
  end
  sync_2ff u_done (.clk_i, .rst_ni, .late_i(rlate_i), .d_i(done_q), .q_o(done));
endmodule
