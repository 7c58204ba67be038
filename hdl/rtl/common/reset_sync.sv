// SPDX-License-Identifier: Apache-2.0
// Reset asserted at once, released after two edges of clk_i.
module reset_sync (
  input  logic clk_i,
  input  logic rst_ni,
  output logic rst_no
);
  (* ASYNC_REG = "TRUE" *) logic [1:0] chain_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) chain_q <= 2'b00;
    else chain_q <= {chain_q[0], 1'b1};
  end
  assign rst_no = chain_q[1];
endmodule
