// SPDX-License-Identifier: Apache-2.0
// Shares the register block between the host (AXI4-Lite) and the soft core, and keeps registers of 64 bits whole.
//
// Clock: clk_i (that of the register block). One access at a time, in turn when both want one. An access
// begins when all of it is there (a write's address and data) and the host has taken its last response of that
// kind; its response is kept here for the host, so neither side can hold the block up, nor the other.
// Latency: four cycles more than the block's own, and a second access to the block where two words belong together.
// The core asks with cpu_request_i, and holds it and the rest until cpu_done_o, one cycle.
// Registers of 64 bits (Wide: their byte addresses): the block has one buffer for the second word of each, which the
// other side's access in between would change. So each side has its own here. A read of the lower word reads both, and
// the upper word is then that one, however late it is asked for. A lower word that is written waits here and goes to
// the block just before its upper one; where another register's lower word comes first, it goes to the block alone.
module bus_arbiter #(
  parameter int unsigned AddressBits = 17,
  parameter int unsigned WideCount = 1,
  parameter logic [WideCount-1:0][AddressBits-1:0] Wide = '0
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
  typedef enum logic [2:0] {StIdle, StLook, StHeld, StWrite, StRead, StReadUpper, StReply} state_e;
  state_e state_q;
  logic cpu_q, write_q;         // whose access, and its kind
  logic last_cpu_q, last_write_q;
  logic [AddressBits-1:0] address_q;
  logic [31:0] data_q;
  logic [3:0] strobe_q;

  // What goes to the block, and what comes back.
  logic [AddressBits-1:0] m_address_q;
  logic [31:0] m_data_q, reply_q;
  logic [3:0] m_strobe_q;
  logic [1:0] response_q;

  // Of each side, [1] the core: the upper word of what it read last, the lower word that it has written.
  localparam int unsigned P = AddressBits - 3;
  logic [1:0] kept_q, held_q;
  logic [P-1:0] kept_place_q [2];
  logic [P-1:0] held_place_q [2];
  logic [31:0] kept_data_q [2];
  logic [31:0] held_data_q [2];
  logic [3:0] held_strobe_q [2];

  logic [P-1:0] place;
  logic wide, upper, keeps, holds;
  assign place = address_q[AddressBits-1:3];
  assign upper = address_q[2];
  always_comb begin
    wide = 1'b0;
    for (int unsigned i = 0; i < WideCount; i++) if (place == Wide[i][AddressBits-1:3]) wide = 1'b1;
  end
  assign keeps = kept_q[cpu_q] && kept_place_q[cpu_q] == place;
  assign holds = held_q[cpu_q] && (!upper || held_place_q[cpu_q] == place);

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
      {cpu_q, write_q, last_cpu_q, last_write_q} <= '0;
      {kept_q, held_q} <= '0;
      {m_awvalid, m_wvalid, m_arvalid} <= '0;
      {s_bvalid, s_rvalid, cpu_done_o} <= '0;
      {s_awready, s_arready} <= '0;
    end else begin
      cpu_done_o <= 1'b0;
      // From registers: the host holds what it offers until then.
      s_awready <= take_write;
      s_arready <= take_read;
      if (s_bready) s_bvalid <= 1'b0;
      if (s_rready) s_rvalid <= 1'b0;
      if (m_awready) m_awvalid <= 1'b0;
      if (m_wready) m_wvalid <= 1'b0;
      if (m_arready) m_arvalid <= 1'b0;
      unique case (state_q)
        StIdle: begin
          if (cpu || host) state_q <= StLook;
          if (cpu || host) last_cpu_q <= cpu;
          if (host) last_write_q <= take_write;
          cpu_q <= cpu;
          write_q <= cpu ? cpu_write_i : take_write;
        end
        StLook: begin
          if (!write_q && wide && upper && keeps) state_q <= StReply;
          else if (!write_q) begin
            m_arvalid <= 1'b1;
            state_q <= StRead;
          end else if (wide && holds) begin
            {m_awvalid, m_wvalid} <= '1;
            state_q <= StHeld;
          end else if (wide && !upper) begin
            held_q[cpu_q] <= 1'b1;
            state_q <= StReply;
          end else begin
            {m_awvalid, m_wvalid} <= '1;
            state_q <= StWrite;
          end
        end
        StHeld: if (m_bvalid) begin
          held_q[cpu_q] <= !upper;
          {m_awvalid, m_wvalid} <= {2{upper}};
          state_q <= upper ? StWrite : StReply;
        end
        StWrite: if (m_bvalid) state_q <= StReply;
        StRead: if (m_rvalid) begin
          m_arvalid <= wide && !upper;
          state_q <= wide && !upper ? StReadUpper : StReply;
        end
        StReadUpper: if (m_rvalid) begin
          kept_q[cpu_q] <= 1'b1;
          state_q <= StReply;
        end
        default: begin  // StReply
          cpu_done_o <= cpu_q;
          if (!cpu_q && write_q) s_bvalid <= 1'b1;
          if (!cpu_q && !write_q) s_rvalid <= 1'b1;
          state_q <= StIdle;
        end
      endcase
    end
  end

  // Data, which count only with the bits above.
  always_ff @(posedge clk_i) begin
    unique case (state_q)
      StIdle: begin
        address_q <= cpu ? cpu_address_i : take_write ? s_awaddr : s_araddr;
        data_q <= cpu ? cpu_data_i : s_wdata;
        strobe_q <= cpu ? cpu_strobe_i : s_wstrb;
        response_q <= 2'b00;
      end
      StLook: begin
        reply_q <= kept_data_q[cpu_q];
        m_address_q <= write_q && wide && holds ? {held_place_q[cpu_q], 3'b000} : address_q;
        m_data_q <= wide && holds ? held_data_q[cpu_q] : data_q;
        m_strobe_q <= wide && holds ? held_strobe_q[cpu_q] : strobe_q;
      end
      StHeld: if (m_bvalid) begin
        m_address_q <= address_q;
        m_data_q <= data_q;
        m_strobe_q <= strobe_q;
      end
      StWrite: response_q <= m_bresp;
      StRead: begin
        if (m_rvalid) m_address_q <= {place, 3'b100};
        reply_q <= m_rdata;
        response_q <= m_rresp;
      end
      default: ;
    endcase
    if (write_q && wide && !upper && ((state_q == StLook && !holds) || (state_q == StHeld && m_bvalid))) begin
      held_place_q[cpu_q] <= place;
      held_data_q[cpu_q] <= data_q;
      held_strobe_q[cpu_q] <= strobe_q;
    end
    if (state_q == StReadUpper) begin
      kept_place_q[cpu_q] <= place;
      kept_data_q[cpu_q] <= m_rdata;
    end
    if (state_q == StReply && cpu_q) cpu_data_o <= reply_q;
    if (state_q == StReply && !cpu_q) begin
      if (write_q) s_bresp <= response_q;
      else {s_rdata, s_rresp} <= {reply_q, response_q};
    end
  end
  assign m_awaddr = m_address_q;
  assign m_araddr = m_address_q;
  assign m_wdata = m_data_q;
  assign m_wstrb = m_strobe_q;
  assign m_bready = state_q == StWrite || state_q == StHeld;
  assign m_rready = state_q == StRead || state_q == StReadUpper;
endmodule
