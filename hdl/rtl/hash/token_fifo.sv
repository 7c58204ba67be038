// SPDX-License-Identifier: Apache-2.0
// A few entries in distributed memory, one clock; the oldest stands at data_o while valid_o.
//
// Clock: clk_i. An entry can be seen one clock after it was written. Overflow policy: the writer looks at
// used_o and never writes into a full one.
// Depth: 2^DepthLog2, 4 to 6.
module token_fifo #(
  parameter int unsigned Width = 64,
  parameter int unsigned DepthLog2 = 4
) (
  input  logic               clk_i,
  input  logic               rst_ni,
  input  logic               write_i,
  input  logic [Width-1:0]   data_i,
  output logic [DepthLog2:0] used_o,
  output logic               valid_o,
  output logic [Width-1:0]   data_o,
  input  logic               take_i
);
  logic [Width-1:0] memory [2**DepthLog2];
  logic [DepthLog2:0] wptr_q, rptr_q;

  always_ff @(posedge clk_i) begin
    if (write_i) memory[wptr_q[DepthLog2-1:0]] <= data_i;
  end
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      wptr_q <= '0;
      rptr_q <= '0;
    end else begin
      wptr_q <= wptr_q + (DepthLog2+1)'(write_i);
      rptr_q <= rptr_q + (DepthLog2+1)'(take_i);
    end
  end
  assign used_o = wptr_q - rptr_q;
  assign valid_o = wptr_q != rptr_q;
  assign data_o = memory[rptr_q[DepthLog2-1:0]];
endmodule
