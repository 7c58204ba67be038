// SPDX-License-Identifier: Apache-2.0
// What the firmware tells the host: in the core's memory, at the byte address in cpu.mailbox. Words, lowest
// byte first; 64-bit numbers 8-byte aligned. The driver reads it in host/twinstamp/card/firmware.py.
#ifndef TWINSTAMP_MAILBOX_H
#define TWINSTAMP_MAILBOX_H

#include <stdint.h>

#include "receiver.h"
#include "second.h"
#include "servo.h"

#define MAILBOX_MAGIC 0x584F424Du  // MBOX
#define MAILBOX_VERSION 2u
#define MAILBOX_LOG 64u  // seconds kept

// Commands: cpu.command holds a number of the host's choice in its upper half word and one of these in the
// lower; cpu.argument goes with it. cpu.answer: the same upper half word, and a result.
enum {
    COMMAND_ACCEPT = 1,   // believe the receiver from the next step on, also where the clock is disputed
    COMMAND_SET = 2,      // argument: setting's place in servo_config << 32 | value; restarts the servo
    COMMAND_OFFSET = 3,   // argument: TAI - UTC << 48 | second of TAI until which it is good, 0: take it back
    COMMAND_RESTART = 4,  // servo cold, counters kept
    COMMAND_LEAP = 5      // argument: leap second to come, -1, 0 or 1, << 48 | first second of TAI behind it;
                          // after COMMAND_OFFSET, which forgets it
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
    uint32_t changes;     // odd while being written
    uint32_t steps;       // the last one stands in log[(steps - 1) % log_entries]
    uint32_t utc_source;  // SECOND_*
    uint32_t reserved;
    second_offset utc;  // TAI - UTC as published
    // Counts since the firmware began.
    uint32_t pulses, extra_pulses, late_outputs;
    uint32_t slowest_q32;  // longest time from reading card time to the last register written, 2^-32 s
    uint32_t stack_low;    // lowest stack address that was used so far
    uint32_t receiver[RECEIVER_COUNTS];  // of its messages, in the order of receiver.h
    uint32_t reserved_too;
    servo_config config;
    mailbox_entry log[MAILBOX_LOG];
} mailbox;

#endif
