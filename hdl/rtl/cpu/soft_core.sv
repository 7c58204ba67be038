// SPDX-License-Identifier: Apache-2.0
// The soft core: picorv32 (RV32IM), its memory, its watchdog.
//
// Clocks: clk_i (core), cpu_clk_i (clk_i itself; a simulation leaves edges out while awake_o is low, which
// changes nothing). What the core sees: its memory at 0, the card's registers at 0x40000000, and at 0x80000000
// a place whose read waits until events_i is not 0: that is how the firmware sleeps. Anything else stops it.
// The memory has a second port for the host: words are written while the core is in reset only
// (write_refused_o says that one was not), read at any time, a cycle later; a word that the core writes in that very
// cycle may read as anything.
// Watchdog: pet_i within watchdog_i cycles, or failed_o: the core goes into reset until run_i has been 0. An
// illegal instruction or address does the same at once. MemoryLog2: words, 10 to 14.
module soft_core #(
  parameter int unsigned MemoryLog2 = 14,
  parameter Program = ""             // what the memory holds after power-up: a file for $readmemh; "": nothing
) (
  input  logic        clk_i,
  input  logic        cpu_clk_i,
  input  logic        rst_ni,
  input  logic        run_i,
  input  logic [31:0] watchdog_i,
  input  logic        pet_i,
  input  logic        events_i,
  output logic        running_o,
  output logic        failed_o,
  output logic        trapped_o,
  output logic        write_refused_o,
  output logic        awake_o,

  input  logic                  host_request_i,
  input  logic                  host_write_i,
  input  logic [MemoryLog2-1:0] host_address_i,
  input  logic [31:0]           host_data_i,
  output logic                  host_read_done_o,
  output logic                  host_write_done_o,
  output logic [31:0]           host_data_o,

  output logic        bus_request_o,
  output logic        bus_write_o,
  output logic [16:0] bus_address_o,
  output logic [31:0] bus_data_o,
  output logic [3:0]  bus_strobe_o,
  input  logic        bus_done_i,
  input  logic [31:0] bus_data_i
);
  if (MemoryLog2 < 10 || MemoryLog2 > 14) $fatal(1, "soft_core: MemoryLog2 must be 10 to 14");

  logic running_q, resting_q;
  logic trap, valid, ready_q;
  logic [31:0] address, wdata, rdata_q;
  logic [3:0] strobe;
  logic in_memory, in_bus, in_wait, in_nothing;
  assign in_memory = address[31:MemoryLog2+2] == '0;
  assign in_bus = address[31:17] == 15'h2000;
  assign in_wait = address == 32'h80000000;
  assign in_nothing = valid && !in_memory && !in_bus && !in_wait;

  logic co_valid, co_ready;
  logic [31:0] co_insn, co_rs1, co_rs2, co_rd;
  picorv32 #(
    .ENABLE_COUNTERS(1'b0), .ENABLE_COUNTERS64(1'b0), .BARREL_SHIFTER(1'b1), .ENABLE_MUL(1'b0),
    .ENABLE_FAST_MUL(1'b0), .ENABLE_PCPI(1'b1), .ENABLE_DIV(1'b1), .TWO_CYCLE_COMPARE(1'b1), .TWO_CYCLE_ALU(1'b1),
    .CATCH_MISALIGN(1'b1), .CATCH_ILLINSN(1'b1), .REGS_INIT_ZERO(1'b1), .STACKADDR(32'hFFFFFFFF)
  ) u_cpu (
    .clk(cpu_clk_i), .resetn(running_q), .trap,
    .mem_valid(valid), .mem_instr(), .mem_ready(ready_q), .mem_addr(address), .mem_wdata(wdata),
    .mem_wstrb(strobe), .mem_rdata(rdata_q),
    .mem_la_read(), .mem_la_write(), .mem_la_addr(), .mem_la_wdata(), .mem_la_wstrb(),
    .pcpi_valid(co_valid), .pcpi_insn(co_insn), .pcpi_rs1(co_rs1), .pcpi_rs2(co_rs2), .pcpi_wr(co_ready),
    .pcpi_rd(co_rd), .pcpi_wait(1'b0), .pcpi_ready(co_ready), .irq('0), .eoi(), .trace_valid(), .trace_data()
  );
  core_multiplier u_multiplier (
    .clk_i(cpu_clk_i), .rst_ni, .valid_i(co_valid), .insn_i(co_insn), .rs1_i(co_rs1), .rs2_i(co_rs2),
    .ready_o(co_ready), .rd_o(co_rd)
  );

  // Memory, true dual port: the core on one side, the host on the other.
  logic [31:0] memory [2**MemoryLog2];
  if (Program != "") begin : gen_program
    initial $readmemh(Program, memory);
  end
  logic [31:0] read_q, host_read_q;
  logic fetched_q;
  logic [3:0] core_write;
  logic [MemoryLog2-1:0] core_place;
  // Not all of the address: a core that writes where nothing is fails anyway, and must not hold the memory up.
  assign core_write = strobe & {4{running_q && valid && address[31:30] == '0}};
  assign core_place = address[MemoryLog2+1:2];
  always_ff @(posedge cpu_clk_i) begin
    for (int i = 0; i < 4; i++) if (core_write[i]) memory[core_place][8*i +: 8] <= wdata[8*i +: 8];
    read_q <= memory[core_place];
  end
  always_ff @(posedge clk_i) begin
    if (host_request_i && host_write_i && resting_q) memory[host_address_i] <= host_data_i;
    if (host_request_i) host_read_q <= memory[host_address_i];
  end
  assign host_data_o = host_read_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) {host_read_done_o, host_write_done_o, write_refused_o} <= '0;
    else begin
      host_read_done_o <= host_request_i && !host_write_i;
      host_write_done_o <= host_request_i && host_write_i;
      if (resting_q) write_refused_o <= 1'b0;
      else if (host_request_i && host_write_i) write_refused_o <= 1'b1;
    end
  end

  // Whatever the core asked for, out of one register: it has an enable, sign extension and a shift behind it. In the
  // cycle of ready_q the core still asks.
  logic asks;
  assign asks = running_q && valid && !ready_q;
  always_ff @(posedge cpu_clk_i or negedge rst_ni) begin
    if (!rst_ni) {fetched_q, ready_q} <= '0;
    else begin
      fetched_q <= asks && in_memory && !fetched_q;
      ready_q <= asks && (fetched_q || bus_done_i || (in_wait && events_i));
    end
  end
  always_ff @(posedge cpu_clk_i) rdata_q <= fetched_q ? read_q : bus_done_i ? bus_data_i : '0;
  assign bus_request_o = asks && in_bus;
  assign bus_write_o = strobe != '0;
  assign bus_address_o = address[16:0];
  assign bus_data_o = wdata;
  assign bus_strobe_o = strobe;

  // Run, fail.
  logic [31:0] left_q;
  logic [31:0] limit;
  assign limit = watchdog_i < 32'd1024 ? 32'd1024 : watchdog_i;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      {running_q, failed_o, trapped_o} <= '0;
      left_q <= '0;
    end else if (!run_i) begin
      {running_q, failed_o, trapped_o} <= '0;
      left_q <= limit;
    end else if (!failed_o) begin
      running_q <= 1'b1;
      left_q <= pet_i ? limit : left_q - 32'd1;
      if (running_q && (trap || in_nothing || left_q == '0)) begin
        running_q <= 1'b0;
        failed_o <= 1'b1;
        trapped_o <= trap || in_nothing;
      end
    end
  end
  assign running_o = running_q;
  // Asleep: a read that waits. In reset: one edge to take the reset in.
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) resting_q <= 1'b0;
    else resting_q <= !running_q;
  end
  assign awake_o = running_q ? !(valid && in_wait && !events_i) : !resting_q;
endmodule
