// SPDX-License-Identifier: Apache-2.0
// For the proof of block_packer: axi_stream_writer's ports; lets go of what it holds, and hears of it, whenever
// the proof likes. That the writer itself keeps order and counts is proved on its own.
module axi_stream_writer #(
  parameter int unsigned DepthLog2 = 6
) (
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic        address_set_i,
  input  logic [63:0] address_i,
  input  logic        valid_i,
  input  logic [63:0] data_i,
  output logic        ready_o,
  output logic [DepthLog2:0] room_o,
  input  logic        flush_i,
  output logic        empty_o,
  output logic [31:0] issued_o,
  output logic [31:0] acked_o,
  output logic        error_o,
  output logic        awvalid,
  input  logic        awready,
  output logic [63:0] awaddr,
  output logic [7:0]  awlen,
  output logic        wvalid,
  input  logic        wready,
  output logic [63:0] wdata,
  output logic        wlast,
  input  logic        bvalid,
  output logic        bready,
  input  logic [1:0]  bresp
);
  logic held_q;
  logic [3:0] issued_q, acked_q;
  logic go;
  assign go = held_q && flush_i && awready && !valid_i;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      held_q <= 1'b0;
      issued_q <= '0;
      acked_q <= '0;
    end else begin
      if (valid_i) held_q <= 1'b1;
      else if (go) held_q <= 1'b0;
      if (go) issued_q <= issued_q + 4'd1;
      if (bvalid && acked_q != issued_q) acked_q <= acked_q + 4'd1;
    end
  end
  assign ready_o = 1'b1;
  assign room_o = wready ? (DepthLog2+1)'(8) : '0;
  assign empty_o = !held_q;
  assign issued_o = 32'(issued_q);
  assign acked_o = 32'(acked_q);
  assign error_o = 1'b0;
  assign awvalid = go;
  assign awaddr = '0;
  assign awlen = '0;
  assign wvalid = 1'b0;
  assign wdata = '0;
  assign wlast = 1'b0;
  assign bready = 1'b1;
endmodule
