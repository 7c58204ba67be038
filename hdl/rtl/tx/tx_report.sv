// SPDX-License-Identifier: Apache-2.0
// Joins each frame let go with its departure stamp and its end, and queues a report for the host.
//
// Clock: the core clock. Exactly one report for each frame, in the order of sending, a few periods after the
// end of its FCS; stamps come from stamp_capture, in order, one for each frame that was not dropped.
// Late: stamp - constant_q32_i > launch time + tolerance_q32_i.
// Overflow: nobody who is slow here holds the MAC up. A report that finds the queue full is left out and
// lost_o counts it. Depth: 2^ReportLog2. At most 2^FlightLog2 frames are under way (room_o).
module tx_report
  import twinstamp_tx_pkg::*;
#(
  parameter int unsigned ReportLog2 = 6,
  parameter int unsigned FlightLog2 = 2
) (
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic [31:0] constant_q32_i,
  input  logic [31:0] tolerance_q32_i,
  input  logic        first_byte_i,

  output logic        room_o,
  input  logic        go_valid_i,
  input  tx_meta_t    go_meta_i,

  input  logic        stamp_valid_i,
  input  logic [63:0] stamp_q32_i,
  input  logic [7:0]  stamp_epoch_i,
  output logic        stamp_ready_o,

  input  logic        end_valid_i,
  input  tx_end_t     end_i,
  output logic        end_ready_o,

  output logic        release_o,      // the frame's words are free
  output logic [10:0] release_words_o,
  output logic        event_o,        // for the counters
  output tx_end_t     event_end_o,
  output logic        event_launch_o,
  output logic        event_late_o,

  output logic        report_valid_o,
  output tx_report_t  report_o,
  input  logic        report_ready_i,
  output logic [31:0] lost_o
);
  // Under way.
  tx_meta_t flight [2**FlightLog2];
  logic [FlightLog2:0] flight_w_q, flight_r_q;
  tx_meta_t meta;
  assign room_o = flight_w_q != {~flight_r_q[FlightLog2], flight_r_q[FlightLog2-1:0]};
  assign meta = flight[flight_r_q[FlightLog2-1:0]];
  always_ff @(posedge clk_i) begin
    if (go_valid_i) flight[flight_w_q[FlightLog2-1:0]] <= go_meta_i;
  end

  // Judgement takes three periods: limit, comparison, report.
  logic [1:0] step_q;
  logic [63:0] limit_q, stamp_q;
  logic [7:0] epoch_q;
  logic late_q;
  tx_end_t end_q;
  logic finish, full;
  assign end_ready_o = step_q == 2'd0 && end_valid_i && (end_i.dropped || stamp_valid_i);
  assign stamp_ready_o = end_ready_o && !end_i.dropped;
  assign finish = step_q == 2'd2;

  tx_report_t report;
  always_comb begin
    report = '{epoch: epoch_q, flags: '0, tag: meta.head.tag, stamp_q32: stamp_q};
    report.flags[TxFlagLaunch] = meta.head.launch_valid;
    report.flags[TxFlagLate] = late_q;
    report.flags[TxFlagUnderrun] = end_q.underrun;
    report.flags[TxFlagDropped] = end_q.dropped;
    report.flags[TxFlagBadFcs] = end_q.bad_fcs;
    report.flags[TxFlagFirstByte] = first_byte_i;
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      flight_w_q <= '0;
      flight_r_q <= '0;
      step_q <= '0;
      limit_q <= '0;
      stamp_q <= '0;
      epoch_q <= '0;
      late_q <= 1'b0;
      end_q <= '0;
    end else begin
      if (go_valid_i) flight_w_q <= flight_w_q + (FlightLog2+1)'(1);
      unique case (step_q)
        2'd0: if (end_ready_o) begin
          end_q <= end_i;
          stamp_q <= end_i.dropped ? '0 : stamp_q32_i;
          epoch_q <= stamp_epoch_i;
          limit_q <= meta.launch_q32 + 64'(constant_q32_i) + 64'(tolerance_q32_i);
          step_q <= 2'd1;
        end
        2'd1: begin
          late_q <= meta.head.launch_valid && !end_q.dropped && stamp_q > limit_q;
          step_q <= 2'd2;
        end
        default: begin
          step_q <= 2'd0;
          flight_r_q <= flight_r_q + (FlightLog2+1)'(1);
        end
      endcase
    end
  end
  assign release_o = finish;
  assign release_words_o = 11'((meta.head.length + 14'd7) >> 3);
  assign event_o = finish;
  assign event_end_o = end_q;
  assign event_launch_o = meta.head.launch_valid;
  assign event_late_o = late_q;

  // Queue for the host.
  tx_report_t queue [2**ReportLog2];
  logic [ReportLog2:0] queue_w_q, queue_r_q;
  logic [31:0] lost_q;
  assign full = queue_w_q == {~queue_r_q[ReportLog2], queue_r_q[ReportLog2-1:0]};
  assign report_valid_o = queue_w_q != queue_r_q;
  assign report_o = queue[queue_r_q[ReportLog2-1:0]];
  assign lost_o = lost_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      queue_w_q <= '0;
      queue_r_q <= '0;
      lost_q <= '0;
    end else begin
      if (finish && !full) queue_w_q <= queue_w_q + (ReportLog2+1)'(1);
      if (finish && full) lost_q <= lost_q + 32'd1;
      if (report_valid_o && report_ready_i) queue_r_q <= queue_r_q + (ReportLog2+1)'(1);
    end
  end
  always_ff @(posedge clk_i) begin
    if (finish && !full) queue[queue_w_q[ReportLog2-1:0]] <= report;
  end
endmodule
