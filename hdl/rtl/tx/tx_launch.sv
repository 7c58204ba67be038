// SPDX-License-Identifier: Apache-2.0
// Lets frames go, each at its launch time.
//
// Clock: the core clock, which card time counts. Frames go in the order of the store. One without a launch
// time goes at once; one with is held until card time has reached launch_q32 - lead_q32_i, at once if that is
// over already. Time is absolute: what one frame does never moves another's launch time; a frame that finds
// the MAC busy, or comes too late, leaves late, and tx_report says so.
// Latency: go_valid_o rises one period after the first edge with now_q32_i at or behind the target, so the
// launch is quantised to one period of this clock. flush_i (level): all that is here goes as dropped.
module tx_launch
  import twinstamp_tx_pkg::*;
(
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic        enable_i,
  input  logic        flush_i,
  input  logic [63:0] now_q32_i,
  input  logic [31:0] lead_q32_i,
  output logic        holding_o,      // the frame here has a launch time

  input  logic        meta_valid_i,
  input  tx_meta_t    meta_i,
  output logic        meta_ready_o,

  input  logic        room_i,         // tx_report and the store's crossing have room for one more
  output logic        go_valid_o,
  output tx_frame_t   go_o,
  output tx_meta_t    go_meta_o
);
  typedef enum logic [1:0] {StEmpty, StTarget, StHold, StGo} state_e;
  state_e state_q;
  tx_meta_t meta_q;
  logic [63:0] target_q;
  logic drop_q;

  assign meta_ready_o = state_q == StEmpty;
  assign go_valid_o = state_q == StGo && room_i;
  assign go_meta_o = meta_q;
  assign go_o = '{
      drop: drop_q, bad_fcs: meta_q.head.bad_fcs, stage: meta_q.head.stage, length: meta_q.head.length
  };
  assign holding_o = state_q != StEmpty && meta_q.head.launch_valid;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= StEmpty;
      meta_q <= '0;
      target_q <= '0;
      drop_q <= 1'b0;
    end else begin
      unique case (state_q)
        StEmpty: begin
          meta_q <= meta_i;
          if (meta_valid_i) state_q <= StTarget;
        end
        StTarget: begin
          target_q <= meta_q.launch_q32 < 64'(lead_q32_i) ? '0 : meta_q.launch_q32 - 64'(lead_q32_i);
          state_q <= StHold;
        end
        StHold: begin
          drop_q <= flush_i;
          if (flush_i) state_q <= StGo;
          else if (enable_i && (!meta_q.head.launch_valid || now_q32_i >= target_q)) state_q <= StGo;
        end
        StGo: if (room_i) state_q <= StEmpty;
        default: state_q <= StEmpty;
      endcase
    end
  end
endmodule
