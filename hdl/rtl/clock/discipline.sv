// SPDX-License-Identifier: Apache-2.0
// What disciplines the card's clock: PPS capture and output, the receiver's serial line, the soft core with its
// events, and the arbiter in front of the register block.
//
// Clocks: clk_i (core), all others are clk_i itself; a simulation leaves edges out: reg_clk_i while
// reg_active_o is low and the bus is quiet, cpu_clk_i while cpu_active_o is low, aux_clk_i while aux_active_o
// is low and the register block's clock stands, too. What is left out changes nothing.
// Registers that are read are a cycle old, as all of the register block's inputs.
module discipline
  import card_regs_pkg::*;
#(
  parameter Program = ""     // see soft_core
) (
  input  logic         clk_i,
  input  logic         reg_clk_i,
  input  logic         cpu_clk_i,
  input  logic         aux_clk_i,
  input  logic         rst_ni,
  output logic         reg_active_o,
  output logic         cpu_active_o,
  output logic         aux_active_o,

  input  logic [103:0] now_q72_i,
  input  logic [48:0]  added_q72_i,
  output logic         failed_o,       // of the soft core: lock and bound do not count

  input  logic [7:0]   pps_word_i,
  output logic [7:0]   pps_word_o,
  input  logic         uart_rx_i,
  output logic         uart_tx_o,

  output pps_regs__in_t   pps_o,
  input  pps_regs__out_t  pps_i,
  output uart_regs__in_t  uart_o,
  input  uart_regs__out_t uart_i,
  output cpu_regs__in_t   cpu_o,
  input  cpu_regs__out_t  cpu_i,
  output twinstamp_card__cpu_memory__external__in_t  memory_o,
  input  twinstamp_card__cpu_memory__external__out_t memory_i,

  input  logic         s_awvalid,
  output logic         s_awready,
  input  logic [16:0]  s_awaddr,
  input  logic         s_wvalid,
  output logic         s_wready,
  input  logic [31:0]  s_wdata,
  input  logic [3:0]   s_wstrb,
  output logic         s_bvalid,
  input  logic         s_bready,
  output logic [1:0]   s_bresp,
  input  logic         s_arvalid,
  output logic         s_arready,
  input  logic [16:0]  s_araddr,
  output logic         s_rvalid,
  input  logic         s_rready,
  output logic [31:0]  s_rdata,
  output logic [1:0]   s_rresp,

  output logic         m_awvalid,
  input  logic         m_awready,
  output logic [16:0]  m_awaddr,
  output logic         m_wvalid,
  input  logic         m_wready,
  output logic [31:0]  m_wdata,
  output logic [3:0]   m_wstrb,
  input  logic         m_bvalid,
  output logic         m_bready,
  input  logic [1:0]   m_bresp,
  output logic         m_arvalid,
  input  logic         m_arready,
  output logic [16:0]  m_araddr,
  input  logic         m_rvalid,
  output logic         m_rready,
  input  logic [31:0]  m_rdata,
  input  logic [1:0]   m_rresp
);
  logic published;
  logic [95:0] edge_q64;
  assign pps_o.edge_time.q32.next = edge_q64[95:32];
  assign pps_o.edge_fraction.q64.next = edge_q64[31:0];
  pps_capture u_capture (
    .clk_i(aux_clk_i), .rst_ni, .enable_i(pps_i.control.enable.value), .invert_i(pps_i.control.invert.value),
    .word_i(pps_word_i), .now_q72_i, .addend_q72_i(added_q72_i),
    .filter_i(pps_i.filter.cycles.value), .period_i(pps_i.period.cycles.value),
    .tolerance_i(pps_i.tolerance.cycles.value),
    .antenna_q48_i(pps_i.antenna_delay.q48.value), .cable_q48_i(pps_i.cable_delay.q48.value),
    .high_o(pps_o.edge_flags.high.next), .edge_q64_o(edge_q64),
    .position_o(pps_o.edge_flags.position.next), .first_o(pps_o.edge_flags.first.next),
    .early_o(pps_o.edge_flags.early.next), .doubled_o(pps_o.edge_flags.doubled.next),
    .sequence_o(pps_o.edges.count.next), .interval_o(pps_o.interval.cycles.next),
    .glitches_o(pps_o.glitches.count.next), .early_count_o(pps_o.early.count.next),
    .doubled_count_o(pps_o.doubled.count.next), .missing_o(pps_o.missing.count.next),
    .published_o(published)
  );

  // All edges, for the firmware, which may be late. Overflow policy: what finds the queue full is lost and counted.
  logic queue_take_q, queue_half, queue_first, queue_early, queue_doubled;
  logic [4:0] queue_used;
  logic [31:0] queue_lost_q;
  assign pps_o.queue_lost.count.next = queue_lost_q;
  assign pps_o.queue_flags.half.next = queue_half;
  assign pps_o.queue_flags.first.next = queue_first;
  assign pps_o.queue_flags.early.next = queue_early;
  assign pps_o.queue_flags.doubled.next = queue_doubled;
  token_fifo #(.Width(68), .DepthLog2(4)) u_queue (
    .clk_i(aux_clk_i), .rst_ni, .write_i(published && !queue_used[4]),
    .data_i({pps_o.edge_flags.doubled.next, pps_o.edge_flags.early.next, pps_o.edge_flags.first.next, edge_q64[95:31]}),
    .used_o(queue_used), .valid_o(pps_o.queue_flags.valid.next),
    .data_o({queue_doubled, queue_early, queue_first, pps_o.queue_time.q32.next, queue_half}),
    .take_i(queue_take_q && queue_used != '0)
  );
  always_ff @(posedge aux_clk_i or negedge rst_ni) begin
    if (!rst_ni) queue_lost_q <= '0;
    else if (published && queue_used[4]) queue_lost_q <= queue_lost_q + 32'd1;
  end

  pps_output u_output (
    .clk_i(aux_clk_i), .rst_ni, .enable_i(pps_i.control.output_enable.value),
    .now_q72_i(now_q72_i[72:0]), .addend_q72_i(added_q72_i), .width_i(pps_i.output_width.cycles.value),
    .delay_q48_i(pps_i.output_delay.q48.value), .word_o(pps_word_o), .count_o(pps_o.output_count.count.next)
  );

  // Writes of the register block: the value is there a cycle after swmod.
  logic transmit_q, pet_q, clear_q, command_q;
  always_ff @(posedge reg_clk_i or negedge rst_ni) begin
    if (!rst_ni) {transmit_q, pet_q, clear_q, command_q, queue_take_q} <= '0;
    else begin
      queue_take_q <= pps_i.queue_next.value.swmod;
      transmit_q <= uart_i.transmit.value.swmod;
      pet_q <= cpu_i.pet.value.swmod;
      clear_q <= cpu_i.events_clear.value.swmod;
      command_q <= cpu_i.command.value.swmod;
    end
  end

  logic uart_valid, uart_busy;
  uart u_uart (
    .clk_i(aux_clk_i), .rst_ni, .divider_i(uart_i.divider.cycles.value), .rx_i(uart_rx_i), .tx_o(uart_tx_o),
    .read_i(uart_i.receive.value.swacc), .valid_o(uart_valid), .data_o(uart_o.receive.value.next),
    .received_o(uart_o.status.received.next), .write_i(transmit_q), .data_i(uart_i.transmit.value.value),
    .full_o(uart_o.status.full.next), .idle_o(uart_o.status.idle.next),
    .framing_o(uart_o.errors.framing.next), .overflow_o(uart_o.errors.overflow.next), .busy_o(uart_busy)
  );
  assign uart_o.receive.valid.next = uart_valid;

  // Events of the core.
  logic running, pps_event_q, tick_event_q, command_event_q, run_q;
  logic [31:0] tick_q, tick, tick_last_q;
  assign tick = cpu_i.tick.cycles.value < 32'd1024 ? 32'd1024 : cpu_i.tick.cycles.value;
  logic [2:0] clear;
  assign clear = cpu_i.events_clear.value.value & {3{clear_q}};
  always_ff @(posedge aux_clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      {pps_event_q, tick_event_q, command_event_q, run_q} <= '0;
      tick_q <= '0;
      tick_last_q <= '1;
    end else begin
      run_q <= cpu_i.control.run.value;
      tick_last_q <= tick - 32'd1;
      pps_event_q <= published || (pps_event_q && !clear[0]);
      command_event_q <= command_q || (command_event_q && !clear[2]);
      if (!run_q) begin
        tick_q <= '0;
        tick_event_q <= 1'b0;
      end else if (tick_q >= tick_last_q) begin
        tick_q <= '0;
        tick_event_q <= 1'b1;
      end else begin
        tick_q <= tick_q + 32'd1;
        tick_event_q <= tick_event_q && !clear[1];
      end
    end
  end
  assign cpu_o.events.pps.next = pps_event_q;
  assign cpu_o.events.tick.next = tick_event_q;
  assign cpu_o.events.command.next = command_event_q;
  assign cpu_o.events.uart.next = uart_valid;

  logic bus_request, bus_write, bus_done;
  logic [16:0] bus_address;
  logic [31:0] bus_wdata, bus_rdata;
  logic [3:0] bus_strobe;
  logic awake;
  soft_core #(.Program(Program)) u_core (
    .clk_i, .cpu_clk_i, .rst_ni, .run_i(cpu_i.control.run.value),
    .watchdog_i(cpu_i.watchdog.cycles.value), .pet_i(pet_q),
    .events_i(pps_event_q || tick_event_q || command_event_q || uart_valid),
    .running_o(running), .failed_o, .trapped_o(cpu_o.status.trapped.next),
    .write_refused_o(cpu_o.status.write_refused.next), .awake_o(awake),
    .host_request_i(memory_i.req), .host_write_i(memory_i.req_is_wr), .host_address_i(memory_i.addr[15:2]),
    .host_data_i(memory_i.wr_data), .host_read_done_o(memory_o.rd_ack), .host_write_done_o(memory_o.wr_ack),
    .host_data_o(memory_o.rd_data),
    .bus_request_o(bus_request), .bus_write_o(bus_write), .bus_address_o(bus_address),
    .bus_data_o(bus_wdata), .bus_strobe_o(bus_strobe), .bus_done_i(bus_done), .bus_data_i(bus_rdata)
  );
  assign cpu_o.status.running.next = running;
  assign cpu_o.status.failed.next = failed_o;

  bus_arbiter #(.WideCount(card_wide_pkg::Count), .Wide(card_wide_pkg::Addresses)) u_arbiter (
    .clk_i(reg_clk_i), .rst_ni,
    .s_awvalid, .s_awready, .s_awaddr, .s_wvalid, .s_wready, .s_wdata, .s_wstrb, .s_bvalid, .s_bready, .s_bresp,
    .s_arvalid, .s_arready, .s_araddr, .s_rvalid, .s_rready, .s_rdata, .s_rresp,
    .cpu_request_i(bus_request), .cpu_write_i(bus_write), .cpu_address_i(bus_address), .cpu_data_i(bus_wdata),
    .cpu_strobe_i(bus_strobe), .cpu_done_o(bus_done), .cpu_data_o(bus_rdata),
    .m_awvalid, .m_awready, .m_awaddr, .m_wvalid, .m_wready, .m_wdata, .m_wstrb, .m_bvalid, .m_bready, .m_bresp,
    .m_arvalid, .m_arready, .m_araddr, .m_rvalid, .m_rready, .m_rdata, .m_rresp
  );

  assign reg_active_o = bus_request;
  assign cpu_active_o = awake;
  assign aux_active_o = pps_i.control.enable.value || pps_i.control.output_enable.value ||
                        cpu_i.control.run.value || running || uart_busy || !uart_rx_i;
endmodule
