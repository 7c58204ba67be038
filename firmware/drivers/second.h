// SPDX-License-Identifier: Apache-2.0
// Which second of TAI a pulse is, from what the receiver says around it.
//
// GPS time where the receiver gives it (TIM-TP: TAI = GPS + 19 s), else UTC (NAV-PVT, NMEA) with TAI - UTC
// from the satellites (NAV-TIMELS), from the host, or from the table in second.c until it expires; else TAI
// is unknown. A name counts when it follows on the one before it by the seconds that have passed: on two
// pulses in a row from UBX, on three from NMEA, whose checksum has 8 bits.
//
// A message with a fix vouches for a pulse. Which messages can, the strongest kind that the receiver has sent
// decides: NAV-PVT by its fix; else RMC by its status (and ZDA where no sentence says otherwise); else TIM-TP
// by a valid qErr, which a receiver without a fix takes back. A pulse that nobody vouches for is not named.
//
// What belongs to a pulse is decided by when it was heard: TIM-TP within the second before it, the others
// behind it. So edges that are none, and seconds without a pulse, bring nothing out of step. Pure: no
// register, no global.
#ifndef TWINSTAMP_SECOND_H
#define TWINSTAMP_SECOND_H

#include <stdint.h>

#include "receiver.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SECOND_Q32 ((uint64_t)1 << 32)

// Results of second_name().
enum {
    SECOND_TAI = 1u << 0,       // tai_s
    SECOND_QERR = 1u << 1,      // qerr_ps
    SECOND_ACCURACY = 1u << 2,  // accuracy_ns
    SECOND_MESSAGE = 1u << 3    // something was said about this pulse
};

// TAI - UTC, with the leap second next to now, come or to come. A leap second that has come stays, so that
// what was stamped before it still gets the offset of its own time.
typedef struct {
    int32_t offset_s;     // before that leap second
    int32_t leap_s;       // what it adds: -1, 0 (none is known), 1
    uint64_t leap_tai_s;  // first second of TAI with offset_s + leap_s
    uint64_t until_s;     // good until this second of TAI; 0: never
} second_offset;

// Who says so, best first. SECOND_NOBODY: what was said last has expired, or nobody has said anything.
enum { SECOND_NOBODY = 0, SECOND_SATELLITES = 1, SECOND_HOST = 2, SECOND_TABLE = 3 };
// What vouches, the weakest first.
enum { VOUCHER_NONE = 0, VOUCHER_TP = 1, VOUCHER_UTC = 2, VOUCHER_PVT = 3 };
// Results of second_vouched(), 0: neither.
enum { SECOND_FIX = 1, SECOND_FIX_BEFORE = 2 };

typedef struct {
    // What was heard last, and at which card time; of TIM-TP the last two, the newer first.
    receiver_tp heard_tp[2];
    receiver_pvt pvt;
    receiver_utc utc;
    uint64_t tp_q32[2], pvt_q32, utc_q32;
    uint8_t heard_tps, heard_pvt, heard_utc;
    uint8_t voucher;    // the strongest kind heard: VOUCHER_*
    uint8_t heard_fix;  // a message with a fix, of that kind
    uint64_t fix_q32;
    // Of the last pulse.
    uint64_t pulse_q32;  // its card time
    receiver_tp tp;
    uint8_t has_tp, has_pvt, has_utc;
    // The last name given, and how many in a row agreed.
    uint64_t candidate_s, candidate_q32;
    uint32_t agreed, last_week_fix;
    // TAI - UTC: by satellites, by the host, and what is published, which lasts through seconds without a
    // pulse.
    second_offset received, told, published;
    uint32_t source;
    uint64_t tai_s;  // the last second of which TAI was known
    receiver_leap leap;
    uint32_t has_leap, new_leap;  // one has come; and has not been used yet
} second;

typedef struct {
    uint64_t tai_s;
    int32_t qerr_ps;
    uint32_t accuracy_ns;
    uint32_t flags;
} second_name_t;

void second_init(second* self);
// A message was taken out of the receiver's stream (kind as receiver_byte()'s), at card time now_q32.
void second_message(second* self, const receiver* from, uint32_t kind, uint64_t now_q32);
// The pulse of this second stood at pulse_q32.
void second_pulse(second* self, uint64_t pulse_q32);
// Everything that names a pulse at pulse_q32 has come that this receiver sends.
uint32_t second_complete(const second* self, uint64_t pulse_q32);
// Whether a message with a fix was heard for the second that began at begin_q32, or else for the one before.
uint32_t second_vouched(const second* self, uint64_t begin_q32);
// The name of the last pulse; once a pulse.
void second_name(second* self, second_name_t* out);
// No pulse this second: what was said about it is void. What is said of the next one is not.
void second_missed(second* self);
// Card time was moved by somebody, or the clock has gone cold: nothing heard so far counts, names must agree
// anew. What is known of TAI - UTC stays.
void second_forget(second* self);
// Card time was moved by delta.
void second_shift(second* self, uint64_t delta_q32);
// TAI - UTC by the host, good until a second of TAI; no leap second is known then. 0: refused.
uint32_t second_tell(second* self, int32_t offset_s, uint64_t until_s);
// The leap second to come by the host, after second_tell(); change_s 0: none. 0: refused.
uint32_t second_tell_leap(second* self, int32_t change_s, uint64_t leap_tai_s);
// Finds out what counts now (published, source). tai_s: card time's second of TAI; 0: not known.
void second_publish(second* self, uint64_t tai_s);

#ifdef __cplusplus
}
#endif

#endif
