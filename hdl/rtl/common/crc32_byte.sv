// SPDX-License-Identifier: Apache-2.0
// Reflected CRC-32 of IEEE 802.3, 3.2.9, over one byte while enable_i; the state starts at all ones. No clock.
// A module and not a function: Verilator names a function's variables anew at each call, and would share no code
// between the ports.
module crc32_byte (
  input  logic        enable_i,
  input  logic [31:0] crc_i,
  input  logic [7:0]  data_i,
  output logic [31:0] crc_o
);
  always_comb begin
    crc_o = crc_i;
    if (enable_i) begin
      crc_o = crc_i ^ {24'b0, data_i};
      for (int i = 0; i < 8; i++) crc_o = crc_o[0] ? (crc_o >> 1) ^ 32'hEDB88320 : (crc_o >> 1);
    end
  end
endmodule
