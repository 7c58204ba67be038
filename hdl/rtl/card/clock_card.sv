// SPDX-License-Identifier: Apache-2.0
// The card without its ports: clock, PPS, serial line, soft core and all registers, those of the missing parts
// without effect. For closed loops in simulation, and for boards that only keep time.
//
// Clocks as discipline.sv.
module clock_card #(
  parameter logic [31:0] BuildId = 32'd0,
  parameter bit Simulated = 1'b0
) (
  input  logic        clk_i,
  input  logic        reg_clk_i,
  input  logic        cpu_clk_i,
  input  logic        aux_clk_i,
  input  logic        rst_ni,
  output logic        reg_active_o,
  output logic        cpu_active_o,
  output logic        aux_active_o,

  input  logic [7:0]  pps_word_i,
  output logic [7:0]  pps_word_o,
  input  logic        uart_rx_i,
  output logic        uart_tx_o,

  input  logic        s_axil_awvalid,
  output logic        s_axil_awready,
  input  logic [16:0] s_axil_awaddr,
  input  logic        s_axil_wvalid,
  output logic        s_axil_wready,
  input  logic [31:0] s_axil_wdata,
  input  logic [3:0]  s_axil_wstrb,
  output logic        s_axil_bvalid,
  input  logic        s_axil_bready,
  output logic [1:0]  s_axil_bresp,
  input  logic        s_axil_arvalid,
  output logic        s_axil_arready,
  input  logic [16:0] s_axil_araddr,
  output logic        s_axil_rvalid,
  input  logic        s_axil_rready,
  output logic [31:0] s_axil_rdata,
  output logic [1:0]  s_axil_rresp,

  output logic [103:0] now_q72_o
);
  card_regs_pkg::twinstamp_card__in_t hwif_in, hwif_in_q;
  card_regs_pkg::twinstamp_card__out_t hwif_out;
  logic [63:0] now_q32, slew_left;
  logic [31:0] epoch;
  logic [48:0] added_q72;
  logic load_refused, increment_refused, failed;

  logic awvalid, awready, wvalid, wready, bvalid, bready, arvalid, arready, rvalid, rready;
  logic [16:0] awaddr, araddr;
  logic [31:0] wdata, rdata;
  logic [3:0] wstrb;
  logic [1:0] bresp, rresp;

  card_clock u_clock (
    .clk_i, .rst_ni,
    .increment_write_i(hwif_out.clock.increment.q72.swmod),
    .increment_q72_i(hwif_out.clock.increment.q72.value),
    .slew_write_i(hwif_out.clock.slew_amount.q64.swmod),
    .slew_amount_q64_i(hwif_out.clock.slew_amount.q64.value),
    .slew_step_q64_i(hwif_out.clock.slew_step.q64.value),
    .load_i(hwif_out.clock.control.load.value),
    .load_q32_i(hwif_out.clock.load_time.q32.value),
    .locked_i(hwif_out.clock.control.locked.value && !failed),
    .armed_i(1'b0),
    .now_q72_o, .now_q32_o(now_q32), .next_q32_o(), .now_fraction_o(), .added_q72_o(added_q72), .slew_left_q64_o(slew_left), .epoch_o(epoch),
    .load_refused_o(load_refused), .increment_refused_o(increment_refused)
  );

  discipline u_discipline (
    .clk_i, .reg_clk_i, .cpu_clk_i, .aux_clk_i, .rst_ni, .reg_active_o, .cpu_active_o, .aux_active_o,
    .now_q72_i(now_q72_o), .added_q72_i(added_q72), .failed_o(failed),
    .pps_word_i, .pps_word_o, .uart_rx_i, .uart_tx_o,
    .pps_o(hwif_in.pps), .pps_i(hwif_out.pps), .uart_o(hwif_in.uart), .uart_i(hwif_out.uart),
    .cpu_o(hwif_in.cpu), .cpu_i(hwif_out.cpu),
    .memory_o(hwif_in.cpu_memory), .memory_i(hwif_out.cpu_memory),
    .s_awvalid(s_axil_awvalid), .s_awready(s_axil_awready), .s_awaddr(s_axil_awaddr),
    .s_wvalid(s_axil_wvalid), .s_wready(s_axil_wready), .s_wdata(s_axil_wdata), .s_wstrb(s_axil_wstrb),
    .s_bvalid(s_axil_bvalid), .s_bready(s_axil_bready), .s_bresp(s_axil_bresp),
    .s_arvalid(s_axil_arvalid), .s_arready(s_axil_arready), .s_araddr(s_axil_araddr),
    .s_rvalid(s_axil_rvalid), .s_rready(s_axil_rready), .s_rdata(s_axil_rdata), .s_rresp(s_axil_rresp),
    .m_awvalid(awvalid), .m_awready(awready), .m_awaddr(awaddr), .m_wvalid(wvalid), .m_wready(wready),
    .m_wdata(wdata), .m_wstrb(wstrb), .m_bvalid(bvalid), .m_bready(bready), .m_bresp(bresp),
    .m_arvalid(arvalid), .m_arready(arready), .m_araddr(araddr), .m_rvalid(rvalid), .m_rready(rready),
    .m_rdata(rdata), .m_rresp(rresp)
  );

  assign hwif_in.id.build.value.next = BuildId;
  assign hwif_in.id.features.flow_hash.next = 1'b0;
  assign hwif_in.id.features.digest.next = 1'b0;
  assign hwif_in.id.features.phy.next = 1'b0;
  assign hwif_in.id.features.loopback.next = 1'b0;
  assign hwif_in.id.features.transmit.next = 1'b0;
  assign hwif_in.id.features.trains.next = 1'b0;
  assign hwif_in.id.features.simulated.next = Simulated;
  assign hwif_in.id.features.discipline.next = 1'b1;
  assign hwif_in.id.size.ports.next = '0;
  assign hwif_in.id.size.counters.next = '0;
  assign hwif_in.id.size.store_log2.next = '0;
  assign hwif_in.id.core_clock.hz.next = 32'd125_000_000;
  assign hwif_in.clock.now.q32.next = now_q32;
  assign hwif_in.clock.slew_left.q64.next = slew_left;
  assign hwif_in.clock.status.load_refused.hwset = load_refused;
  assign hwif_in.clock.status.increment_refused.hwset = increment_refused;
  assign hwif_in.clock.status.slewing.next = slew_left != '0;
  assign hwif_in.clock.control.locked.hwclr = failed;
  assign hwif_in.clock.epoch.value.next = epoch;
  assign hwif_in.ring.status.error.next = 1'b0;
  assign hwif_in.ring.status.idle.next = 1'b1;
  assign hwif_in.ring.status.receive_fault.next = '0;
  assign hwif_in.ring.status.bad_shape.next = 1'b0;
  assign hwif_in.ring.producer.index.next = '0;
  assign hwif_in.counters.status.busy.next = 1'b0;
  assign hwif_in.counters.at.q32.next = '0;
  for (genvar p = 0; p < 4; p++) begin : gen_no_port
    assign hwif_in.port[p].rx_constant.q32.next = '0;
    assign hwif_in.port[p].rx_status.overflow.next = 1'b0;
    assign hwif_in.port[p].tx_consumer.index.next = '0;
    assign hwif_in.port[p].tx_status.error.next = 1'b0;
    assign hwif_in.port[p].tx_status.bad_shape.next = 1'b0;
    assign hwif_in.port[p].tx_status.bad_record.next = 1'b0;
    assign hwif_in.port[p].tx_lost.count.next = '0;
    assign hwif_in.port[p].phy.status.link.next = 1'b0;
    assign hwif_in.port[p].phy.status.answers.next = 1'b0;
    assign hwif_in.port[p].phy.status.full_duplex.next = 1'b0;
    assign hwif_in.port[p].phy.status.speed.next = '0;
    assign hwif_in.port[p].phy.epochs.count.next = '0;
    assign hwif_in.port[p].phy.answer.data.next = '0;
    assign hwif_in.port[p].phy.answer.busy.next = 1'b0;
    assign hwif_in.port[p].phy.answer.error.next = 1'b0;
    for (genvar t = 0; t < 4; t++) begin : gen_train
      assign hwif_in.port[p].train[t].status.active.next = 1'b0;
      assign hwif_in.port[p].train[t].status.done.next = 1'b0;
      assign hwif_in.port[p].train[t].status.refused.next = 1'b0;
      assign hwif_in.port[p].train[t].sent.count.next = '0;
      assign hwif_in.port[p].train[t].late.count.next = '0;
      assign hwif_in.port[p].train[t].worst.q32.next = '0;
      assign hwif_in.port[p].train[t].unreported.count.next = '0;
    end
  end
  // What is written to or read from a missing memory is answered all the same.
  assign hwif_in.counter_memory.rd_data = '0;
  assign hwif_in.counter_memory.rd_ack = hwif_out.counter_memory.req && !hwif_out.counter_memory.req_is_wr;
  assign hwif_in.counter_memory.wr_ack = hwif_out.counter_memory.req && hwif_out.counter_memory.req_is_wr;
  assign hwif_in.digest_key.wr_ack = hwif_out.digest_key.req && hwif_out.digest_key.req_is_wr;
  assign hwif_in.flow_key.wr_ack = hwif_out.flow_key.req && hwif_out.flow_key.req_is_wr;
  assign hwif_in.train_memory.wr_ack = hwif_out.train_memory.req && hwif_out.train_memory.req_is_wr;

  always_ff @(posedge reg_clk_i) hwif_in_q <= hwif_in;
  card_regs u_regs (
    .clk(reg_clk_i), .arst_n(rst_ni),
    .s_axil_awready(awready), .s_axil_awvalid(awvalid), .s_axil_awaddr(awaddr), .s_axil_awprot(3'b000),
    .s_axil_wready(wready), .s_axil_wvalid(wvalid), .s_axil_wdata(wdata), .s_axil_wstrb(wstrb),
    .s_axil_bready(bready), .s_axil_bvalid(bvalid), .s_axil_bresp(bresp),
    .s_axil_arready(arready), .s_axil_arvalid(arvalid), .s_axil_araddr(araddr), .s_axil_arprot(3'b000),
    .s_axil_rready(rready), .s_axil_rvalid(rvalid), .s_axil_rdata(rdata), .s_axil_rresp(rresp),
    .hwif_in(hwif_in_q), .hwif_out
  );
endmodule
