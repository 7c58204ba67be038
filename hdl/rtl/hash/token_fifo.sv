// SPDX-License-Identifier: Apache-2.0
// Sixteen entries in distributed memory, one clock; the oldest stands at data_o while valid_o.
//
// Clock: clk_i. An entry can be seen one clock after it was written. Overflow policy: the writer looks at
// used_o (0 to 16) and never writes into a full one.
module token_fifo #(
  parameter int unsigned Width = 64
) (
  input  logic             clk_i,
  input  logic             rst_ni,
  input  logic             write_i,
  input  logic [Width-1:0] data_i,
  output logic [4:0]       used_o,
  output logic             valid_o,
  output logic [Width-1:0] data_o,
  input  logic             take_i
);
  logic [Width-1:0] memory [16];
  logic [4:0] wptr_q, rptr_q;

  always_ff @(posedge clk_i) begin
    if (write_i) memory[wptr_q[3:0]] <= data_i;
  end
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      wptr_q <= '0;
      rptr_q <= '0;
    end else begin
      wptr_q <= wptr_q + 5'(write_i);
      rptr_q <= rptr_q + 5'(take_i);
    end
  end
  assign used_o = wptr_q - rptr_q;
  assign valid_o = wptr_q != rptr_q;
  assign data_o = memory[rptr_q[3:0]];
endmodule
