// SPDX-License-Identifier: Apache-2.0
// rr_pick for 1 to 8 sources: it is the first valid one behind the last, around; the last itself where none is valid.
module rr_pick_formal (
  input logic [2:0] last_i [9],
  input logic [7:0] valid_i
);
  for (genvar n = 1; n < 9; n++) begin : gen_n
    localparam int unsigned Bits = n > 1 ? $clog2(n) : 1;
    logic [Bits-1:0] next;
    rr_pick #(.N(n)) u_pick (.last_i(last_i[n][Bits-1:0]), .valid_i(valid_i[n-1:0]), .next_o(next));
    // How many places behind the last one: 1 for the next, n for itself.
    function automatic logic [3:0] behind(input logic [3:0] at);
      return at > 4'(last_i[n]) ? at - 4'(last_i[n]) : at + 4'(n) - 4'(last_i[n]);
    endfunction
    always_comb begin
      assume (4'(last_i[n]) < 4'(n));
      if (valid_i[n-1:0] == '0) assert (4'(next) == 4'(last_i[n]));
      else begin
        assert (4'(next) < 4'(n) && valid_i[3'(next)]);
        for (int i = 0; i < n; i++) if (valid_i[i]) assert (behind(4'(next)) <= behind(4'(i)));
      end
    end
  end
endmodule
