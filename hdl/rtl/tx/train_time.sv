// SPDX-License-Identifier: Apache-2.0
// What the ports' train engines need of card time: when the SFD of a frame that is let go now would be on the
// pins, and the error estimate of a stamp taken now. One for the card.
//
// Clock: the core clock. soon_q64_o: card time, seconds 32.64, at the edge at which that SFD appears; exact
// while neither rate nor slew changes (a change counts from the fourth cycle after it on, for the eleven cycles on
// which the sum is ahead). before_q64_o: the same a cycle earlier; next_q64_o: a cycle later.
// Error estimates (RFC 4656, 4.1.2; docs/stamp.md): Scale and Multiplier of the bound, rounded up, in NTP's
// and, with the nanosecond that it cuts off, in PTP's format. A new bound is there at most 200 cycles after it
// changed; an unknown bound, the lock and an unknown offset of UTC at once.
module train_time #(
  parameter int unsigned Lead = 10           // cycles from letting a frame go to its SFD on the pins
) (
  input  logic         clk_i,
  input  logic         rst_ni,
  input  logic         enable_i,            // a train is armed; else the two times stand still
  input  logic [103:0] now_q72_i,
  input  logic [48:0]  added_q72_i,          // what a cycle adds to it
  input  logic [31:0]  bound_ns_i,
  input  logic         locked_i,
  input  logic         utc_known_i,         // NTP's format is UTC: without the offset nothing is known of it
  output logic [95:0]  next_q64_o,
  output logic [95:0]  soon_q64_o,
  output logic [95:0]  before_q64_o,
  output logic [15:0]  estimate_ntp_o,
  output logic [15:0]  estimate_ptp_o
);
  logic [95:0] next_q;
  logic [95:0] soon_q;
  logic [95:0] before_q;
  logic [53:0] ahead_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      next_q <= '0;
      soon_q <= '0;
      before_q <= '0;
      ahead_q <= '0;
    end else if (enable_i) begin
      ahead_q <= 54'(added_q72_i) * 54'(Lead + 2);
      next_q <= 96'((now_q72_i + 104'(ahead_q)) >> 8);
      soon_q <= next_q;
      before_q <= soon_q;
    end
  end
  assign next_q64_o = next_q;
  assign soon_q64_o = soon_q;
  assign before_q64_o = before_q;

  // bound * 2^32 / 10^9 = bound * 2^23 / 5^9, rounded up; one bit of the quotient a cycle, then the shift to
  // eight bits, for one format after the other.
  localparam logic [21:0] Divisor = 22'd1953125;
  typedef enum logic [1:0] {StStart, StDivide, StShift, StDone} state_e;
  state_e state_q;
  logic [31:0] bound_q;
  logic ptp_q;
  logic [32:0] dividend_q;      // its upper part; the 23 bits below are zero
  logic [5:0] count_q;
  logic [20:0] rest_q;
  logic [21:0] rest, next_rest;
  logic [36:0] quotient_q;
  logic [5:0] scale_q;
  logic fits;
  logic [13:0] ntp_q, ptp_value_q;
  assign rest = {rest_q, dividend_q[32]};
  assign fits = rest >= Divisor;
  assign next_rest = fits ? rest - Divisor : rest;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= StDone;
      bound_q <= '1;
      ptp_q <= 1'b0;
      dividend_q <= '0;
      count_q <= '0;
      rest_q <= '0;
      quotient_q <= '0;
      scale_q <= '0;
      ntp_q <= '1;
      ptp_value_q <= '1;
    end else begin
      unique case (state_q)
        StStart: begin
          dividend_q <= 33'(bound_q) + 33'(ptp_q);
          rest_q <= '0;
          quotient_q <= '0;
          count_q <= '0;
          scale_q <= '0;
          state_q <= StDivide;
        end
        StDivide: begin
          dividend_q <= dividend_q << 1;
          rest_q <= next_rest[20:0];
          quotient_q <= {quotient_q[35:0], fits};
          count_q <= count_q + 6'd1;
          if (count_q == 6'd55) begin
            quotient_q <= {quotient_q[35:0], fits} + 37'(next_rest != '0);
            state_q <= StShift;
          end
        end
        StShift: begin
          // Half, rounded up: rounding up again and again is rounding up once.
          if (quotient_q > 37'd255) begin
            quotient_q <= 37'(quotient_q[36:1]) + 37'(quotient_q[0]);
            scale_q <= scale_q + 6'd1;
          end else begin
            if (ptp_q) ptp_value_q <= {scale_q, quotient_q == '0 ? 8'd1 : quotient_q[7:0]};
            else ntp_q <= {scale_q, quotient_q == '0 ? 8'd1 : quotient_q[7:0]};
            ptp_q <= !ptp_q;
            state_q <= ptp_q ? StDone : StStart;
          end
        end
        default: begin
          if (bound_ns_i != bound_q) begin
            bound_q <= bound_ns_i;
            state_q <= StStart;
          end
        end
      endcase
    end
  end
  logic known;
  assign known = bound_ns_i != '1;
  assign estimate_ntp_o = known && utc_known_i ? {locked_i, 1'b0, ntp_q} : 16'h3FFF;
  assign estimate_ptp_o = known ? {locked_i, 1'b1, ptp_value_q} : 16'h7FFF;
endmodule
