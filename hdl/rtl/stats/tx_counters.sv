// SPDX-License-Identifier: Apache-2.0
// One port's counters of frames sent (RFC 2819, RFC 3635); the counterpart of port_counters, same handshakes.
//
// Clock: the core clock. At most six additions for a frame that takes 84 periods on the wire, one for a frame
// that was dropped: three periods apart, as tx_report ends them.
module tx_counters
  import twinstamp_tx_pkg::*;
(
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic        event_i,
  input  tx_end_t     event_end_i,
  input  logic        event_launch_i,
  input  logic        event_late_i,
  input  logic        malformed_i,
  input  logic        flip_i,
  output logic        ready_o,
  output logic        busy_o,
  output logic        overflow_o,
  input  logic        read_i,
  input  logic [4:0]  read_address_i,
  output logic [63:0] read_data_o
);
  typedef struct packed {
    tx_end_t e;
    logic    launch;
    logic    late;
  } event_t;
  event_t head;
  logic [2:0] slot;
  logic add, last, good;
  logic [4:0] index;
  logic [23:0] amount;
  assign good = !head.e.bad_fcs && !head.e.underrun;
  assign last = head.e.dropped || slot == 3'd5;

  always_comb begin
    add = 1'b1;
    amount = 24'd1;
    index = 5'(TxCntDropped);
    if (!head.e.dropped) begin
      unique case (slot)
        3'd0: begin
          index = good ? 5'(TxCntOctetsGood) : 5'(TxCntOctetsBad);
          amount = 24'(head.e.length);
        end
        3'd1: begin
          if (head.e.underrun) index = 5'(TxCntUnderruns);
          else index = head.e.bad_fcs ? 5'(TxCntBadFcs) : 5'(TxCntGood);
        end
        3'd2: begin
          index = head.e.broadcast ? 5'(TxCntBroadcast) : 5'(TxCntMulticast);
          add = good && head.e.multicast;
        end
        3'd3: begin
          index = 5'(TxCntLaunches);
          add = head.launch;
        end
        3'd4: begin
          index = 5'(TxCntLate);
          add = head.late;
        end
        default: begin
          // Only an underrun is shorter than 64.
          add = head.e.length >= 16'd64;
          if (head.e.length <= 16'd64) index = 5'(TxCntSize64);
          else if (head.e.length <= 16'd127) index = 5'(TxCntSize127);
          else if (head.e.length <= 16'd255) index = 5'(TxCntSize255);
          else if (head.e.length <= 16'd511) index = 5'(TxCntSize511);
          else if (head.e.length <= 16'd1023) index = 5'(TxCntSize1023);
          else if (head.e.length <= 16'd1518) index = 5'(TxCntSize1518);
          else index = 5'(TxCntSizeLarger);
        end
      endcase
    end
  end

  counter_memory #(.RawWidth($bits(event_t)), .ExtraIndex(5'(TxCntMalformed))) u_memory (
    .clk_i, .rst_ni, .event_i, .raw_i({event_end_i, event_launch_i, event_late_i}), .extra_i(malformed_i),
    .raw_o(head), .slot_o(slot), .add_i(add), .index_i(index), .amount_i(amount), .last_i(last),
    .flip_i, .busy_o, .overflow_o, .read_i, .read_address_i, .read_data_o
  );
  assign ready_o = !busy_o;
endmodule
