// SPDX-License-Identifier: Apache-2.0
// What the transmit blocks share: header of a frame from the host, what crosses between the clocks, reports.
package twinstamp_tx_pkg;

  // Without FCS. Shorter than 60 is padded by the MAC.
  parameter int unsigned TxMinLength = 14;
  parameter int unsigned TxMaxLength = 9022;

  // First word of a frame on the host's stream; the second is the launch time, 32.32 s of card time.
  typedef struct packed {
    logic [31:0] tag;           // comes back in the report
    logic [13:0] stage;         // for the stage between store and MAC (offset of a stamp field); 0: none
    logic        bad_fcs;       // send with all bits of the FCS inverted
    logic        launch_valid;  // hold until the launch time; else send at once
    logic [1:0]  zero;
    logic [13:0] length;        // bytes without FCS
  } tx_head_t;

  typedef struct packed {
    tx_head_t    head;
    logic [63:0] launch_q32;
  } tx_meta_t;

  // Permission for the next frame in the store to leave; crosses from the core clock to the transmit clock.
  typedef struct packed {
    logic        drop;          // do not send it: flushed
    logic        bad_fcs;
    logic [13:0] stage;
    logic [13:0] length;
  } tx_frame_t;

  // End of a frame; crosses back.
  typedef struct packed {
    logic        dropped;
    logic        underrun;
    logic        bad_fcs;
    logic        multicast;     // first byte's lowest bit; broadcast too
    logic        broadcast;
    logic [15:0] length;        // bytes on the wire after the SFD, FCS included
  } tx_end_t;

  // One for each frame, in the order of sending.
  typedef struct packed {
    logic [7:0]  epoch;         // lowest bits of the time-epoch of the stamp
    logic [7:0]  flags;
    logic [31:0] tag;
    logic [63:0] stamp_q32;     // 0 if dropped
  } tx_report_t;
  parameter int unsigned TxFlagLaunch = 0;    // had a launch time
  parameter int unsigned TxFlagLate = 1;      // left more than the tolerance after it
  parameter int unsigned TxFlagUnderrun = 2;  // ended with error code and wrong FCS
  parameter int unsigned TxFlagDropped = 3;   // flushed, not sent
  parameter int unsigned TxFlagBadFcs = 4;    // wrong FCS was asked for
  parameter int unsigned TxFlagFirstByte = 5; // stamp refers to the first byte, not to the SFD

  // Counters of frames sent, by their place in the port's memory; sizes stand where they do in counter_e.
  typedef enum int unsigned {
    TxCntOctetsGood = 0, TxCntOctetsBad = 1, TxCntGood = 2, TxCntBroadcast = 3, TxCntMulticast = 4,
    TxCntBadFcs = 5, TxCntUnderruns = 6, TxCntDropped = 7, TxCntMalformed = 8, TxCntLaunches = 9,
    TxCntLate = 10, TxCntSize64 = 16, TxCntSize127 = 17, TxCntSize255 = 18, TxCntSize511 = 19,
    TxCntSize1023 = 20, TxCntSize1518 = 21, TxCntSizeLarger = 22
  } tx_counter_e;

endpackage
