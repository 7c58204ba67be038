// SPDX-License-Identifier: Apache-2.0
// ECP5: from 100 MHz the core clock of 125 MHz and, in step with it, 250 MHz for the PPS pins.
//
// EHXPLLL: 100 MHz / 2 * 5 = 250 MHz at CLKOP, which is fed back; VCO at 500 MHz (400 to 800, FPGA-TN-02200), a quarter
// of it at CLKOS. The (* … *) are the loop filter's, as ecppll makes them. locked_o: reset until then.
module ecp5_clocks (
  input  logic clk100_i,
  input  logic rst_ni,
  output logic fast_clk_o,
  output logic clk_o,
  output logic locked_o
);
  (* FREQUENCY_PIN_CLKI="100", FREQUENCY_PIN_CLKOP="250", FREQUENCY_PIN_CLKOS="125", ICP_CURRENT="12",
     LPF_RESISTOR="8", MFG_ENABLE_FILTEROPAMP="1", MFG_GMCREF_SEL="2" *)
  EHXPLLL #(
    .CLKI_DIV(2), .CLKFB_DIV(5), .FEEDBK_PATH("CLKOP"), .PLLRST_ENA("ENABLED"), .STDBY_ENABLE("DISABLED"),
    .CLKOP_ENABLE("ENABLED"), .CLKOP_DIV(2), .CLKOP_CPHASE(0), .CLKOP_FPHASE(0),
    .CLKOS_ENABLE("ENABLED"), .CLKOS_DIV(4), .CLKOS_CPHASE(0), .CLKOS_FPHASE(0),
    .CLKOS2_ENABLE("DISABLED"), .CLKOS3_ENABLE("DISABLED"), .INTFB_WAKE("DISABLED"), .DPHASE_SOURCE("DISABLED"),
    .OUTDIVIDER_MUXA("DIVA"), .OUTDIVIDER_MUXB("DIVB"), .OUTDIVIDER_MUXC("DIVC"), .OUTDIVIDER_MUXD("DIVD")
  ) u_pll (
    .CLKI(clk100_i), .CLKFB(fast_clk_o), .RST(!rst_ni), .STDBY(1'b0), .PHASESEL0(1'b0), .PHASESEL1(1'b0),
    .PHASEDIR(1'b1), .PHASESTEP(1'b1), .PHASELOADREG(1'b1), .PLLWAKESYNC(1'b0), .ENCLKOP(1'b0), .ENCLKOS(1'b0),
    .ENCLKOS2(1'b0), .ENCLKOS3(1'b0), .CLKOP(fast_clk_o), .CLKOS(clk_o), .LOCK(locked_o)
  );
endmodule
