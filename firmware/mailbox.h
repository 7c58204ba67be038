// SPDX-License-Identifier: Apache-2.0
// What the firmware tells the host: in the core's memory, at the byte address in cpu.mailbox. Words, lowest
// byte first; 64-bit numbers 8-byte aligned. The driver reads it in host/twinstamp/card/firmware.py.
#ifndef TWINSTAMP_MAILBOX_H
#define TWINSTAMP_MAILBOX_H

#include <stdint.h>

#include "servo.h"

#define MAILBOX_MAGIC 0x584F424Du  // MBOX
#define MAILBOX_VERSION 2u
#define MAILBOX_LOG 64u  // seconds kept

// Commands: cpu.command holds a number of the host's choice in its upper half word and one of these in the
// lower; cpu.argument goes with it. cpu.answer: the same upper half word, and a result.
enum {
    COMMAND_ACCEPT = 1,  // believe the receiver from the next step on, also where the clock is disputed
    COMMAND_SET = 2,     // argument: setting's place in servo_config << 32 | value; restarts the servo
    COMMAND_OFFSET = 3,  // argument: TAI - UTC << 48 | second of TAI until which it is good, 0: take it back
    COMMAND_RESTART = 4  // servo cold, counters kept
};
enum { RESULT_DONE = 1, RESULT_UNKNOWN = 2, RESULT_REFUSED = 3 };

// One step: the number of it, what the servo got and what it said.
typedef struct {
    uint32_t number, reserved;
    servo_input input;
    servo_output output;
} mailbox_entry;

typedef struct {
    uint32_t magic, version, bytes, log_entries;
    uint32_t changes;  // odd while being written
    uint32_t steps;    // the last one stands in log[(steps - 1) % log_entries]
    uint32_t utc_known;
    int32_t utc_offset_s;
    // Counts since the firmware began.
    uint32_t pulses, extra_pulses, ubx, nmea, bad_checksum, bad_value, skipped, late_outputs;
    uint32_t slowest_q32;  // longest time from reading card time to the last register written, 2^-32 s
    uint32_t stack_low;    // lowest stack address that was used so far
    servo_config config;
    mailbox_entry log[MAILBOX_LOG];
} mailbox;

#endif
