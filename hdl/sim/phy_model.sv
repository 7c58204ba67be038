// SPDX-License-Identifier: Apache-2.0
// Simulation only: a gigabit PHY as the card sees it. Management of clause 22 (registers 0 to 5, 9, 10, 15),
// auto-negotiation that takes its time, data paths whose latency changes with each link-up.
//
// Clocks: clk_i (125 MHz; both directions, so the medium and the card share it here), mdc_i. rst_ni as the pin.
// Latency of each direction: BaseCycles + 0..SpreadCycles-1 periods, drawn at each link-up from Seed.
// Link: cable_i and negotiated (NegotiationCycles after the cable, or a restart); without auto-negotiation at
// once. Loopback (control bit 14): transmit comes back through both latencies, the medium sees idle.
module phy_model #(
  parameter logic [4:0]  Address = 5'd1,
  parameter logic [31:0] Id = 32'h0022_1622,
  parameter logic [31:0] Seed = 32'd1,
  parameter int unsigned BaseCycles = 3,
  parameter int unsigned SpreadCycles = 8,      // 1 to 16
  parameter int unsigned NegotiationCycles = 2000
) (
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic        mdc_i,
  input  logic        mdio_i,
  output logic        mdio_o,
  output logic        mdio_oe_o,

  input  logic        cable_i,
  input  logic [15:0] partner_i,          // register 5 of the partner's word, gigabit in partner_gigabit_i
  input  logic [1:0]  partner_gigabit_i,  // {full, half}
  output logic        link_o,
  output logic [7:0]  tx_latency_o,       // truth for tests, in periods
  output logic [7:0]  rx_latency_o,

  input  logic [7:0]  txd_i,
  input  logic        tx_en_i,
  input  logic        tx_er_i,
  output logic [7:0]  rxd_o,
  output logic        rx_dv_o,
  output logic        rx_er_o,
  output logic [9:0]  medium_o,           // {en, er, data}
  input  logic [9:0]  medium_i
);
  if (SpreadCycles < 1 || SpreadCycles > 16) $fatal(1, "phy_model: SpreadCycles must be 1 to 16");
  localparam logic [15:0] ControlReset = 16'h1140, AbilityReset = 16'h01E1, GigabitReset = 16'h0300;

  // Registers are written in mdc_i and read in clk_i: a model may.
  logic [15:0] control_q, ability_q, gigabit_q;
  logic low_seen_q;                      // link was down since the last read of the status
  logic [31:0] timer_q, random_q;
  logic link_q, complete_q, restart_q, restart_seen_q, clear_q, clear_seen_q;
  logic [15:0] status;
  assign status = {1'b0, 4'b1111, 2'b00, 1'b1, 2'b01, complete_q, 1'b0, 1'b1, link_q && !low_seen_q, 2'b01};
  assign link_o = link_q;

  // Link.
  function automatic logic [31:0] step(input logic [31:0] x);
    logic [31:0] y;
    y = x ^ (x << 13);
    y = y ^ (y >> 17);
    return y ^ (y << 5);
  endfunction
  logic common;
  assign common = (|(gigabit_q[9:8] & partner_gigabit_i)) || (|(ability_q[8:5] & partner_i[8:5]));
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      timer_q <= '0;
      link_q <= 1'b0;
      complete_q <= 1'b0;
      restart_seen_q <= 1'b0;
      clear_seen_q <= 1'b0;
      low_seen_q <= 1'b1;
      random_q <= Seed == '0 ? 32'd1 : Seed;
      tx_latency_o <= 8'(BaseCycles);
      rx_latency_o <= 8'(BaseCycles);
    end else begin
      restart_seen_q <= restart_q;
      clear_seen_q <= clear_q;
      if (clear_q != clear_seen_q) low_seen_q <= 1'b0;
      if (!link_q) low_seen_q <= 1'b1;
      if (!cable_i || restart_q != restart_seen_q) begin
        timer_q <= '0;
        link_q <= 1'b0;
        complete_q <= 1'b0;
      end else if (!link_q) begin
        timer_q <= timer_q + 32'd1;
        if (!control_q[12] || (timer_q >= NegotiationCycles && common)) begin
          link_q <= 1'b1;
          complete_q <= control_q[12];
          tx_latency_o <= 8'(BaseCycles + ((random_q >> 3) % SpreadCycles));
          rx_latency_o <= 8'(BaseCycles + ((random_q >> 17) % SpreadCycles));
          random_q <= step(step(random_q));
        end
      end
    end
  end

  // Data: delay lines.
  logic [9:0] tx_line [32];
  logic [9:0] rx_line [32];
  logic [9:0] tx_tap, rx_tap;
  assign tx_tap = tx_line[5'(tx_latency_o - 8'd1)];
  assign rx_tap = rx_line[5'(rx_latency_o - 8'd1)];
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      for (int i = 0; i < 32; i++) begin
        tx_line[i] <= '0;
        rx_line[i] <= '0;
      end
    end else begin
      for (int i = 1; i < 32; i++) begin
        tx_line[i] <= tx_line[i-1];
        rx_line[i] <= rx_line[i-1];
      end
      tx_line[0] <= {tx_en_i, tx_er_i, txd_i};
      rx_line[0] <= control_q[14] ? tx_tap : link_q ? medium_i : '0;
    end
  end
  assign medium_o = link_q && !control_q[14] ? tx_tap : '0;
  assign {rx_dv_o, rx_er_o, rxd_o} = rx_tap;

  // Management. Bits are taken at rising MDC and driven from it on.
  typedef enum logic [1:0] {StPreamble, StHead, StData} state_e;
  state_e state_q;
  logic [5:0] ones_q, bit_q;
  logic [11:0] head_q;      // operation, PHY, register
  logic [15:0] shift_q, value;
  always_comb begin
    unique case (head_q[4:0])
      5'd0: value = control_q;
      5'd1: value = status;
      5'd2: value = Id[31:16];
      5'd3: value = Id[15:0];
      5'd4: value = ability_q;
      5'd5: value = complete_q ? partner_i | 16'h4000 : '0;
      5'd9: value = gigabit_q;
      5'd10: value = complete_q ? {4'b0011, partner_gigabit_i, 10'b0} : '0;
      5'd15: value = 16'h3000;
      default: value = 16'h0000;
    endcase
  end
  logic mine, reading;
  assign mine = head_q[9:5] == Address;
  assign reading = head_q[11:10] == 2'b10;
  always_ff @(posedge mdc_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= StPreamble;
      ones_q <= '0;
      bit_q <= '0;
      head_q <= '0;
      shift_q <= '0;
      mdio_o <= 1'b1;
      mdio_oe_o <= 1'b0;
      control_q <= ControlReset;
      ability_q <= AbilityReset;
      gigabit_q <= GigabitReset;
      restart_q <= 1'b0;
      clear_q <= 1'b0;
    end else begin
      bit_q <= bit_q + 6'd1;
      unique case (state_q)
        StPreamble: begin
          bit_q <= 6'd1;
          if (mdio_i) ones_q <= ones_q == 6'd32 ? 6'd32 : ones_q + 6'd1;
          else begin
            ones_q <= '0;
            if (ones_q == 6'd32) state_q <= StHead;
          end
        end
        StHead: begin
          head_q <= {head_q[10:0], mdio_i};
          if (bit_q == 6'd13) state_q <= StData;
        end
        default: begin
          // Bit 14 and 15 are the turnaround: a read is answered from the second one on.
          if (bit_q == 6'd14 && mine && reading) begin
            mdio_oe_o <= 1'b1;
            mdio_o <= 1'b0;
            shift_q <= value;
            if (head_q[4:0] == 5'd1) clear_q <= !clear_q;
          end else begin
            mdio_o <= shift_q[15];
            shift_q <= {shift_q[14:0], mdio_i};
          end
          if (bit_q == 6'd31) begin
            state_q <= StPreamble;
            ones_q <= '0;
            mdio_oe_o <= 1'b0;
            if (mine && head_q[11:10] == 2'b01) begin
              unique case (head_q[4:0])
                5'd0: begin
                  if (shift_q[14]) begin
                    control_q <= ControlReset;
                    ability_q <= AbilityReset;
                    gigabit_q <= GigabitReset;
                    restart_q <= !restart_q;
                  end else begin
                    control_q <= {shift_q[14:0], mdio_i} & 16'h7D40;
                    if (shift_q[8]) restart_q <= !restart_q;
                  end
                end
                5'd4: ability_q <= {shift_q[14:0], mdio_i};
                5'd9: gigabit_q <= {shift_q[14:0], mdio_i} & 16'h1F00;
                default: ;
              endcase
            end
          end
        end
      endcase
    end
  end
endmodule
