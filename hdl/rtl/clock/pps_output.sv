// SPDX-License-Identifier: Apache-2.0
// A pulse at each whole second of card time, placed within the cycle for an output serialiser.
//
// Clock: clk_i (core; a simulation may leave edges out while enable_i is low). word_o: what the serialiser
// sends in the cycle after the edge at which word_o changes, N samples, earliest in bit 0. The rising edge
// lies within half a sample of the second, less output_delay (a way of that length to the connector makes it
// leave earlier). It falls with a whole cycle, width_i cycles after.
// A new time that is loaded sends no pulse; rate and slew move the pulse with card time.
module pps_output #(
  parameter int unsigned N = 8,
  parameter int unsigned AddendBits = 49
) (
  input  logic                  clk_i,
  input  logic                  rst_ni,
  input  logic                  enable_i,
  input  logic [72:0]           now_q72_i,
  input  logic [AddendBits-1:0] addend_q72_i,
  input  logic [31:0]           width_i,
  input  logic [31:0]           delay_q48_i,
  output logic [N-1:0]          word_o,
  output logic [31:0]           count_o
);
  if (N != 2 && N != 4 && N != 8) $fatal(1, "pps_output: N must be 2, 4 or 8");
  localparam int unsigned Log2N = $clog2(N);

  // Card time at the end of the word that is being made: three cycles after now_q72_i, and what the way takes.
  logic [72:0] end_q;      // up to the seconds' lowest bit
  logic [AddendBits-1:0] addend_q;
  logic second_q, high_q;
  logic [1:0] valid_q;  // both ends of a word are known
  logic [31:0] left_q;
  logic [AddendBits+Log2N+1:0] past;
  logic crossed;
  assign crossed = valid_q[1] && end_q[72] != second_q && end_q[71:AddendBits] == '0 &&
                   end_q[AddendBits-1:0] < addend_q;
  assign past = {{(Log2N + 2){1'b0}}, end_q[AddendBits-1:0]};
  logic [N-1:0] rising;
  always_comb begin
    for (int i = 0; i < int'(N); i++) begin
      rising[i] = (past << (Log2N + 1)) + (AddendBits+Log2N+2)'(addend_q) >=
                  (AddendBits+Log2N+2)'(addend_q) * (AddendBits+Log2N+2)'(unsigned'(2 * (int'(N) - i)));
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      end_q <= '0;
      addend_q <= '0;
      {second_q, valid_q, high_q} <= '0;
      left_q <= '0;
      word_o <= '0;
      count_o <= '0;
    end else if (!enable_i) begin
      {valid_q, high_q} <= '0;
      word_o <= '0;
    end else begin
      end_q <= now_q72_i[72:0] + 73'(addend_q72_i) + (73'(addend_q72_i) << 1) + (73'($signed(delay_q48_i)) << 24);
      addend_q <= addend_q72_i;
      second_q <= end_q[72];
      valid_q <= {valid_q[0], 1'b1};
      if (crossed) begin
        high_q <= 1'b1;
        left_q <= width_i;
        word_o <= rising;
        count_o <= count_o + 32'd1;
      end else if (high_q) begin
        left_q <= left_q - 32'd1;
        high_q <= left_q > 32'd1;
        word_o <= '1;
      end else begin
        word_o <= '0;
      end
    end
  end
endmodule
