// SPDX-License-Identifier: Apache-2.0
// tx_report: one report for each frame let go, in order, with its own tag and stamp; what finds the queue full
// is counted in lost_o and nothing else is missing; never more frames under way than there is room for.
module tx_report_formal
  import twinstamp_tx_pkg::*;
(
  input logic clk_i,
  input logic go_i,
  input logic end_i,
  input logic ready_i
);
  logic rst_n = 1'b0;
  always_ff @(posedge clk_i) rst_n <= 1'b1;

  // Frames are numbered by their tags, stamps by themselves.
  logic [7:0] dropped_map;              // any
  always_ff @(posedge clk_i) dropped_map <= dropped_map;
  logic [3:0] gone_q = '0, stamped_q = '0, ended_q = '0;
  logic room, go_valid, stamp_ready, end_ready, event_valid, report_valid, end_valid, release_now;
  tx_meta_t meta;
  tx_end_t frame_end;
  tx_report_t report;
  logic [31:0] lost;
  always_comb begin
    meta = '0;
    meta.head.tag = 32'(gone_q);
    meta.head.length = 14'd64;
    frame_end = '{dropped: dropped_map[ended_q[2:0]], default: '0};
  end
  assign go_valid = rst_n && go_i && room;
  assign end_valid = rst_n && end_i && ended_q != gone_q;

  tx_report #(.ReportLog2(1)) u_report (
    .clk_i, .rst_ni(rst_n), .constant_q32_i('0), .tolerance_q32_i('0), .first_byte_i(1'b0),
    .room_o(room), .go_valid_i(go_valid), .go_meta_i(meta),
    .stamp_valid_i(1'b1), .stamp_q32_i(64'(stamped_q) + 64'd1), .stamp_epoch_i(8'd0), .stamp_ready_o(stamp_ready),
    .end_valid_i(end_valid), .end_i(frame_end), .end_ready_o(end_ready),
    .release_o(release_now), .release_words_o(), .event_o(event_valid), .event_end_o(), .event_launch_o(),
    .event_late_o(), .report_valid_o(report_valid), .report_o(report), .report_ready_i(ready_i), .lost_o(lost)
  );

  // Reference: reports of two frames at most, then losses.
  logic [3:0] finished_q = '0, good_q = '0;
  logic [3:0] tags [2];
  logic [3:0] stamps [2];        // 0: none
  logic [1:0] count_q = '0;
  logic [31:0] lost_q = '0;
  logic push, pop;
  assign pop = count_q != '0 && ready_i;
  assign push = event_valid && count_q != 2'd2;
  always_ff @(posedge clk_i) begin
    if (go_valid) gone_q <= gone_q + 4'd1;
    if (end_ready) ended_q <= ended_q + 4'd1;
    if (stamp_ready) stamped_q <= stamped_q + 4'd1;
    if (event_valid) begin
      finished_q <= finished_q + 4'd1;
      if (!dropped_map[finished_q[2:0]]) good_q <= good_q + 4'd1;
      if (count_q == 2'd2) lost_q <= lost_q + 32'd1;
    end
    if (pop) begin
      tags[0] <= tags[1];
      stamps[0] <= stamps[1];
    end
    if (push) begin
      tags[1'(count_q - 2'(pop))] <= finished_q;
      stamps[1'(count_q - 2'(pop))] <= dropped_map[finished_q[2:0]] ? '0 : good_q + 4'd1;
    end
    count_q <= count_q + 2'(push) - 2'(pop);
  end

  always_comb begin
    if (rst_n) begin
      assume (gone_q < 4'd14);
      assert (report_valid == (count_q != '0));
      assert (lost == lost_q);
      assert (release_now == event_valid);
      assert (gone_q - finished_q <= 4'd4);
      if (report_valid) begin
        assert (report.tag == 32'(tags[0]));
        assert (report.stamp_q32 == 64'(stamps[0]));
        assert (report.flags == (stamps[0] == '0 ? 8'(1 << TxFlagDropped) : 8'd0));
      end
    end
    cover (rst_n && lost == 32'd2 && finished_q == 4'd6 && !report_valid);
  end
endmodule
