// SPDX-License-Identifier: Apache-2.0
// async_fifo: the n-th entry read is the n-th entry written, for every n; never more entries than its depth.
// The two clocks are free: any edge of either in any step of the proof, also both at once; the resets are
// released in any order. Two entries at a time are watched, chosen freely.
module async_fifo_formal #(
  parameter int unsigned Width = 2
) (
  input logic             wclk_i,
  input logic             rclk_i,
  input logic             wrelease_i,
  input logic             rrelease_i,
  input logic             wvalid_i,
  input logic [Width-1:0] wdata_i,
  input logic             wlate_i,
  input logic             rready_i,
  input logic             rlate_i,
  input logic [1:0]       watch_i
);
  localparam int unsigned L = 2;
  localparam int unsigned P = L + 1;
  // Resets: low at the start, each released at an edge of its clock, never low again.
  logic wrst_ni = 1'b0, rrst_ni = 1'b0;
  always_ff @(posedge wclk_i) if (wrelease_i) wrst_ni <= 1'b1;
  always_ff @(posedge rclk_i) if (rrelease_i) rrst_ni <= 1'b1;

  logic wfull, rvalid, bad;
  logic [Width-1:0] rdata;
  async_fifo #(.Width(Width), .DepthLog2(L)) u_fifo (
    .wclk_i, .wrst_ni, .wflush_i(1'b0), .wvalid_i, .wdata_i, .wfull_o(wfull), .wlate_i,
    .rclk_i, .rrst_ni, .rflush_i(1'b0), .rbad_o(bad), .rvalid_o(rvalid), .rdata_o(rdata), .rready_i, .rlate_i
  );

  // Entries written and read, and the two watched: number and data. A watch ends eight entries later, so that
  // numbers may wrap.
  logic [4:0] written_q, read_q;
  logic [4:0] place_q [2];
  logic [Width-1:0] data_q [2];
  logic [1:0] watched_q;
  always_ff @(posedge wclk_i or negedge wrst_ni) begin
    if (!wrst_ni) begin
      written_q <= '0;
      watched_q <= '0;
      for (int i = 0; i < 2; i++) begin
        place_q[i] <= '0;
        data_q[i] <= '0;
      end
    end else if (wvalid_i && !wfull) begin
      written_q <= written_q + 5'd1;
      for (int i = 0; i < 2; i++) begin
        if (watched_q[i]) watched_q[i] <= written_q - place_q[i] < 5'd8;
        else if (watch_i[i]) begin
          watched_q[i] <= 1'b1;
          place_q[i] <= written_q;
          data_q[i] <= wdata_i;
        end
      end
    end
  end
  always_ff @(posedge rclk_i or negedge rrst_ni) begin
    if (!rrst_ni) read_q <= '0;
    else if (rvalid && rready_i) read_q <= read_q + 5'd1;
  end

  logic [4:0] level;
  assign level = written_q - read_q;

  // For induction: every copy of a pointer lies between what its sender and its receiver know.
  function automatic logic [P-1:0] bin(logic [P-1:0] gray);
    logic [P-1:0] b;
    b[P-1] = gray[P-1];
    for (int i = P - 2; i >= 0; i--) b[i] = b[i+1] ^ gray[i];
    return b;
  endfunction
  logic [P-1:0] at_1, at_2, at_3, at_4, at_5, at_6, at_7;
  assign at_1 = bin(u_fifo.u_r2w.first_q) - bin(u_fifo.u_r2w.second_q);
  assign at_2 = bin(u_fifo.u_r2w.before_q) - bin(u_fifo.u_r2w.second_q);
  assign at_3 = u_fifo.rptr_q - bin(u_fifo.u_r2w.second_q);
  assign at_4 = bin(u_fifo.u_w2r.second_q) - bin(u_fifo.u_r2w.second_q);
  assign at_5 = bin(u_fifo.u_w2r.first_q) - bin(u_fifo.u_r2w.second_q);
  assign at_6 = bin(u_fifo.u_w2r.before_q) - bin(u_fifo.u_r2w.second_q);
  assign at_7 = u_fifo.wptr_q - bin(u_fifo.u_r2w.second_q);

  always_comb begin
    assert (level <= 5'(2**L));
    assert (!bad);
    if (rvalid) assert (level != '0);
    for (int i = 0; i < 2; i++) begin
      if (rvalid && watched_q[i] && place_q[i] == read_q) assert (rdata == data_q[i]);
    end
`ifndef PLAIN  // what induction needs beside
    assert (u_fifo.wptr_q == written_q[P-1:0] && u_fifo.rptr_q == read_q[P-1:0]);
    assert (bin(u_fifo.wgray_q) == u_fifo.wptr_q && bin(u_fifo.rgray_q) == u_fifo.rptr_q);
    assert (at_1 <= at_2 && at_2 <= at_3 && at_3 <= at_4 && at_4 <= at_5 && at_5 <= at_6 && at_6 <= at_7);
    assert (at_7 <= P'(2**L));
    for (int i = 0; i < 2; i++) begin
      if (watched_q[i]) assert (written_q - place_q[i] <= 5'd9 && written_q != place_q[i]);
      if (watched_q[i] && place_q[i] - read_q < level) begin
        assert (u_fifo.memory[place_q[i][L-1:0]] == data_q[i]);
      end
    end
`endif
    cover (read_q == 5'd5 && watched_q == 2'b11 && wfull && place_q[1] == read_q && rvalid);
  end
endmodule
