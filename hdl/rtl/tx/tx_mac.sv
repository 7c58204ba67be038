// SPDX-License-Identifier: Apache-2.0
// Sends to GMII: preamble, SFD, the frame padded to 60 bytes, FCS, and the gap behind it.
//
// Clock: the port's transmit clock (125 MHz), which the PHY gets as GTX_CLK. Outputs are registers.
// Latency: with frame_valid_i at an edge in idle, the preamble is on the pins from that edge on, the SFD
// seven periods and the first byte eight periods later. The first byte is taken at that last edge, so whoever
// feeds this has seven periods from the handshake.
// Stamp: stamp_toggle_o changes at the edge from which the SFD (or, with cfg_first_byte_i, the first byte)
// is on the pins; once for each frame sent.
// Underrun: no byte when one is due. Five bytes with TX_ER follow, the last four of them an inverted FCS,
// so that the frame is wrong for a receiver that ignores either; the rest of the frame is taken and thrown
// away, and end_o says so. frame_drop_i: takes the frame without its bytes (nobody may offer any).
// Gap: at least cfg_gap_i periods without TX_EN, 12 when that is less.
module tx_mac
  import twinstamp_pkg::*;
  import twinstamp_tx_pkg::*;
(
  input  logic       clk_i,
  input  logic       rst_ni,
  input  logic       cfg_first_byte_i,
  input  logic [7:0] cfg_gap_i,

  input  logic       frame_valid_i,
  input  logic       frame_drop_i,
  input  logic       frame_bad_fcs_i,
  output logic       frame_ready_o,
  input  logic       byte_valid_i,
  input  logic [7:0] byte_i,
  input  logic       byte_last_i,
  output logic       byte_ready_o,

  output logic       stamp_toggle_o,
  output logic       end_valid_o,    // one period
  output tx_end_t    end_o,

  output logic [7:0] txd_o,
  output logic       tx_en_o,
  output logic       tx_er_o
);
  typedef enum logic [2:0] {StIdle, StPreamble, StData, StPad, StFcs, StGap} state_e;
  state_e state_q;
  logic [2:0]  step_q;
  logic [7:0]  gap_q;
  logic [15:0] length_q;
  logic [31:0] crc_q;
  logic first_q, bad_q, underrun_q, draining_q, multicast_q, broadcast_q, toggle_q;

  assign frame_ready_o = state_q == StIdle && !draining_q;
  assign byte_ready_o = state_q == StData || draining_q;
  assign stamp_toggle_o = toggle_q;

  logic [7:0] fcs_byte;
  assign fcs_byte = ~crc_q[7:0] ^ {8{bad_q}};

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= StGap;
      step_q <= '0;
      gap_q <= 8'd1;
      length_q <= '0;
      crc_q <= '1;
      first_q <= 1'b0;
      bad_q <= 1'b0;
      underrun_q <= 1'b0;
      draining_q <= 1'b0;
      multicast_q <= 1'b0;
      broadcast_q <= 1'b0;
      toggle_q <= 1'b0;
      end_valid_o <= 1'b0;
      end_o <= '0;
      txd_o <= '0;
      tx_en_o <= 1'b0;
      tx_er_o <= 1'b0;
    end else begin
      end_valid_o <= 1'b0;
      txd_o <= '0;
      tx_en_o <= 1'b0;
      tx_er_o <= 1'b0;
      if (draining_q && byte_valid_i && byte_last_i) draining_q <= 1'b0;

      unique case (state_q)
        StIdle: begin
          length_q <= '0;
          crc_q <= '1;
          step_q <= '0;
          underrun_q <= 1'b0;
          multicast_q <= 1'b0;
          broadcast_q <= 1'b1;
          first_q <= cfg_first_byte_i;
          bad_q <= frame_bad_fcs_i;
          if (frame_valid_i && !draining_q) begin
            if (frame_drop_i) begin
              end_valid_o <= 1'b1;
              end_o <= '{dropped: 1'b1, default: '0};
            end else begin
              state_q <= StPreamble;
              txd_o <= 8'h55;
              tx_en_o <= 1'b1;
            end
          end
        end

        StPreamble: begin
          step_q <= step_q + 3'd1;
          tx_en_o <= 1'b1;
          txd_o <= 8'h55;
          if (step_q == 3'd6) begin
            txd_o <= 8'hD5;
            step_q <= '0;
            state_q <= StData;
            if (!first_q) toggle_q <= !toggle_q;
          end
        end

        StData: begin
          tx_en_o <= 1'b1;
          if (first_q && length_q == '0) toggle_q <= !toggle_q;
          if (byte_valid_i) begin
            txd_o <= byte_i;
            crc_q <= crc32_byte(crc_q, byte_i);
            length_q <= length_q + 16'd1;
            if (length_q == '0) multicast_q <= byte_i[0];
            if (length_q < 16'd6 && byte_i != 8'hFF) broadcast_q <= 1'b0;
            if (byte_last_i) state_q <= length_q < 16'd59 ? StPad : StFcs;
          end else begin
            txd_o <= 8'h0F;
            tx_er_o <= 1'b1;
            length_q <= length_q + 16'd1;
            underrun_q <= 1'b1;
            draining_q <= 1'b1;
            crc_q <= crc32_byte(crc_q, 8'h0F);
            bad_q <= 1'b1;
            state_q <= StFcs;
          end
        end

        StPad: begin
          tx_en_o <= 1'b1;
          crc_q <= crc32_byte(crc_q, 8'h00);
          length_q <= length_q + 16'd1;
          if (length_q == 16'd59) state_q <= StFcs;
        end

        StFcs: begin
          tx_en_o <= 1'b1;
          tx_er_o <= underrun_q;
          txd_o <= fcs_byte;
          crc_q <= {8'h00, crc_q[31:8]};
          length_q <= length_q + 16'd1;
          step_q <= step_q + 3'd1;
          if (step_q == 3'd3) begin
            state_q <= StGap;
            gap_q <= 8'd1;
            end_valid_o <= 1'b1;
            end_o <= '{
                dropped: 1'b0,
                underrun: underrun_q,
                bad_fcs: bad_q && !underrun_q,
                multicast: multicast_q,
                broadcast: broadcast_q && length_q >= 16'd6,
                length: length_q + 16'd1
            };
          end
        end

        StGap: begin
          gap_q <= gap_q + 8'd1;
          if (gap_q >= 8'd12 && gap_q >= cfg_gap_i) state_q <= StIdle;
        end

        default: state_q <= StGap;
      endcase
    end
  end
endmodule
