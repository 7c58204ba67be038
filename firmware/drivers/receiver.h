// SPDX-License-Identifier: Apache-2.0
// What a GPS receiver says on its serial line: UBX (NAV-PVT, TIM-TP, NAV-TIMELS) and NMEA (RMC, ZDA), mixed
// in any way, from bytes that may be anything.
//
// No register, no heap, no recursion, bounded work per byte. Only a whole message counts: length as defined,
// checksum right, values within their ranges. After a bad one the search goes on at the byte behind its
// first, so that a false start swallows nothing. u-blox F9 interface description (UBX-22008968)
// sections 3.15, 3.17; NMEA 0183.
#ifndef TWINSTAMP_RECEIVER_H
#define TWINSTAMP_RECEIVER_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RECEIVER_ROOM 160u  // bytes: the longest message that is read has 100

// What a message was.
enum {
    RECEIVER_NONE = 0,
    RECEIVER_PVT = 1,   // the pulse that came last
    RECEIVER_TP = 2,    // the pulse that comes next
    RECEIVER_LEAP = 3,  // leap seconds
    RECEIVER_UTC = 4    // NMEA: the pulse that came last
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

// What came last of each kind.
typedef struct {
    uint8_t bytes[RECEIVER_ROOM];
    uint32_t head, used;  // unread: bytes[head] to bytes[used - 1]
    receiver_pvt pvt;
    receiver_tp tp;
    receiver_leap leap;
    receiver_utc utc;
    uint32_t good_ubx, good_nmea;  // messages taken
    uint32_t bad_checksum;         // whole, but damaged
    uint32_t bad_value;            // whole and undamaged, but impossible
    uint32_t skipped;              // bytes that belong to no message that is read
} receiver;

void receiver_init(receiver* self);

// One byte; says what it completed (RECEIVER_*).
uint32_t receiver_byte(receiver* self, uint8_t byte);

// A byte takes at most one message out; more may wait: call until it says RECEIVER_NONE.
uint32_t receiver_next(receiver* self);

#ifdef __cplusplus
}
#endif

#endif
