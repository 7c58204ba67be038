// SPDX-License-Identifier: Apache-2.0
// From the pins to a frame's end in the core clock: whatever comes on the pins, and however long ends wait, each end of
// a frame finds the stamp of its own SFD, or none.
//
// gmii_rx, async_fifo and stamp_capture as rx_port joins them, in one clock whose crossings may take the old value at
// any edge; a smaller FIFO, which may overflow: then only what was written before is asked for, as rx_guard
// has it. One SFD, chosen freely, is watched. Pace: entries that are no words (MinStampDistance, and one of counts).
module pairing_formal
  import twinstamp_pkg::*;
(
  input logic clk_i,
  input logic [1:0] data_i,
  input logic dv_i,
  input logic er_i,
  input logic first_byte_i,
  input logic [3:0] late_i,
  input logic ready_i,
  input logic watch_i
);
  localparam int unsigned Apart = 4;  // in the card 12: more frames in fewer steps
  logic rst_n = 1'b0;
  always_ff @(posedge clk_i) rst_n <= 1'b1;

  logic first_byte_q = 1'b0, chosen_q = 1'b0;  // a setting
  always_ff @(posedge clk_i) begin
    chosen_q <= 1'b1;
    if (!chosen_q) first_byte_q <= first_byte_i;
  end

  logic [7:0] rxd;
  assign rxd = data_i == 2'd0 ? 8'h55 : data_i == 2'd1 ? 8'hD5 : {6'b0, data_i};
  logic toggle;
  logic [StampBits-1:0] gray, gray_q;
  logic valid, full, lost_q;
  rx_entry_t entry;
  logic [2:0] unused_byte;
  logic [7:0] unused_data;
  logic [1:0] unused_profile;
  gmii_rx #(.MinStampDistance(Apart)) u_mac (
    .clk_i, .rst_ni(rst_n), .rxd_i(rxd), .rx_dv_i(dv_i), .rx_er_i(er_i), .cfg_enable_i(1'b1),
    .cfg_first_byte_i(first_byte_q), .cfg_profile_i(2'b0), .flush_i(1'b0), .stamp_toggle_o(toggle), .stamp_gray_o(gray),
    .byte_valid_o(unused_byte[0]), .byte_first_o(unused_byte[1]), .byte_last_o(unused_byte[2]), .byte_o(unused_data),
    .profile_o(unused_profile), .valid_o(valid), .entry_o(entry)
  );

  logic out_valid, bad;
  rx_entry_t out;
  rx_end_t in_end, out_end;
  assign in_end = rx_end_t'(entry.data[$bits(rx_end_t)-1:0]);
  assign out_end = rx_end_t'(out.data[$bits(rx_end_t)-1:0]);
  async_fifo #(.Width($bits(rx_entry_t)), .DepthLog2(3)) u_fifo (
    .wclk_i(clk_i), .wrst_ni(rst_n), .wflush_i(1'b0), .wvalid_i(valid), .wdata_i(entry), .wfull_o(full),
    .wlate_i(late_i[2]),
    .rclk_i(clk_i), .rrst_ni(rst_n), .rflush_i(1'b0), .rbad_o(bad), .rvalid_o(out_valid), .rdata_o(out),
    .rready_i(ready_i), .rlate_i(late_i[1])
  );

  logic found, overflow, take;
  logic [63:0] stamp;
  logic [7:0] unused_epoch;
  logic [15:0] now_q = '0;
  assign take = out_valid && ready_i && out.is_end && out_end.has_stamp;
  stamp_capture #(.RoundFrom(8'd1)) u_capture (
    .clk_i, .rst_ni(rst_n), .flush_i(1'b0), .toggle_i(toggle), .late_i(late_i[0]), .gray_i(gray), .gray_late_i(late_i[3]), .now_q32_i(64'(now_q)),
    .now_fraction_i(8'd0), .epoch_i(8'd0), .number_i(out_end.stamp), .valid_o(found), .stamp_q32_o(stamp),
    .epoch_o(unused_epoch), .take_i(take), .overflow_o(overflow)
  );

  // Frames with a stamp, by count: on the MAC's side and where their ends come out.
  logic [5:0] stamped_q = '0, ended_q = '0, written_q = '0;
  logic [15:0] edge_q = '0;
  logic [5:0] number_q = '0;
  logic watched_q = 1'b0;
  logic [3:0] since_end_q = '1, since_frame_q = '1;
  always_ff @(posedge clk_i) begin
    now_q <= now_q + 16'd1;
    gray_q <= gray;
    lost_q <= rst_n && (lost_q || (valid && full));
    if (rst_n && gray != gray_q && now_q != '0) begin
      stamped_q <= stamped_q + 6'd1;
      if (watch_i && !watched_q) begin
        watched_q <= 1'b1;
        number_q <= stamped_q;
        edge_q <= now_q;
      end
    end
    if (rst_n && take) ended_q <= ended_q + 6'd1;
    if (rst_n && valid && entry.is_end) since_end_q <= 4'd1;
    else if (since_end_q != '1) since_end_q <= since_end_q + 4'd1;
    if (rst_n && valid && entry.is_end && in_end.frame) since_frame_q <= 4'd1;
    else if (since_frame_q != '1) since_frame_q <= since_frame_q + 4'd1;
  end

  // A change at gray is there from the edge before now_q on; it is sampled two or three edges later.
  always_comb begin
    if (rst_n) begin
      assert (!bad);
      if (!lost_q) begin
        assert (!overflow);
        if (take) assert (found);
        if (take && watched_q && ended_q == number_q) begin
          assert (stamp[15:0] == edge_q + 16'd2 || stamp[15:0] == edge_q + 16'd3);
        end
      end
      if (valid && entry.is_end) begin
        // Counts of their own come late enough, and are few enough to be counted.
        if (!in_end.frame) assert (since_end_q >= 4'(Apart));
        assert (in_end.preamble_errors <= 4'(Apart / 2 + 1) && in_end.no_sfds <= 4'(Apart / 2 + 1));
        assert (in_end.frame || in_end.preamble_errors != '0 || in_end.no_sfds != '0);
      end
    end
    cover (take && watched_q && ended_q == number_q && number_q == 6'd2 && stamp[15:0] == edge_q + 16'd2);
    cover (take && watched_q && ended_q == number_q && out_end.preamble_errors != '0 && out_end.no_sfds != '0);
    cover (lost_q);
  end
endmodule
