// SPDX-License-Identifier: Apache-2.0
// Asks one PHY for its link, and lets the host use the same bus.
//
// Clock: the core clock. Every poll_i periods (0: never) the basic status is read; when the link is up and was
// not, what was negotiated too, then link_o rises and ups_o counts: a new latency of the PHY may begin. The
// link bit of clause 22 stays low until it is read, so a link that was down between two polls is seen as down
// once, and counts again. A PHY that does not answer is down.
// Host: command_i (one period) takes the command_* values; busy_o until it is done, then data_o and error_o.
// A poll under way is finished first. A command_i while busy_o is not taken.
module phy_link #(
  parameter int unsigned HalfPeriod = 25
) (
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic [31:0] poll_i,
  input  logic [4:0]  phy_i,

  input  logic        command_i,
  input  logic        command_write_i,
  input  logic [4:0]  command_phy_i,
  input  logic [4:0]  command_register_i,
  input  logic [15:0] command_data_i,
  output logic        busy_o,
  output logic [15:0] data_o,
  output logic        error_o,

  output logic        link_o,
  output logic [1:0]  speed_o,        // 0: 10, 1: 100, 2: 1000 Mb/s; as negotiated or forced
  output logic        full_duplex_o,
  output logic        answers_o,      // the last poll got an answer
  output logic [31:0] ups_o,

  output logic        mdc_o,
  output logic        mdio_o,
  output logic        mdio_oe_o,
  input  logic        mdio_i
);
  localparam logic [4:0] RegControl = 5'd0, RegStatus = 5'd1, RegAbility = 5'd4, RegPartner = 5'd5,
                         RegGigabit = 5'd9, RegGigabitPartner = 5'd10;
  typedef enum logic [2:0] {StWait, StStatus, StControl, StAbility, StPartner, StGigabit, StGigabitPartner} state_e;
  state_e state_q;
  logic [31:0] timer_q;
  logic pending_q, write_q, host_q;        // host_q: the frame under way is the host's
  logic [4:0] phy_q, register_q;
  logic [15:0] data_q;
  logic valid, ready, done, write, error;
  logic [4:0] phy, register;
  logic [15:0] rdata;
  logic started_q;                          // the poll's frame of this state is under way

  mdio_master #(.HalfPeriod(HalfPeriod)) u_mdio (
    .clk_i, .rst_ni, .valid_i(valid), .ready_o(ready), .write_i(write), .phy_i(phy), .register_i(register),
    .data_i(data_q), .done_o(done), .data_o(rdata), .error_o(error), .mdc_o, .mdio_o, .mdio_oe_o, .mdio_i
  );

  logic want_poll;
  assign want_poll = state_q != StWait && !started_q;
  assign valid = ready && !done && ((pending_q && !host_q) || want_poll);
  // The host goes between two polls, not within one.
  logic host_now;
  assign host_now = pending_q && !host_q && (state_q == StWait);
  assign write = host_now && write_q;
  assign phy = host_now ? phy_q : phy_i;
  always_comb begin
    unique case (state_q)
      StStatus: register = RegStatus;
      StControl: register = RegControl;
      StAbility: register = RegAbility;
      StPartner: register = RegPartner;
      StGigabit: register = RegGigabit;
      StGigabitPartner: register = RegGigabitPartner;
      default: register = register_q;
    endcase
  end

  logic [15:0] control_q, ability_q, partner_q, gigabit_q;
  logic [15:0] common;
  logic [1:0] speed;
  logic duplex;
  assign common = ability_q & partner_q;
  always_comb begin
    // IEEE 802.3 table 28B-3, with 40.5.1 in front; without auto-negotiation the control register decides.
    if (!control_q[12]) {speed, duplex} = {control_q[6], control_q[13] && !control_q[6], control_q[8]};
    else if (gigabit_q[9] && rdata[11]) {speed, duplex} = {2'd2, 1'b1};
    else if (gigabit_q[8] && rdata[10]) {speed, duplex} = {2'd2, 1'b0};
    else if (common[8]) {speed, duplex} = {2'd1, 1'b1};
    else if (common[7]) {speed, duplex} = {2'd1, 1'b0};
    else {speed, duplex} = {2'd0, common[6]};
  end

  // Most of the time nothing but the timer moves: less to switch, and to simulate.
  logic quiet, fires;
  assign fires = poll_i != '0 && timer_q >= poll_i - 32'd1;
  assign quiet = state_q == StWait && !pending_q && !command_i && !fires && ready && !done;
  // Simulation: nothing but the timer moves until it fires, or a register is written (tools/model_edges.py).
  logic asleep;
  assign asleep = quiet;
  assign busy_o = pending_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= StWait;
      timer_q <= '0;
      pending_q <= 1'b0;
      host_q <= 1'b0;
      started_q <= 1'b0;
      write_q <= 1'b0;
      phy_q <= '0;
      register_q <= '0;
      data_q <= '0;
      data_o <= '0;
      error_o <= 1'b0;
      link_o <= 1'b0;
      speed_o <= '0;
      full_duplex_o <= 1'b0;
      answers_o <= 1'b0;
      ups_o <= '0;
      control_q <= '0;
      ability_q <= '0;
      partner_q <= '0;
      gigabit_q <= '0;
    end else if (quiet) begin
      timer_q <= poll_i == '0 ? '0 : timer_q + 32'd1;
    end else begin
      if (command_i && !pending_q) begin
        pending_q <= 1'b1;
        write_q <= command_write_i;
        phy_q <= command_phy_i;
        register_q <= command_register_i;
        data_q <= command_data_i;
      end
      if (valid && ready) begin
        if (host_now) host_q <= 1'b1;
        else started_q <= 1'b1;
      end
      if (done && host_q) begin
        host_q <= 1'b0;
        pending_q <= 1'b0;
        data_o <= rdata;
        error_o <= error;
      end

      if (state_q == StWait) begin
        timer_q <= poll_i == '0 ? '0 : timer_q + 32'd1;
        if (fires && !pending_q && !command_i) begin
          timer_q <= '0;
          state_q <= StStatus;
          started_q <= 1'b0;
        end
      end else if (done && started_q) begin
        started_q <= 1'b0;
        answers_o <= !error;
        unique case (state_q)
          StStatus: begin
            if (error || !rdata[2]) begin
              link_o <= 1'b0;
              state_q <= StWait;
            end else state_q <= link_o ? StWait : StControl;
          end
          StControl: begin
            control_q <= rdata;
            state_q <= StAbility;
          end
          StAbility: begin
            ability_q <= rdata;
            state_q <= StPartner;
          end
          StPartner: begin
            partner_q <= rdata;
            state_q <= StGigabit;
          end
          StGigabit: begin
            gigabit_q <= rdata;
            state_q <= StGigabitPartner;
          end
          default: begin
            state_q <= StWait;
            if (!error) begin
              link_o <= 1'b1;
              speed_o <= speed;
              full_duplex_o <= duplex;
              ups_o <= ups_o + 32'd1;
            end
          end
        endcase
        if (error) state_q <= StWait;
      end
    end
  end
endmodule
