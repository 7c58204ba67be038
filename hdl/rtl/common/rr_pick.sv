// SPDX-License-Identifier: Apache-2.0
// Round-robin: the next one after last_i that is valid, around; last_i itself comes last, and is the answer where
// none is valid.
//
// Combinational. last_i below N.
module rr_pick #(
  parameter int unsigned N = 4,
  localparam int unsigned Bits = N > 1 ? $clog2(N) : 1
) (
  input  logic [Bits-1:0] last_i,
  input  logic [N-1:0]    valid_i,
  output logic [Bits-1:0] next_o
);
  always_comb begin
    next_o = last_i;
    if (valid_i != '0) for (int unsigned i = N; i > 0; i--) begin
      automatic logic [Bits:0] sum = (Bits+1)'(last_i) + (Bits+1)'(i);
      automatic logic [Bits-1:0] candidate = Bits'(sum >= (Bits+1)'(N) ? sum - (Bits+1)'(N) : sum);
      if (valid_i[candidate]) next_o = candidate;
    end
  end
endmodule
