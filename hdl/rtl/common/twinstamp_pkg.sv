// SPDX-License-Identifier: Apache-2.0
// What several blocks of the card share: entry formats, counter numbers, the Ethernet CRC.
package twinstamp_pkg;

  // Longest frame stored, without FCS: 9018 bytes and two tags, rounded up to words.
  parameter int unsigned MaxStoredWords = 1128;
  parameter int unsigned RecordHeaderWords = 4;
  parameter int unsigned BlockHeaderWords = 8;

  // Frames with stamps that can be under way between the MAC and their records: 2^StampBits.
  parameter int unsigned StampBits = 4;

  // What gmii_rx says at the end of a frame, and of carrier events (rx_dv high) in which no frame started.
  typedef struct packed {
    logic        frame;       // else only counts
    logic [3:0]  preamble_errors;  // events since the last entry with something else than 0x55 before the SFD, or an SFD
                                   // too close behind another
    logic [3:0]  no_sfds;     // events since the last entry that ended within the preamble
    logic        first_byte;  // the stamp is the first byte's, not the SFD's
    logic        has_stamp;   // of the stamps, number `stamp` is this frame's
    logic [StampBits-1:0] stamp;
    logic        profiled;    // frame_normaliser makes a message of it
    logic        pause;       // MAC control, PAUSE (IEEE 802.3, annex 31B)
    logic        multicast;   // first byte's lowest bit; broadcast too
    logic        broadcast;
    logic        rx_er;
    logic        fcs_ok;
    logic [1:0]  tags;        // VLAN tags, at most two counted
    logic [23:0] length;      // bytes after the SFD, FCS included; stops at its largest value
  } rx_end_t;

  // What crosses from a receive clock to the core clock.
  typedef struct packed {
    logic        is_end;
    logic [63:0] data;        // eight bytes, first in the lowest; or an rx_end_t
  } rx_entry_t;

  // TAI - UTC (clock.utc_offset, clock.leap_second): s, and s + leap from second leap_at of TAI on.
  typedef struct packed {
    logic [31:0] leap_at;
    logic [1:0]  leap;        // -1, 0, 1
    logic        valid;
    logic [15:0] s;           // signed
  } utc_t;

  // Flags of a record (docs/card.md); the upper eight bits hold the port's link epoch.
  parameter int unsigned FlagBadFcs = 0;
  parameter int unsigned FlagRxEr = 1;
  parameter int unsigned FlagRunt = 2;
  parameter int unsigned FlagGiant = 3;
  parameter int unsigned FlagCut = 4;      // caplen is less than length for want of room
  parameter int unsigned FlagFirstByte = 5;  // stamp refers to the first byte, not to the SFD
  parameter int unsigned FlagTx = 6;       // departure stamp of a frame sent by the host

  parameter int unsigned FlagLate = 7;     // it missed its launch time
  parameter int unsigned FlagDuplicate = 7;  // of a frame, not a departure: judged a duplicate

  // Flags of a record to be sent.
  parameter int unsigned TxLaunch = 0;     // wait for the launch time
  parameter int unsigned TxStamp = 1;      // give its departure stamp back

  // Counters of a port, by their place in the counter memory.
  typedef enum int unsigned {
    CntOctetsGood = 0, CntOctetsBad = 1, CntGood = 2, CntBroadcast = 3, CntMulticast = 4,
    CntFcsErrors = 5, CntUndersize = 6, CntFragments = 7, CntOversize = 8, CntJabbers = 9,
    CntNoSfd = 10, CntPreambleErrors = 11, CntStored = 12, CntDropped = 13, CntDiscarded = 14,
    CntNotWanted = 15, CntSize64 = 16, CntSize127 = 17, CntSize255 = 18, CntSize511 = 19,
    CntSize1023 = 20, CntSize1518 = 21, CntSizeLarger = 22, CntTagged = 23, CntTxFrames = 24,
    CntTxOctets = 25, CntTxBroadcast = 26, CntTxMulticast = 27, CntTxLate = 28, CntPause = 29,
    CntSymbolErrors = 30, CntDuplicatesDropped = 31
  } counter_e;
  parameter int unsigned CountersUsed = 32;

  // State after a frame followed by its own FCS.
  parameter logic [31:0] CrcResidue = 32'hDEBB20E3;

endpackage
