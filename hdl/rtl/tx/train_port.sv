// SPDX-License-Identifier: Apache-2.0
// A port's packet trains: four, each with a template and a descriptor in the port's train memory; lists share
// the rest of it. What they are and do: docs/trains.md.
//
// Clock: the core clock. Memory: words 0 to 127 templates (32 each), 128 to 255 descriptors (train_schedule),
// 256 to 2047 lists. Counters are those of the current or last run of a train; arming sets them to 0.
// A departure (each one, where the train asks for it, and every late one) is offered until taken; what comes
// before that is counted in unreported_o.
module train_port
  import twinstamp_pkg::*;
(
  input  logic         clk_i,
  input  logic         rst_ni,
  input  logic [63:0]  now_q32_i,
  input  logic         now_half_i,
  input  logic [95:0]  next_q64_i,
  input  logic [95:0]  soon_q64_i,
  input  logic [95:0]  before_q64_i,
  input  logic [15:0]  estimate_ntp_i,
  input  logic [15:0]  estimate_ptp_i,
  input  utc_t         utc_i,
  input  logic         write_i,
  input  logic [10:0]  write_address_i,
  input  logic [31:0]  write_data_i,

  input  logic [3:0]   arm_i,
  input  logic [3:0]   stop_i,
  output logic [3:0]   active_o,
  output logic [3:0]   done_o,
  output logic [3:0]   refused_o,
  output logic [31:0]  sent_o [4],
  output logic [31:0]  late_o [4],
  output logic [31:0]  worst_q32_o [4],     // longest delay of a late one, 2^-32 s, stops at its largest value
  output logic [31:0]  unreported_o [4],

  input  logic         host_busy_i,
  input  logic [15:0]  host_length_i,
  output logic         hold_host_o,
  output logic [7:0]   txd_o,
  output logic         tx_en_o,
  output logic         end_o,
  output logic [15:0]  end_length_o,        // with FCS
  output logic         end_multicast_o,
  output logic         end_broadcast_o,
  output logic         end_late_o,

  output logic         departure_valid_o,
  input  logic         departure_ready_i,
  output logic [63:0]  departure_q32_o,
  output logic [63:0]  departure_cookie_o,  // [31:0] sequence, [33:32] train
  output logic [15:0]  departure_length_o,
  output logic         departure_late_o,
  output logic [63:0]  departure_delay_q32_o  // bit 63 set: a train's; below it departure less launch time
);
  logic quiet, head_valid, head_fresh, take;
  logic [63:0] head_q32;
  logic [31:0] head_low, head_sequence, head_sums;
  logic [1:0] head_train;
  logic [13:0] head_size;
  logic [15:0] head_port;
  logic [7:0] head_law;
  train_schedule u_schedule (
    .clk_i, .rst_ni, .write_i(write_i && write_address_i[10:7] != '0), .write_address_i, .write_data_i,
    .arm_i, .stop_i, .active_o, .done_o, .refused_o, .soon_q64_i, .quiet_o(quiet),
    .head_valid_o(head_valid), .head_fresh_o(head_fresh), .take_i(take), .head_q32_o(head_q32), .head_low_o(head_low),
    .head_train_o(head_train), .head_size_o(head_size), .head_sequence_o(head_sequence),
    .head_port_o(head_port), .head_law_o(head_law), .head_sums_o(head_sums)
  );

  logic sent, report, late, idle;
  logic [1:0] train;
  logic [31:0] sequence_number;
  logic [63:0] q32, delay_q32;
  train_mac u_mac (
    .clk_i, .rst_ni, .now_q32_i, .now_half_i, .next_q64_i, .soon_q64_i, .before_q64_i, .estimate_ntp_i, .estimate_ptp_i, .utc_i,
    .write_i(write_i && write_address_i[10:7] == '0), .write_address_i(write_address_i[6:0]), .write_data_i,
    .quiet_i(quiet), .head_valid_i(head_valid), .head_fresh_i(head_fresh), .take_o(take), .head_q32_i(head_q32), .head_low_i(head_low),
    .head_train_i(head_train), .head_size_i(head_size), .head_sequence_i(head_sequence),
    .head_port_i(head_port), .head_law_i(head_law), .head_sums_i(head_sums),
    .host_busy_i, .host_length_i, .hold_host_o, .txd_o, .tx_en_o,
    .sent_o(sent), .sent_train_o(train), .sent_sequence_o(sequence_number), .sent_length_o(end_length_o),
    .sent_q32_o(q32), .sent_report_o(report), .late_o(late), .delay_q32_o(delay_q32), .end_o,
    .end_multicast_o, .end_broadcast_o, .idle_o(idle)
  );

  assign end_late_o = late;
  // Simulation: nothing moves until a register is written (tools/model_edges.py).
  logic asleep;
  assign asleep = quiet && active_o == '0 && !head_valid && !head_fresh && idle && !departure_valid_o;

  logic [31:0] sent_q [4];
  logic [31:0] late_q [4];
  logic [31:0] worst_q [4];
  logic [31:0] unreported_q [4];
  logic [31:0] delay;
  assign delay = delay_q32[63:32] != '0 ? '1 : delay_q32[31:0];
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      for (int i = 0; i < 4; i++) begin
        sent_q[i] <= '0;
        late_q[i] <= '0;
        worst_q[i] <= '0;
        unreported_q[i] <= '0;
      end
      departure_valid_o <= 1'b0;
      departure_q32_o <= '0;
      departure_cookie_o <= '0;
      departure_length_o <= '0;
      departure_late_o <= 1'b0;
      departure_delay_q32_o <= '0;
    end else begin
      if (departure_ready_i) departure_valid_o <= 1'b0;
      if (sent) begin
        sent_q[train] <= sent_q[train] + 32'd1;
        if (late) begin
          late_q[train] <= late_q[train] + 32'd1;
          if (delay > worst_q[train]) worst_q[train] <= delay;
        end
        if (late || report) begin
          if (departure_valid_o && !departure_ready_i) unreported_q[train] <= unreported_q[train] + 32'd1;
          else begin
            departure_valid_o <= 1'b1;
            departure_q32_o <= q32;
            departure_cookie_o <= {30'b0, train, sequence_number};
            departure_length_o <= end_length_o - 16'd4;
            departure_late_o <= late;
            departure_delay_q32_o <= {1'b1, delay_q32[62:0]};
          end
        end
      end
      for (int i = 0; i < 4; i++) begin
        if (arm_i[i] && !active_o[i]) begin
          sent_q[i] <= '0;
          late_q[i] <= '0;
          worst_q[i] <= '0;
          unreported_q[i] <= '0;
        end
      end
    end
  end
  for (genvar i = 0; i < 4; i++) begin : gen_counters
    assign sent_o[i] = sent_q[i];
    assign late_o[i] = late_q[i];
    assign worst_q32_o[i] = worst_q[i];
    assign unreported_o[i] = unreported_q[i];
  end
endmodule
