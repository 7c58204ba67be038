// SPDX-License-Identifier: Apache-2.0
#include "receiver.h"

enum { NEED_MORE = 0, BAD = -1, DAMAGED = -2, IMPOSSIBLE = -3 };  // else: the message's bytes

static uint32_t u2(const uint8_t* p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}
static uint32_t u4(const uint8_t* p) {
    return u2(p) | u2(p + 2) << 16;
}
static int32_t i4(const uint8_t* p) {
    return (int32_t)u4(p);
}

static uint32_t days_in(uint32_t year, uint32_t month) {
    static const uint8_t days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    const uint32_t leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return days[month - 1] + (month == 2 && leap ? 1u : 0u);
}

static int possible(const receiver_utc* utc) {
    if (utc->year < 1980 || utc->year > 2199 || utc->month < 1 || utc->month > 12 || utc->day < 1) return 0;
    if (utc->day > days_in(utc->year, utc->month)) return 0;
    if (utc->hour > 23 || utc->minute > 59) return 0;
    // A leap second is the last of a day, in UTC.
    return utc->second <= 59 || (utc->second == 60 && utc->hour == 23 && utc->minute == 59);
}

static int take_pvt(receiver* self, const uint8_t* p) {
    const receiver_utc utc = {.year = (uint16_t)u2(p + 4),
                              .month = p[6],
                              .day = p[7],
                              .hour = p[8],
                              .minute = p[9],
                              .second = p[10],
                              .reserved = 0};
    const uint32_t tow_ms = u4(p);
    const int resolved = (p[11] & 7u) == 7u;
    const int32_t nano = i4(p + 16);
    if (tow_ms > 604799999u || nano < -1000000000 || nano > 1000000000) return 0;
    if (resolved && !possible(&utc)) return 0;
    self->pvt.utc = utc;
    self->pvt.tow_ms = tow_ms;
    self->pvt.accuracy_ns = u4(p + 12);
    // Fix of the solution's epoch: a navigation epoch away from the second names no pulse.
    self->pvt.resolved = resolved && nano > -500000 && nano < 500000 ? 1 : 0;
    // Fix types 1 (dead reckoning only) and 0 have no time to speak of.
    self->pvt.fixed = (p[21] & 1u) && p[20] >= 2 && p[20] <= 5 ? 1 : 0;
    return 1;
}

static int take_tp(receiver* self, const uint8_t* p) {
    uint32_t tow_ms = u4(p);
    const uint32_t sub = u4(p + 4);
    const uint32_t flags = p[14], reference = p[15] & 15u;
    uint32_t week = u2(p + 12);
    if (tow_ms > 604799999u) return 0;
    // A pulse of whole seconds: the nearest one, and not more than a millisecond off.
    const uint32_t milli = tow_ms % 1000u;
    uint32_t tow_s = tow_ms / 1000u;
    if (milli == 999u && sub != 0)
        ++tow_s;
    else if (milli != 0)
        return 0;
    if (tow_s >= 604800u) {
        tow_s = 0;
        ++week;
    }
    self->tp.week = (uint16_t)week;
    self->tp.tow_s = tow_s;
    self->tp.qerr_ps = i4(p + 8);
    self->tp.utc_base = flags & 1u;
    self->tp.utc_known = flags >> 1 & 1u;
    // Time of week of another system counts otherwise (BeiDou, GLONASS); Galileo's is steered to GPS's, and
    // receivers give its week in GPS's count.
    self->tp.gps = !(flags & 1u) && (reference == 0 || reference == 3) ? 1 : 0;
    self->tp.qerr_valid = !(flags & 16u) && self->tp.qerr_ps > -1000000 && self->tp.qerr_ps < 1000000 ? 1 : 0;
    return 1;
}

static int take_leap(receiver* self, const uint8_t* p) {
    const int8_t now = (int8_t)p[9], change = (int8_t)p[11];
    if (change < -1 || change > 1) return 0;
    self->leap.tow_ms = u4(p);
    self->leap.gps_utc_s = now;
    self->leap.change_s = change;
    // Source 0 is what the receiver was delivered with, 255 nothing; what is between came from satellites.
    self->leap.known = (p[23] & 1u) && p[8] != 0 && p[8] != 255 ? 1 : 0;
    self->leap.change_known = (p[23] & 2u) ? 1 : 0;
    self->leap.event_s = i4(p + 12);
    return now >= 0 && now < 100;
}

// A frame at p, n bytes of it there.
static int ubx(receiver* self, const uint8_t* p, uint32_t n, uint32_t* kind) {
    if (n >= 2 && p[1] != 0x62) return BAD;
    if (n < 6) return NEED_MORE;
    const uint32_t id = (uint32_t)p[2] << 8 | p[3], length = u2(p + 4);
    int (*take)(receiver*, const uint8_t*) = 0;
    if (id == 0x0107 && length == 92) {
        *kind = RECEIVER_PVT;
        take = take_pvt;
    } else if (id == 0x0D01 && length == 16) {
        *kind = RECEIVER_TP;
        take = take_tp;
    } else if (id == 0x0126 && length == 24) {
        *kind = RECEIVER_LEAP;
        take = take_leap;
    } else {
        return BAD;
    }
    if (n < length + 8) return NEED_MORE;
    uint8_t a = 0, b = 0;
    for (uint32_t i = 2; i < length + 6; ++i) {
        a = (uint8_t)(a + p[i]);
        b = (uint8_t)(b + a);
    }
    if (a != p[length + 6] || b != p[length + 7]) return DAMAGED;
    return take(self, p + 6) ? (int)(length + 8) : IMPOSSIBLE;
}

static int digit(uint8_t c) {
    return c >= '0' && c <= '9' ? c - '0' : -1;
}
static int hex(uint8_t c) {
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : digit(c);
}

// count digits at p; -1: something else stands there.
static int32_t number(const uint8_t* p, const uint8_t* end, uint32_t count) {
    int32_t value = 0;
    for (uint32_t i = 0; i < count; ++i) {
        if (p + i >= end || digit(p[i]) < 0) return -1;
        value = value * 10 + digit(p[i]);
    }
    return value;
}

// Start of field k (0: the address); end is returned for a field that is not there.
static const uint8_t* field(const uint8_t* p, const uint8_t* end, uint32_t k) {
    while (p < end && k > 0) {
        if (*p == ',') --k;
        ++p;
    }
    return p;
}
static int field_ends(const uint8_t* p, const uint8_t* end) {
    return p >= end || *p == ',';
}

// hhmmss, whole: a fraction must be zeros.
static int clock_time(const uint8_t* p, const uint8_t* end, receiver_utc* utc) {
    const int32_t hour = number(p, end, 2), minute = number(p + 2, end, 2), second = number(p + 4, end, 2);
    if (hour < 0 || minute < 0 || second < 0) return 0;
    p += 6;
    if (p < end && *p == '.') {
        for (++p; p < end && *p == '0'; ++p) {
        }
    }
    utc->hour = (uint8_t)hour;
    utc->minute = (uint8_t)minute;
    utc->second = (uint8_t)second;
    return field_ends(p, end);
}

static int take_rmc(const uint8_t* p, const uint8_t* end, receiver_utc* utc) {
    const uint8_t* status = field(p, end, 2);
    if (status >= end || *status != 'A' || !field_ends(status + 1, end)) return 0;
    const uint8_t* date = field(p, end, 9);
    const int32_t day = number(date, end, 2), month = number(date + 2, end, 2),
                  year = number(date + 4, end, 2);
    if (day < 0 || month < 0 || year < 0 || !field_ends(date + 6, end)) return 0;
    utc->day = (uint8_t)day;
    utc->month = (uint8_t)month;
    // Two digits: of the hundred years from 1980 on.
    utc->year = (uint16_t)(year >= 80 ? 1900 + year : 2000 + year);
    return clock_time(field(p, end, 1), end, utc);
}

static int take_zda(const uint8_t* p, const uint8_t* end, receiver_utc* utc) {
    const uint8_t *d = field(p, end, 2), *m = field(p, end, 3), *y = field(p, end, 4);
    const int32_t day = number(d, end, 2), month = number(m, end, 2), year = number(y, end, 4);
    if (day < 0 || month < 0 || year < 0) return 0;
    if (!field_ends(d + 2, end) || !field_ends(m + 2, end) || !field_ends(y + 4, end)) return 0;
    utc->day = (uint8_t)day;
    utc->month = (uint8_t)month;
    utc->year = (uint16_t)year;
    return clock_time(field(p, end, 1), end, utc);
}

// $ccSSS,…*hh\r\n, at most 82 characters; any talker.
static int nmea(receiver* self, const uint8_t* p, uint32_t n, uint32_t* kind) {
    uint32_t star = 1;
    uint8_t sum = 0;
    for (; star < n && p[star] != '*'; ++star) {
        if (star >= 80 || p[star] < 0x20 || p[star] > 0x7E || p[star] == '$') return BAD;
        sum ^= p[star];
    }
    if (star >= n) return n >= 82 ? BAD : NEED_MORE;
    if (n < star + 5) {
        return n > star + 1 && hex(p[star + 1]) < 0 ? BAD : NEED_MORE;
    }
    if (hex(p[star + 1]) < 0 || hex(p[star + 2]) < 0 || p[star + 3] != '\r' || p[star + 4] != '\n')
        return BAD;
    if (hex(p[star + 1]) * 16 + hex(p[star + 2]) != sum) return DAMAGED;
    const uint8_t* end = p + star;
    receiver_utc utc = {0};
    const int rmc = star > 6 && p[3] == 'R' && p[4] == 'M' && p[5] == 'C' && p[6] == ',';
    const int zda = star > 6 && p[3] == 'Z' && p[4] == 'D' && p[5] == 'A' && p[6] == ',';
    if ((rmc && take_rmc(p, end, &utc)) || (zda && take_zda(p, end, &utc))) {
        if (!possible(&utc)) return IMPOSSIBLE;
        self->utc = utc;
        *kind = RECEIVER_UTC;
    }
    return (int)(star + 5);
}

void receiver_init(receiver* self) {
    *self = (receiver){0};
}

uint32_t receiver_next(receiver* self) {
    while (self->head < self->used) {
        const uint8_t* p = self->bytes + self->head;
        const uint32_t n = self->used - self->head;
        uint32_t kind = RECEIVER_NONE;
        const int is_ubx = *p == 0xB5, is_nmea = *p == '$';
        const int took = is_ubx ? ubx(self, p, n, &kind) : is_nmea ? nmea(self, p, n, &kind) : BAD;
        if (took == NEED_MORE) return RECEIVER_NONE;
        if (took > 0) {
            self->head += (uint32_t)took;
            if (is_ubx)
                ++self->good_ubx;
            else
                ++self->good_nmea;
            if (kind != RECEIVER_NONE) return kind;
            continue;
        }
        if (took == DAMAGED) ++self->bad_checksum;
        if (took == IMPOSSIBLE) ++self->bad_value;
        ++self->skipped;
        ++self->head;
    }
    return RECEIVER_NONE;
}

uint32_t receiver_byte(receiver* self, uint8_t byte) {
    if (self->head == self->used) {
        self->head = self->used = 0;
    } else if (self->used == RECEIVER_ROOM) {
        // What waits for more is shorter than the room: there are bytes in front of it.
        uint32_t n = self->used - self->head;
        if (self->head == 0) {
            self->head = 1;  // cannot be; nothing may hang
            --n;
            ++self->skipped;
        }
        for (uint32_t i = 0; i < n; ++i) self->bytes[i] = self->bytes[self->head + i];
        self->head = 0;
        self->used = n;
    }
    self->bytes[self->used++] = byte;
    return receiver_next(self);
}
