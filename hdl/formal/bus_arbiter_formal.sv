// SPDX-License-Identifier: Apache-2.0
// bus_arbiter: nobody waits for ever, and everybody gets his own answer. The block answers every access within
// three cycles; the host holds what it offers, but takes its responses whenever it likes, or never, and may offer
// an address without its data.
module bus_arbiter_formal (
  input logic        clk_i,
  input logic        aw_i, w_i, ar_i, bready_i, rready_i, request_i, write_i,
  input logic [1:0]  delay_i
);
  logic rst_n = 1'b0;
  always_ff @(posedge clk_i) rst_n <= 1'b1;

  // The host and the core offer, and hold what they offer.
  logic awvalid = 1'b0, wvalid = 1'b0, arvalid = 1'b0, request = 1'b0, cpu_write = 1'b0;
  logic awready, wready, arready, bvalid, rvalid, done;
  always_ff @(posedge clk_i) if (rst_n) begin
    awvalid <= awvalid ? !awready : aw_i;
    wvalid <= wvalid ? !wready : w_i;
    arvalid <= arvalid ? !arready : ar_i;
    request <= request ? !done : request_i;
    if (!request) cpu_write <= write_i;
  end

  logic m_awvalid, m_wvalid, m_bready, m_arvalid, m_rready;
  logic m_bvalid = 1'b0, m_rvalid = 1'b0;
  logic [3:0] m_awaddr, m_araddr, address_q;
  logic [31:0] rdata, cpu_data;
  logic aw_taken_q = 1'b0, w_taken_q = 1'b0, ar_taken_q = 1'b0;
  logic [1:0] delay_q = '0;
  bus_arbiter #(.AddressBits(4)) u_arbiter (
    .clk_i, .rst_ni(rst_n),
    .s_awvalid(awvalid), .s_awready(awready), .s_awaddr(4'd1), .s_wvalid(wvalid), .s_wready(wready), .s_wdata(32'd1),
    .s_wstrb(4'hF), .s_bvalid(bvalid), .s_bready(bready_i), .s_bresp(), .s_arvalid(arvalid), .s_arready(arready),
    .s_araddr(4'd2), .s_rvalid(rvalid), .s_rready(rready_i), .s_rdata(rdata), .s_rresp(),
    .cpu_request_i(request), .cpu_write_i(cpu_write), .cpu_address_i(4'd3), .cpu_data_i(32'd3), .cpu_strobe_i(4'hF),
    .cpu_done_o(done), .cpu_data_o(cpu_data),
    .m_awvalid, .m_awready(!aw_taken_q), .m_awaddr, .m_wvalid, .m_wready(!w_taken_q), .m_wdata(), .m_wstrb(),
    .m_bvalid, .m_bready, .m_bresp(2'b00), .m_arvalid, .m_arready(!ar_taken_q), .m_araddr,
    .m_rvalid, .m_rready, .m_rdata({28'b0, address_q}), .m_rresp(2'b00)
  );
  // The register block: takes one access, answers after 0 to 3 cycles with the address that it was given.
  always_ff @(posedge clk_i) if (rst_n) begin
    if (m_awvalid && !aw_taken_q) {aw_taken_q, address_q} <= {1'b1, m_awaddr};
    if (m_wvalid && !w_taken_q) w_taken_q <= 1'b1;
    if (m_arvalid && !ar_taken_q) {ar_taken_q, address_q} <= {1'b1, m_araddr};
    if (delay_q != '0) delay_q <= delay_q - 2'd1;
    if ((m_awvalid && !aw_taken_q) || (m_arvalid && !ar_taken_q)) delay_q <= delay_i;
    if (aw_taken_q && w_taken_q && delay_q == '0 && !m_bvalid) m_bvalid <= 1'b1;
    if (m_bvalid && m_bready) {m_bvalid, aw_taken_q, w_taken_q} <= '0;
    if (ar_taken_q && delay_q == '0 && !m_rvalid) m_rvalid <= 1'b1;
    if (m_rvalid && m_rready) {m_rvalid, ar_taken_q} <= '0;
  end

  // Cycles that each has waited although nothing of his own is missing.
  localparam logic [4:0] Longest = 5'd20;
  logic [4:0] core_q = '0, write_q = '0, read_q = '0;
  logic host_writes_q = 1'b0;
  always_ff @(posedge clk_i) if (rst_n) begin
    core_q <= request && !done ? core_q + 5'd1 : '0;
    write_q <= awvalid && wvalid && !awready && !bvalid ? write_q + 5'd1 : '0;
    read_q <= arvalid && !arready && !rvalid ? read_q + 5'd1 : '0;
    // At once the block has one access.
    assert (!((aw_taken_q || w_taken_q) && ar_taken_q));
    assert (core_q < Longest);
    assert (write_q < Longest + 5'd8);
    assert (read_q < Longest + 5'd8);
    // An address is taken with its data.
    assert (!(awready && awvalid) || (wvalid && wready));
    // Answers go to whoever asked.
    if (rvalid) assert (rdata == 32'd2);
    if (done && !$past(cpu_write)) assert (cpu_data == 32'd3);
    if (done) assert (request);
    cover (core_q == 5'd12);
    cover (done && rvalid && bvalid);
  end
endmodule
