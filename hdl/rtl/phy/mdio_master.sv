// SPDX-License-Identifier: Apache-2.0
// Management frames to PHYs, IEEE 802.3 clause 22.
//
// Clock: the core clock; MDC has 2 * HalfPeriod of its periods (50: 2.5 MHz at 125 MHz, the most that 22.2.2.13
// allows), and runs only while a frame is sent. MDIO changes at MDC's falling edge and is sampled at its rising
// edge, so a PHY has 300 ns and more for its answer. A frame: 32 ones, then 32 bits.
// done_o: one period; then data_o (reads) and error_o (nobody pulled the turnaround low) hold until the next.
module mdio_master #(
  parameter int unsigned HalfPeriod = 25  // 4 to 255
) (
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic        valid_i,
  output logic        ready_o,
  input  logic        write_i,
  input  logic [4:0]  phy_i,
  input  logic [4:0]  register_i,
  input  logic [15:0] data_i,
  output logic        done_o,
  output logic [15:0] data_o,
  output logic        error_o,

  output logic        mdc_o,
  output logic        mdio_o,
  output logic        mdio_oe_o,
  input  logic        mdio_i
);
  if (HalfPeriod < 4 || HalfPeriod > 255) $fatal(1, "mdio_master: HalfPeriod must be 4 to 255");

  logic mdio;
  sync_2ff u_mdio (.clk_i, .rst_ni, .late_i(1'b0), .d_i(mdio_i), .q_o(mdio));

  logic busy_q, write_q, mdc_q, oe_q;
  logic [7:0] phase_q;
  logic [5:0] bit_q;
  logic [63:0] out_q;
  logic [15:0] in_q;
  logic tick;
  assign tick = phase_q == 8'(HalfPeriod - 1);
  assign ready_o = !busy_q;
  assign mdc_o = mdc_q;
  assign mdio_o = out_q[63];
  assign mdio_oe_o = oe_q;
  assign data_o = in_q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      busy_q <= 1'b0;
      write_q <= 1'b0;
      mdc_q <= 1'b0;
      oe_q <= 1'b0;
      phase_q <= '0;
      bit_q <= '0;
      out_q <= '1;
      in_q <= '0;
      done_o <= 1'b0;
      error_o <= 1'b0;
    end else if (busy_q || valid_i || done_o) begin
      done_o <= 1'b0;
      if (!busy_q) begin
        phase_q <= '0;
        bit_q <= '0;
        if (valid_i) begin
          busy_q <= 1'b1;
          oe_q <= 1'b1;
          write_q <= write_i;
          out_q <= {32'hFFFFFFFF, 2'b01, write_i ? 2'b01 : 2'b10, phy_i, register_i, 2'b10, data_i};
        end
      end else begin
        phase_q <= tick ? '0 : phase_q + 8'd1;
        if (tick) mdc_q <= !mdc_q;
        if (tick && !mdc_q) begin
          in_q <= {in_q[14:0], mdio};
          if (bit_q == 6'd47) error_o <= mdio && !write_q;
        end
        if (tick && mdc_q) begin
          out_q <= {out_q[62:0], 1'b1};
          bit_q <= bit_q + 6'd1;
          if (bit_q == 6'd45 && !write_q) oe_q <= 1'b0;
          if (bit_q == 6'd63) begin
            oe_q <= 1'b0;
            busy_q <= 1'b0;
            done_o <= 1'b1;
          end
        end
      end
    end
  end
endmodule
