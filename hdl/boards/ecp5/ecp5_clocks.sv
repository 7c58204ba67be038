// SPDX-License-Identifier: Apache-2.0
// ECP5: from 100 MHz the edge clock of 250 MHz and the core clock of 125 MHz, in step with each other.
//
// EHXPLLL: 100 MHz / 2 * 5 = 250 MHz at CLKOP, VCO at 500 MHz (400 to 800, Lattice FPGA-TN-02200); then the edge
// clock's stop and the divider by two, which gear the PPS pins (FPGA-TN-02035). locked_o: reset until then.
module ecp5_clocks (
  input  logic clk100_i,
  input  logic rst_ni,
  output logic eclk_o,
  output logic clk_o,
  output logic locked_o
);
  logic pll, locked;
  (* FREQUENCY_PIN_CLKI="100", FREQUENCY_PIN_CLKOP="250" *)
  EHXPLLL #(
    .CLKI_DIV(2), .CLKFB_DIV(5), .CLKOP_ENABLE("ENABLED"), .CLKOP_DIV(2), .CLKOP_CPHASE(1), .CLKOP_FPHASE(0),
    .FEEDBK_PATH("CLKOP"), .PLLRST_ENA("ENABLED"), .STDBY_ENABLE("DISABLED"), .DPHASE_SOURCE("DISABLED"),
    .OUTDIVIDER_MUXA("DIVA"), .OUTDIVIDER_MUXB("DIVB"), .OUTDIVIDER_MUXC("DIVC"), .OUTDIVIDER_MUXD("DIVD"),
    .CLKOS_ENABLE("DISABLED"), .CLKOS2_ENABLE("DISABLED"), .CLKOS3_ENABLE("DISABLED")
  ) u_pll (
    .CLKI(clk100_i), .CLKFB(pll), .RST(!rst_ni), .STDBY(1'b0), .PHASESEL0(1'b0), .PHASESEL1(1'b0),
    .PHASEDIR(1'b0), .PHASESTEP(1'b0), .PHASELOADREG(1'b0), .PLLWAKESYNC(1'b0), .ENCLKOP(1'b0), .ENCLKOS(1'b0),
    .ENCLKOS2(1'b0), .ENCLKOS3(1'b0), .CLKOP(pll), .LOCK(locked)
  );
  ECLKSYNCB u_sync (.ECLKI(pll), .STOP(1'b0), .ECLKO(eclk_o));
  CLKDIVF #(.GSR("DISABLED"), .DIV("2.0")) u_div (.CLKI(eclk_o), .RST(!locked), .ALIGNWD(1'b0), .CDIVX(clk_o));
  assign locked_o = locked;
endmodule
