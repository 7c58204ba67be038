// SPDX-License-Identifier: Apache-2.0
// Byte addresses of the registers of 64 bits, made by `make regs` from hdl/regs/twinstamp_card.rdl: do not edit.
package card_wide_pkg;
  localparam int unsigned Count = 16;
  localparam logic [Count-1:0][16:0] Addresses = {17'h00100, 17'h00108, 17'h00110, 17'h00118, 17'h00120, 17'h00128, 17'h00200, 17'h00308, 17'h00420, 17'h00450, 17'h00528, 17'h00608, 17'h01010, 17'h01110, 17'h01210, 17'h01310};
endpackage
