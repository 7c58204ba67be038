// SPDX-License-Identifier: Apache-2.0
// A register in a stream: what comes out of a memory gets a whole cycle to its reader.
//
// Clock: clk_i. Latency: one cycle; one item a cycle. Back-pressure: ready_o follows ready_i in the same cycle.
module stream_register #(
  parameter int unsigned Width = 8
) (
  input  logic             clk_i,
  input  logic             rst_ni,
  input  logic             valid_i,
  input  logic [Width-1:0] data_i,
  output logic             ready_o,
  output logic             valid_o,
  output logic [Width-1:0] data_o,
  input  logic             ready_i
);
  assign ready_o = !valid_o || ready_i;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      valid_o <= 1'b0;
      data_o <= '0;
    end else if (ready_o && (valid_i || valid_o)) begin
      valid_o <= valid_i;
      if (valid_i) data_o <= data_i;
    end
  end
endmodule
