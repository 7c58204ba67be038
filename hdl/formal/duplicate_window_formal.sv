// SPDX-License-Identifier: Apache-2.0
// duplicate_window: no word of its memories is read in the cycle in which it is written, whatever comes. Block RAM
// has no defined value for such a word; tools/bitstream.py tells Yosys that nobody uses one. Without bound.
module duplicate_window_formal (
  input logic        clk_i,
  input logic        flush_i,
  input logic        by_time_i,
  input logic        by_count_i,
  input logic [5:0]  count_i,
  input logic        valid_i,
  input logic [63:0] digest_i,
  input logic [3:0]  time_i,
  input logic [3:0]  low_i
);
  logic rst_n = 1'b0;
  always_ff @(posedge clk_i) rst_n <= 1'b1;
  logic done, duplicate;
  duplicate_window #(.DepthLog2(5), .TimeBits(4)) u_window (
    .clk_i, .rst_ni(rst_n), .flush_i, .by_time_i, .by_count_i, .count_i, .valid_i, .ready_o(), .digest_i, .time_i,
    .low_i, .done_o(done), .duplicate_o(duplicate), .limit_o(), .cycles_o()
  );
  always_comb begin
    if (rst_n) begin
      assert (!(u_window.head_read_q && u_window.head_write && u_window.head_at_q == u_window.head_write_at));
      if (u_window.read_q) begin
        assert (!(u_window.next_write && u_window.at_q[4:0] == u_window.next_write_at));
        assert (!(u_window.cover_write && u_window.at_q[4:0] == u_window.cover_write_at));
        assert (!(u_window.node_write && u_window.at_q[4:0] == u_window.index_q[4:0]));
      end
    end
    cover (rst_n && done && duplicate);
  end
endmodule
