// SPDX-License-Identifier: Apache-2.0
// What a GPS receiver says on its serial line: UBX (NAV-PVT, TIM-TP, NAV-TIMELS, NAV-TIMEGPS) and NMEA (RMC,
// ZDA, GGA), mixed in any way with other UBX messages and sentences and with RTCM3, from bytes that may be
// anything. The grammar and the reasons for which something is refused are those of docs/receiver.md; the
// host's parser (gps/twinstamp_gps/stream.py) takes and refuses the same.
//
// No register, no heap, no recursion, bounded work per byte. Only a whole message counts: length as defined,
// checksum right, values within their ranges. A false start swallows nothing, and nothing inside a sound
// message is read: each byte that may begin a message is followed, with a running checksum, beside those
// that began before it. What comes to an end inside one that is not yet judged waits for that one's end. So
// a message may be longer than the room for its bytes. Starts beyond RECEIVER_STARTS at a time: see there.
//
// u-blox F9 interface description (UBX-22008968) sections 3.15, 3.17; NMEA 0183; RTCM 10403.3 section 4.
#ifndef TWINSTAMP_RECEIVER_H
#define TWINSTAMP_RECEIVER_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RECEIVER_READ 256u      // bytes of the longest message that is read
#define RECEIVER_LONGEST 4096u  // bytes of payload of UBX, characters of a sentence with its line end
#define RECEIVER_ROOM (RECEIVER_READ + 64u)
// Starts followed at a time. Each but the first lies within one that is not yet judged. When one more comes,
// nothing is begun for as many bytes as the longest message has, or until the line is silent: what would be
// inside a message that is not followed must not be read.
#define RECEIVER_STARTS 24u
#define RECEIVER_TALLIES 4u  // starts with counts of their own; deeper ones share the last
#define RECEIVER_WAITING 8u  // messages that wait for the end of another; the oldest goes when one more comes

// What a message was.
enum {
    RECEIVER_NONE = 0,
    RECEIVER_PVT = 1,   // the pulse that came last
    RECEIVER_TP = 2,    // the pulse that comes next
    RECEIVER_LEAP = 3,  // leap seconds
    RECEIVER_UTC = 4    // NMEA: the pulse that came last
};

// What is counted. From RECEIVER_BAD_CHECKSUM on: reasons for which something was refused, by the names of
// twinstamp_gps.stream.REASONS.
enum {
    RECEIVER_GOOD_UBX = 0,  // whole messages with a right checksum, of any kind
    RECEIVER_GOOD_NMEA,
    RECEIVER_GOOD_RTCM,
    RECEIVER_SKIPPED,       // bytes of none of them
    RECEIVER_BAD_CHECKSUM,  // whole, but damaged
    RECEIVER_NO_CHECKSUM,   // a sentence without one
    RECEIVER_CUT_SHORT,     // began, and did not end
    RECEIVER_TOO_LONG,      // longer than is read
    RECEIVER_BAD_LENGTH,    // UBX of a kind that is read, with another length than it has
    RECEIVER_BAD_VALUE,     // undamaged, but impossible
    RECEIVER_FRACTION,      // of no whole second
    RECEIVER_TIME_BASE,     // TIM-TP in a time that is neither GPS's nor a known UTC
    RECEIVER_NOT_VALID,     // marked so: no fix, no time yet, leap seconds not received
    RECEIVER_NO_ROOM,       // starts and waiting messages beyond the limits above, or waiting at a pulse
    RECEIVER_COUNTS
};

// A second of UTC by its civil time.
typedef struct {
    uint16_t year;
    uint8_t month, day, hour, minute, second;
    uint8_t reserved;
} receiver_utc;

typedef struct {
    receiver_utc utc;
    uint32_t tow_ms;       // GPS time of week, as it stands: iTOW
    uint32_t accuracy_ns;  // tAcc
    uint8_t resolved;      // date and time valid, no ambiguity of seconds left
    uint8_t fixed;         // gnssFixOK with a time or position fix
    uint8_t reserved[2];
} receiver_pvt;

typedef struct {
    uint16_t week;      // of GPS (or of the UTC-based week with utc_base)
    uint8_t utc_base;   // the time of week is UTC's
    uint8_t gps;        // it is GPS's own, or aligned to it
    uint8_t utc_known;  // UTC parameters are there
    uint8_t qerr_valid;
    uint8_t reserved[2];
    uint32_t tow_s;  // of the pulse
    int32_t qerr_ps;
} receiver_tp;

typedef struct {
    uint32_t tow_ms;   // GPS time of week of the message
    int8_t gps_utc_s;  // now: GPS - UTC
    int8_t change_s;   // of the next event: -1, 0, 1
    uint8_t known;     // gps_utc_s was received from satellites
    uint8_t change_known;
    int32_t event_s;  // until the event
} receiver_leap;

// A byte that may begin a message.
typedef struct {
    uint32_t sum;      // running checksum
    uint16_t seen;     // bytes so far
    uint16_t whole;    // bytes of all of it; 0: not known yet
    uint8_t first;     // 0xB5, '$' or 0xD3
    uint8_t likely;    // more than its first bytes look like a message: it counts when it is refused
    uint8_t star;      // NMEA: characters from the last '*' on
    uint8_t star_sum;  // NMEA: sum before it; at the line's end: the result
} receiver_start;

// A message that was read. inside: place of the start that it waits for; -1: none.
typedef struct {
    int8_t inside;
    uint8_t kind;    // RECEIVER_*
    uint8_t reason;  // for which it is refused; 0: none
    uint8_t says;
    union {
        receiver_pvt pvt;
        receiver_tp tp;
        receiver_leap leap;
        receiver_utc utc;
    } of;
} receiver_item;

typedef struct {
    uint32_t used;          // of bytes
    uint32_t total, taken;  // bytes that came, and those of them that are good messages'
    uint32_t blind;         // bytes for which nothing is begun
    uint32_t depth;         // of starts
    uint32_t items;         // of waiting
    uint32_t tallied;       // one of the tallies is not 0
    uint16_t tallies[RECEIVER_TALLIES][RECEIVER_COUNTS];  // what was counted inside each start
    uint8_t no_fix;                                       // as the last RMC or GGA said
    uint8_t timels;  // NAV-TIMELS came: NAV-TIMEGPS, which does not say its source, is not asked
    // What came last of each kind.
    receiver_pvt pvt;
    receiver_tp tp;
    receiver_leap leap;
    receiver_utc utc;
    union {
        uint32_t counts[RECEIVER_COUNTS];
        struct {
            uint32_t good_ubx, good_nmea, good_rtcm, skipped;
            uint32_t bad_checksum, no_checksum, cut_short, too_long, bad_length, bad_value;
            uint32_t fraction, time_base, not_valid, no_room;
        };
    };
    uint8_t bytes[RECEIVER_ROOM];  // the last ones: at least RECEIVER_READ
    receiver_start starts[RECEIVER_STARTS];
    receiver_item waiting[RECEIVER_WAITING];
} receiver;

void receiver_init(receiver* self);

// One byte; says what it completed (RECEIVER_*).
uint32_t receiver_byte(receiver* self, uint8_t byte);

// A byte may complete several: call until it says RECEIVER_NONE.
uint32_t receiver_next(receiver* self);

// The line was silent for longer than any pause within a message: what has not ended will not end. Says what
// waited for that, as receiver_byte does.
uint32_t receiver_silence(receiver* self);

// A pulse came: what still waits was about the pulses before, and names none any more.
void receiver_pulse(receiver* self);

#ifdef __cplusplus
}
#endif

#endif
