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

  // Card time at the end of the word that is being made: six cycles after now_q72_i, and what the way takes.
  localparam int unsigned M = AddendBits + 4;   // multiples of an addend, up to 16
  logic [72:0] offset_q, ahead_q;
  logic [72:0] end_q;      // up to the seconds' lowest bit
  logic [AddendBits-1:0] addend_q, addend1_q;
  logic second_q, high_q;
  logic [1:0] valid_q;  // both ends of a word are known
  logic [31:0] left_q;
  logic crossed, crossed1_q, crossed2_q, crossed3_q;
  assign crossed = valid_q[1] && end_q[72] != second_q && end_q[71:AddendBits] == '0 &&
                   end_q[AddendBits-1:0] < addend_q;
  // The second lies end_q before the word's end: sample i shows it when 2 N end_q is at least 2 (N - i) - 1 addends.
  // Multiples of 3 and 5 first, the others from these.
  logic [AddendBits-1:0] past1_q, past2_q;
  logic [M-1:0] three_q, five_q;
  logic [M-1:0] least_q [8];
  logic [N-1:0] rising, rising_q;
  always_comb begin
    for (int i = 0; i < int'(N); i++) begin
      rising[i] = {{(4 - Log2N){1'b0}}, past2_q, {(Log2N + 1){1'b0}}} >= (M+1)'(least_q[int'(N) - 1 - i]);
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      {offset_q, ahead_q} <= '0;
      end_q <= '0;
      {addend_q, addend1_q, past1_q, past2_q} <= '0;
      {three_q, five_q} <= '0;
      least_q <= '{default: '0};
      rising_q <= '0;
      {second_q, valid_q, high_q, crossed1_q, crossed2_q, crossed3_q} <= '0;
      left_q <= '0;
      word_o <= '0;
      count_o <= '0;
    end else if (!enable_i) begin
      {valid_q, high_q, crossed1_q, crossed2_q, crossed3_q} <= '0;
      word_o <= '0;
    end else begin
      ahead_q <= (73'(addend_q72_i) << 2) + (73'(addend_q72_i) << 1);   // six times
      offset_q <= ahead_q + (73'($signed(delay_q48_i)) << 24);
      end_q <= now_q72_i[72:0] + offset_q;
      addend_q <= addend_q72_i;
      second_q <= end_q[72];
      valid_q <= {valid_q[0], 1'b1};
      {addend1_q, past1_q, crossed1_q} <= {addend_q, end_q[AddendBits-1:0], crossed};
      three_q <= M'(addend_q) + (M'(addend_q) << 1);
      five_q <= M'(addend_q) + (M'(addend_q) << 2);
      {past2_q, crossed2_q} <= {past1_q, crossed1_q};
      least_q[0] <= M'(addend1_q);
      least_q[1] <= three_q;
      least_q[2] <= five_q;
      least_q[3] <= (M'(addend1_q) << 3) - M'(addend1_q);
      least_q[4] <= (M'(addend1_q) << 3) + M'(addend1_q);
      least_q[5] <= (M'(addend1_q) << 3) + three_q;
      least_q[6] <= (M'(addend1_q) << 3) + five_q;
      least_q[7] <= (five_q << 1) + five_q;
      {rising_q, crossed3_q} <= {rising, crossed2_q};
      if (crossed3_q) begin
        high_q <= 1'b1;
        left_q <= width_i;
        word_o <= rising_q;
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
