// SPDX-License-Identifier: Apache-2.0
// bus_arbiter: nobody waits for ever, everybody gets his own answer, and both words of a register of 64 bits belong
// together. The block answers every access within three cycles; the host holds what it offers, but takes its responses
// whenever it likes, or never, and may offer an address without its data. The register of 64 bits has words 2 and 3:
// reading word 2 takes a new snapshot, which both words then show; writing word 3 takes over what was written last into
// word 2. The host writes 1 into both, the core 3.
// What is about those words (Whole) is looked at in a task of its own, with a block that answers at once or a cycle
// later: together they take hours.
module bus_arbiter_formal #(
  parameter bit Whole = 1'b0
) (
  input logic        clk_i,
  input logic        aw_i, w_i, ar_i, bready_i, rready_i, request_i, write_i,
  input logic [1:0]  write_word_i, read_word_i, core_word_i,
  input logic [1:0]  delay_i
);
  logic rst_n = 1'b0;
  always_ff @(posedge clk_i) rst_n <= 1'b1;

  // The host and the core offer, and hold what they offer.
  logic awvalid = 1'b0, wvalid = 1'b0, arvalid = 1'b0, request = 1'b0, cpu_write = 1'b0;
  logic [1:0] write_word = '0, read_word = '0, core_word = '0;
  logic awready, wready, arready, bvalid, rvalid, done;
  always_ff @(posedge clk_i) if (rst_n) begin
    awvalid <= awvalid ? !awready : aw_i;
    wvalid <= wvalid ? !wready : w_i;
    arvalid <= arvalid ? !arready : ar_i;
    request <= request ? !done : request_i;
    if (!request) {cpu_write, core_word} <= {write_i, core_word_i};
    if (!awvalid) write_word <= write_word_i;
    if (!arvalid) read_word <= read_word_i;
  end

  logic m_awvalid, m_wvalid, m_bready, m_arvalid, m_rready;
  logic m_bvalid = 1'b0, m_rvalid = 1'b0;
  logic [3:0] m_awaddr, m_araddr, address_q = '0;
  logic [31:0] rdata, cpu_data, m_wdata;
  logic aw_taken_q = 1'b0, w_taken_q = 1'b0, ar_taken_q = 1'b0;
  logic [1:0] delay_q = '0;
  logic [3:0] snapshot_q = '0;
  logic [1:0] lower_q = '0, data_q = '0;
  logic [5:0] reply;
  assign reply = address_q[3] ? {2'b10, snapshot_q} : {2'b00, address_q};
  bus_arbiter #(.AddressBits(4), .WideCount(1), .Wide(4'd8)) u_arbiter (
    .clk_i, .rst_ni(rst_n),
    .s_awvalid(awvalid), .s_awready(awready), .s_awaddr({write_word, 2'b01}), .s_wvalid(wvalid), .s_wready(wready),
    .s_wdata(32'd1), .s_wstrb(4'hF), .s_bvalid(bvalid), .s_bready(bready_i), .s_bresp(), .s_arvalid(arvalid),
    .s_arready(arready), .s_araddr({read_word, 2'b10}), .s_rvalid(rvalid), .s_rready(rready_i), .s_rdata(rdata),
    .s_rresp(),
    .cpu_request_i(request), .cpu_write_i(cpu_write), .cpu_address_i({core_word, 2'b11}), .cpu_data_i(32'd3),
    .cpu_strobe_i(4'hF), .cpu_done_o(done), .cpu_data_o(cpu_data),
    .m_awvalid, .m_awready(!aw_taken_q), .m_awaddr, .m_wvalid, .m_wready(!w_taken_q), .m_wdata, .m_wstrb(),
    .m_bvalid, .m_bready, .m_bresp(2'b00), .m_arvalid, .m_arready(!ar_taken_q), .m_araddr,
    .m_rvalid, .m_rready, .m_rdata({26'b0, reply}), .m_rresp(2'b00)
  );
  // The register block: takes one access, answers after 0 to 3 cycles; a plain word with the address that it was given.
  logic writes, commits;
  assign writes = aw_taken_q && w_taken_q && delay_q == '0 && !m_bvalid;
  assign commits = writes && address_q[3:2] == 2'd3;
  always_ff @(posedge clk_i) if (rst_n) begin
    if (m_awvalid && !aw_taken_q) {aw_taken_q, address_q} <= {1'b1, m_awaddr};
    if (m_wvalid && !w_taken_q) {w_taken_q, data_q} <= {1'b1, m_wdata[1:0]};
    if (m_arvalid && !ar_taken_q) {ar_taken_q, address_q} <= {1'b1, m_araddr};
    if (m_arvalid && !ar_taken_q && m_araddr[3:2] == 2'd2) snapshot_q <= snapshot_q + 4'd1;
    if (delay_q != '0) delay_q <= delay_q - 2'd1;
    if ((m_awvalid && !aw_taken_q) || (m_arvalid && !ar_taken_q)) delay_q <= Whole ? {1'b0, delay_i[0]} : delay_i;
    if (writes) m_bvalid <= 1'b1;
    if (writes && address_q[3:2] == 2'd2) lower_q <= data_q;
    if (m_bvalid && m_bready) {m_bvalid, aw_taken_q, w_taken_q} <= '0;
    if (ar_taken_q && delay_q == '0 && !m_rvalid) m_rvalid <= 1'b1;
    if (m_rvalid && m_rready) {m_rvalid, ar_taken_q} <= '0;
  end

  // What each side was told last of the lower word, and whether it has written one without its upper word.
  logic host_told_q = 1'b0, core_told_q = 1'b0, host_wrote_q = 1'b0, core_wrote_q = 1'b0;
  logic [3:0] host_snapshot_q = '0, core_snapshot_q = '0;
  logic [1:0] asked_q = '0, written_q = '0;  // the words of the host's accesses under way
  always_ff @(posedge clk_i) if (rst_n) begin
    if (arvalid && arready) asked_q <= read_word;
    if (awvalid && awready) written_q <= write_word;
    if (rvalid && asked_q == 2'd2) {host_told_q, host_snapshot_q} <= {1'b1, rdata[3:0]};
    if (done && !cpu_write && core_word == 2'd2) {core_told_q, core_snapshot_q} <= {1'b1, cpu_data[3:0]};
    if (bvalid && written_q == 2'd2) host_wrote_q <= 1'b1;
    if (bvalid && written_q == 2'd3) host_wrote_q <= 1'b0;
    if (done && cpu_write && core_word == 2'd2) core_wrote_q <= 1'b1;
    if (done && cpu_write && core_word == 2'd3) core_wrote_q <= 1'b0;
  end

  // Cycles that each has waited although nothing of his own is missing.
  localparam logic [5:0] Longest = 6'd42;
  logic [5:0] core_q = '0, write_q = '0, read_q = '0;
  if (!Whole) begin : gen_waits
    always_ff @(posedge clk_i) if (rst_n) begin
      core_q <= request && !done ? core_q + 6'd1 : '0;
      write_q <= awvalid && wvalid && !awready && !bvalid ? write_q + 6'd1 : '0;
      read_q <= arvalid && !arready && !rvalid ? read_q + 6'd1 : '0;
      // At once the block has one access.
      assert (!((aw_taken_q || w_taken_q) && ar_taken_q));
      assert (core_q < Longest);
      assert (write_q < Longest + 6'd18);
      assert (read_q < Longest + 6'd18);
      // An address is taken with its data.
      assert (!(awready && awvalid) || (wvalid && wready));
      if (done) assert (request);
      cover (core_q == 6'd20);
      cover (done && rvalid && bvalid);
    end
  end else begin : gen_whole
    always_ff @(posedge clk_i) if (rst_n) begin
      // Answers go to whoever asked.
      if (rvalid) assert (asked_q[1] ? rdata[5] : rdata == {28'b0, asked_q, 2'b10});
      if (done && !cpu_write) assert (core_word[1] ? cpu_data[5] : cpu_data == {28'b0, core_word, 2'b11});
      // The upper word is that of the lower one, whatever happened in between; a write is all of one side's.
      if (rvalid && asked_q == 2'd3 && host_told_q) assert (rdata[3:0] == host_snapshot_q);
      if (done && !cpu_write && core_word == 2'd3 && core_told_q) assert (cpu_data[3:0] == core_snapshot_q);
      if (commits && data_q == 2'd1 && host_wrote_q) assert (lower_q == 2'd1);
      if (commits && data_q == 2'd3 && core_wrote_q) assert (lower_q == 2'd3);
      cover (commits && host_wrote_q && core_wrote_q);
      cover (rvalid && asked_q == 2'd3 && host_told_q && core_told_q && snapshot_q == 4'd2);
    end
  end
endmodule
