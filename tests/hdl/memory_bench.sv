// SPDX-License-Identifier: Apache-2.0
// card_memory with the AXI4 signals that cocotbext-axi expects beside those the card uses.
module memory_bench (
  input  logic        clk,
  input  logic        rst,
  input  logic [7:0]  s_axi_awid,
  input  logic [63:0] s_axi_awaddr,
  input  logic [7:0]  s_axi_awlen,
  input  logic [2:0]  s_axi_awsize,
  input  logic [1:0]  s_axi_awburst,
  input  logic        s_axi_awvalid,
  output logic        s_axi_awready,
  input  logic [63:0] s_axi_wdata,
  input  logic [7:0]  s_axi_wstrb,
  input  logic        s_axi_wlast,
  input  logic        s_axi_wvalid,
  output logic        s_axi_wready,
  output logic [7:0]  s_axi_bid,
  output logic [1:0]  s_axi_bresp,
  output logic        s_axi_bvalid,
  input  logic        s_axi_bready,
  input  logic [7:0]  s_axi_arid,
  input  logic [63:0] s_axi_araddr,
  input  logic [7:0]  s_axi_arlen,
  input  logic [2:0]  s_axi_arsize,
  input  logic [1:0]  s_axi_arburst,
  input  logic        s_axi_arvalid,
  output logic        s_axi_arready,
  output logic [7:0]  s_axi_rid,
  output logic [63:0] s_axi_rdata,
  output logic [1:0]  s_axi_rresp,
  output logic        s_axi_rlast,
  output logic        s_axi_rvalid,
  input  logic        s_axi_rready,
  input  logic        write,
  input  logic [9:0]  address,
  input  logic [63:0] data,
  output logic [63:0] data_read
);
  always_ff @(posedge clk) begin
    if (s_axi_awvalid && s_axi_awready) s_axi_bid <= s_axi_awid;
    if (s_axi_arvalid && s_axi_arready) s_axi_rid <= s_axi_arid;
  end
  card_memory #(.WordsLog2(10)) dut (
    .clk_i(clk), .rst_ni(!rst), .s_axi_awvalid, .s_axi_awready, .s_axi_awaddr, .s_axi_awlen, .s_axi_wvalid,
    .s_axi_wready, .s_axi_wdata, .s_axi_wlast, .s_axi_bvalid, .s_axi_bready, .s_axi_bresp, .s_axi_arvalid,
    .s_axi_arready, .s_axi_araddr, .s_axi_arlen, .s_axi_rvalid, .s_axi_rready, .s_axi_rdata, .s_axi_rresp,
    .s_axi_rlast, .write_i(write), .address_i(address), .data_i(data), .data_o(data_read)
  );
endmodule
