// SPDX-License-Identifier: Apache-2.0
// Shares the register block between the host (AXI4-Lite) and the soft core.
//
// Clock: clk_i (that of the register block). One access at a time, in turn when both want one. An access
// begins when all of it is there (a write's address and data) and the host has taken its last response of that
// kind; its response is kept here for the host, so neither side can hold the block up, nor the other.
// Latency: two cycles more than the block's own. The core asks with cpu_request_i, and holds it and the rest
// until cpu_done_o, one cycle.
module bus_arbiter #(
  parameter int unsigned AddressBits = 17
) (
  input  logic                   clk_i,
  input  logic                   rst_ni,

  input  logic                   s_awvalid,
  output logic                   s_awready,
  input  logic [AddressBits-1:0] s_awaddr,
  input  logic                   s_wvalid,
  output logic                   s_wready,
  input  logic [31:0]            s_wdata,
  input  logic [3:0]             s_wstrb,
  output logic                   s_bvalid,
  input  logic                   s_bready,
  output logic [1:0]             s_bresp,
  input  logic                   s_arvalid,
  output logic                   s_arready,
  input  logic [AddressBits-1:0] s_araddr,
  output logic                   s_rvalid,
  input  logic                   s_rready,
  output logic [31:0]            s_rdata,
  output logic [1:0]             s_rresp,

  input  logic                   cpu_request_i,
  input  logic                   cpu_write_i,
  input  logic [AddressBits-1:0] cpu_address_i,
  input  logic [31:0]            cpu_data_i,
  input  logic [3:0]             cpu_strobe_i,
  output logic                   cpu_done_o,
  output logic [31:0]            cpu_data_o,

  output logic                   m_awvalid,
  input  logic                   m_awready,
  output logic [AddressBits-1:0] m_awaddr,
  output logic                   m_wvalid,
  input  logic                   m_wready,
  output logic [31:0]            m_wdata,
  output logic [3:0]             m_wstrb,
  input  logic                   m_bvalid,
  output logic                   m_bready,
  input  logic [1:0]             m_bresp,
  output logic                   m_arvalid,
  input  logic                   m_arready,
  output logic [AddressBits-1:0] m_araddr,
  input  logic                   m_rvalid,
  output logic                   m_rready,
  input  logic [31:0]            m_rdata,
  input  logic [1:0]             m_rresp
);
  typedef enum logic [1:0] {StIdle, StWrite, StRead} state_e;
  state_e state_q;
  logic cpu_q;                  // whose access
  logic last_cpu_q, last_write_q;
  logic [AddressBits-1:0] address_q;
  logic [31:0] data_q;
  logic [3:0] strobe_q;

  logic host_write, host_read, host, cpu;
  assign host_write = s_awvalid && s_wvalid && !s_bvalid;
  assign host_read = s_arvalid && !s_rvalid;
  // Not in the cycle of its answer: the core takes its request away with that.
  assign cpu = cpu_request_i && !cpu_done_o && !((host_write || host_read) && last_cpu_q);
  assign host = (host_write || host_read) && !cpu;
  logic take_write, take_read;
  assign take_write = state_q == StIdle && host && host_write && !(host_read && last_write_q);
  assign take_read = state_q == StIdle && host && host_read && !take_write;
  assign s_wready = s_awready;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= StIdle;
      {cpu_q, last_cpu_q, last_write_q} <= '0;
      address_q <= '0;
      data_q <= '0;
      strobe_q <= '0;
      {m_awvalid, m_wvalid, m_arvalid} <= '0;
      {s_bvalid, s_rvalid, cpu_done_o} <= '0;
      {s_awready, s_arready} <= '0;
      s_bresp <= '0;
      s_rresp <= '0;
      s_rdata <= '0;
      cpu_data_o <= '0;
    end else begin
      cpu_done_o <= 1'b0;
      // From registers: the host holds what it offers until then.
      s_awready <= take_write;
      s_arready <= take_read;
      if (s_bready) s_bvalid <= 1'b0;
      if (s_rready) s_rvalid <= 1'b0;
      unique case (state_q)
        StIdle: begin
          if (cpu) begin
            cpu_q <= 1'b1;
            last_cpu_q <= 1'b1;
            address_q <= cpu_address_i;
            data_q <= cpu_data_i;
            strobe_q <= cpu_strobe_i;
            state_q <= cpu_write_i ? StWrite : StRead;
            m_awvalid <= cpu_write_i;
            m_wvalid <= cpu_write_i;
            m_arvalid <= !cpu_write_i;
          end else if (host) begin
            cpu_q <= 1'b0;
            last_cpu_q <= 1'b0;
            last_write_q <= take_write;
            address_q <= take_write ? s_awaddr : s_araddr;
            data_q <= s_wdata;
            strobe_q <= s_wstrb;
            state_q <= take_write ? StWrite : StRead;
            m_awvalid <= take_write;
            m_wvalid <= take_write;
            m_arvalid <= take_read;
          end
        end
        StWrite: begin
          if (m_awready) m_awvalid <= 1'b0;
          if (m_wready) m_wvalid <= 1'b0;
          if (m_bvalid) begin
            state_q <= StIdle;
            cpu_done_o <= cpu_q;
            if (!cpu_q) begin
              s_bvalid <= 1'b1;
              s_bresp <= m_bresp;
            end
          end
        end
        StRead: begin
          if (m_arready) m_arvalid <= 1'b0;
          if (m_rvalid) begin
            state_q <= StIdle;
            cpu_done_o <= cpu_q;
            if (cpu_q) cpu_data_o <= m_rdata;
            else begin
              s_rvalid <= 1'b1;
              s_rdata <= m_rdata;
              s_rresp <= m_rresp;
            end
          end
        end
        default: state_q <= StIdle;
      endcase
    end
  end
  assign m_awaddr = address_q;
  assign m_araddr = address_q;
  assign m_wdata = data_q;
  assign m_wstrb = strobe_q;
  assign m_bready = state_q == StWrite;
  assign m_rready = state_q == StRead;
endmodule
