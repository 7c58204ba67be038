// SPDX-License-Identifier: Apache-2.0
// One port's counters of what was received (RFC 2819), latched at an instant that all ports share.
//
// Clock: the core clock. gmii_rx keeps SFDs MinStampDistance (12) cycles apart and other events two, so at most
// eleven additions come in twelve cycles.
// Handshakes as counter_memory.
module port_counters
  import twinstamp_pkg::*;
(
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic        event_i,
  input  rx_end_t     event_end_i,
  input  logic        event_giant_i,
  input  logic        event_stored_i,
  input  logic        event_dropped_i,
  input  logic        discard_i,
  input  logic        flip_i,
  output logic        ready_o,
  output logic        busy_o,
  output logic        overflow_o,

  // Totals: counter number; data a cycle later.
  input  logic        read_i,
  input  logic [4:0]  read_address_i,
  output logic [63:0] read_data_o
);
  typedef struct packed {
    rx_end_t e;
    logic    giant;
    logic    stored;
    logic    dropped;
  } event_t;
  event_t head;
  logic [2:0] slot;
  logic noise, runt, bad, good, last, add;
  logic [4:0] index;
  logic [23:0] amount;
  assign noise = head.e.no_sfd || head.e.preamble_error;
  assign runt = head.e.length < 24'd64;
  assign bad = !head.e.fcs_ok || head.e.rx_er;
  assign good = !runt && !bad && !head.giant;
  assign last = noise || slot == 3'd5;

  always_comb begin
    add = 1'b1;
    amount = 24'd1;
    index = head.e.no_sfd ? 5'(CntNoSfd) : 5'(CntPreambleErrors);
    if (!noise) begin
      unique case (slot)
        3'd0: begin
          index = good ? 5'(CntOctetsGood) : 5'(CntOctetsBad);
          amount = head.e.length;
        end
        3'd1: begin
          if (runt) index = bad ? 5'(CntFragments) : 5'(CntUndersize);
          else if (head.giant) index = bad ? 5'(CntJabbers) : 5'(CntOversize);
          else index = bad ? 5'(CntFcsErrors) : 5'(CntGood);
        end
        3'd2: begin
          index = head.e.broadcast ? 5'(CntBroadcast) : 5'(CntMulticast);
          add = good && head.e.multicast;
        end
        3'd3: begin
          index = 5'(CntTagged);
          add = good && head.e.tags != '0;
        end
        3'd4: index = head.stored ? 5'(CntStored) : head.dropped ? 5'(CntDropped) : 5'(CntNotWanted);
        default: begin
          add = !runt;
          if (head.e.length <= 24'd64) index = 5'(CntSize64);
          else if (head.e.length <= 24'd127) index = 5'(CntSize127);
          else if (head.e.length <= 24'd255) index = 5'(CntSize255);
          else if (head.e.length <= 24'd511) index = 5'(CntSize511);
          else if (head.e.length <= 24'd1023) index = 5'(CntSize1023);
          else if (head.e.length <= 24'd1518) index = 5'(CntSize1518);
          else index = 5'(CntSizeLarger);
        end
      endcase
    end
  end

  counter_memory #(.RawWidth($bits(event_t)), .ExtraIndex(5'(CntDiscarded))) u_memory (
    .clk_i, .rst_ni, .event_i, .raw_i({event_end_i, event_giant_i, event_stored_i, event_dropped_i}),
    .extra_i(discard_i), .raw_o(head), .slot_o(slot), .add_i(add), .index_i(index), .amount_i(amount),
    .last_i(last), .flip_i, .busy_o, .overflow_o, .read_i, .read_address_i, .read_data_o
  );
  assign ready_o = !busy_o;
endmodule
