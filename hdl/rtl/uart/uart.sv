// SPDX-License-Identifier: Apache-2.0
// UART: 8 data bits, no parity, one stop bit, with FIFOs.
//
// Clock: clk_i (core; a simulation may leave edges out while nothing moves: see busy_o). rx_i passes two
// flip-flops. divider_i: cycles per bit, at least 16. Each bit is the majority of three samples around its
// middle. Overflow policy: a byte that finds the receive FIFO full is lost and counted; a byte written while
// full_o is lost. A stop bit that is not high counts as a framing error, the byte is dropped, and the
// receiver waits for a high line. Counters run over. RxLog2: 2 to 12; TxLog2: 2 to 12.
module uart #(
  parameter int unsigned RxLog2 = 8,
  parameter int unsigned TxLog2 = 6
) (
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic [15:0] divider_i,
  input  logic        rx_i,
  output logic        tx_o,
  input  logic        read_i,      // takes the byte at data_o
  output logic        valid_o,
  output logic [7:0]  data_o,
  output logic [15:0] received_o,
  input  logic        write_i,
  input  logic [7:0]  data_i,
  output logic        full_o,
  output logic        idle_o,      // nothing to send
  output logic [15:0] framing_o,
  output logic [15:0] overflow_o,
  output logic        busy_o       // a bit is under way in either direction
);
  if (RxLog2 < 2 || RxLog2 > 12 || TxLog2 < 2 || TxLog2 > 12) $fatal(1, "uart: RxLog2 and TxLog2 must be 2 to 12");

  logic [15:0] bit_cycles;
  assign bit_cycles = divider_i < 16'd16 ? 16'd16 : divider_i;

  // Receiver.
  logic rx;
  sync_2ff #(.ResetValue(1'b1)) u_rx (.clk_i, .rst_ni, .late_i(1'b0), .d_i(rx_i), .q_o(rx));
  typedef enum logic [1:0] {RxIdle, RxBits, RxWait} rx_state_e;
  rx_state_e rx_state_q;
  logic [15:0] rx_count_q;
  logic [3:0] rx_bit_q;        // 0: start bit, 1 to 8: data, 9: stop bit
  logic [7:0] rx_shift_q;
  logic [1:0] votes_q;
  logic middle, vote;
  // Samples an eighth of a bit before the middle, in it and after it.
  logic [15:0] early_q, middle_q, late_q, done_q, last_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) {early_q, middle_q, late_q, done_q, last_q} <= '0;
    else begin
      early_q <= (bit_cycles >> 1) - (bit_cycles >> 3);
      middle_q <= bit_cycles >> 1;
      late_q <= (bit_cycles >> 1) + (bit_cycles >> 3);
      done_q <= late_q + 16'd1;
      last_q <= bit_cycles - 16'd1;
    end
  end
  assign middle = rx_count_q == early_q || rx_count_q == middle_q || rx_count_q == late_q;
  assign vote = votes_q >= 2'd2;
  logic rx_push;
  logic [7:0] rx_memory [2**RxLog2];
  logic [RxLog2:0] rx_head_q, rx_tail_q, rx_level;
  assign rx_level = rx_head_q - rx_tail_q;
  assign valid_o = rx_level != '0;
  assign data_o = rx_memory[rx_tail_q[RxLog2-1:0]];
  assign received_o = 16'(rx_level);

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      rx_state_q <= RxWait;
      rx_count_q <= '0;
      rx_bit_q <= '0;
      rx_shift_q <= '0;
      votes_q <= '0;
      rx_push <= 1'b0;
      rx_head_q <= '0;
      rx_tail_q <= '0;
      framing_o <= '0;
      overflow_o <= '0;
    end else begin
      rx_push <= 1'b0;
      unique case (rx_state_q)
        RxIdle: if (!rx) begin
          rx_state_q <= RxBits;
          rx_count_q <= 16'd1;
          rx_bit_q <= '0;
          votes_q <= '0;
        end
        RxBits: begin
          rx_count_q <= rx_count_q + 16'd1;
          if (middle && rx) votes_q <= votes_q + 2'd1;
          if (rx_bit_q == 4'd9 && rx_count_q == done_q) begin
            // In the stop bit: done, so that a faster sender's next start bit is not missed.
            rx_count_q <= '0;
            if (vote) begin
              rx_push <= 1'b1;
              rx_state_q <= RxIdle;
            end else begin
              framing_o <= framing_o + 16'd1;
              rx_state_q <= RxWait;
            end
          end else if (rx_count_q >= last_q) begin
            rx_count_q <= '0;
            votes_q <= '0;
            rx_bit_q <= rx_bit_q + 4'd1;
            if (rx_bit_q == '0 && vote) rx_state_q <= RxIdle;  // no start bit after all
            if (rx_bit_q >= 4'd1 && rx_bit_q <= 4'd8) rx_shift_q <= {vote, rx_shift_q[7:1]};
          end
        end
        RxWait: if (rx) rx_state_q <= RxIdle;
        default: rx_state_q <= RxWait;
      endcase
      if (rx_push) begin
        if (rx_level[RxLog2]) overflow_o <= overflow_o + 16'd1;
        else rx_head_q <= rx_head_q + (RxLog2+1)'(1);
      end
      if (read_i && valid_o) rx_tail_q <= rx_tail_q + (RxLog2+1)'(1);
    end
  end
  always_ff @(posedge clk_i) if (rx_push && !rx_level[RxLog2]) rx_memory[rx_head_q[RxLog2-1:0]] <= rx_shift_q;

  // Transmitter.
  logic [7:0] tx_memory [2**TxLog2];
  logic [TxLog2:0] tx_head_q, tx_tail_q, tx_level;
  logic [15:0] tx_count_q;
  logic [3:0] tx_left_q;
  logic [9:0] tx_shift_q;
  assign tx_level = tx_head_q - tx_tail_q;
  assign full_o = tx_level[TxLog2];
  assign idle_o = tx_level == '0 && tx_left_q == '0;
  assign tx_o = tx_left_q == '0 || tx_shift_q[0];
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      tx_head_q <= '0;
      tx_tail_q <= '0;
      tx_count_q <= '0;
      tx_left_q <= '0;
      tx_shift_q <= '1;
    end else begin
      if (write_i && !full_o) tx_head_q <= tx_head_q + (TxLog2+1)'(1);
      if (tx_left_q == '0) begin
        if (tx_level != '0) begin
          tx_shift_q <= {1'b1, tx_memory[tx_tail_q[TxLog2-1:0]], 1'b0};
          tx_tail_q <= tx_tail_q + (TxLog2+1)'(1);
          tx_left_q <= 4'd10;
          tx_count_q <= '0;
        end
      end else if (tx_count_q >= last_q) begin
        tx_count_q <= '0;
        tx_left_q <= tx_left_q - 4'd1;
        tx_shift_q <= {1'b1, tx_shift_q[9:1]};
      end else begin
        tx_count_q <= tx_count_q + 16'd1;
      end
    end
  end
  always_ff @(posedge clk_i) if (write_i && !full_o) tx_memory[tx_head_q[TxLog2-1:0]] <= data_i;

  assign busy_o = rx_state_q == RxBits || rx_push || !idle_o;
endmodule
