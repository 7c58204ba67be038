// SPDX-License-Identifier: Apache-2.0
#include "receiver.h"

#include <stddef.h>

// What a byte means for a start: more to come, the end of a sound message, no message after all, or the count
// of RECEIVER_* that says why it is refused.
enum { MORE = 0, SOUND = 1, NOISE = 2 };
// What a message says beside its time (receiver_item.says).
enum { SAYS_FIX = 1, SAYS_NO_FIX = 2, SAYS_NOTHING_OF_FIX = 4, SAYS_TIMELS = 8 };

static uint32_t u2(const uint8_t* p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}
static uint32_t u4(const uint8_t* p) {
    return u2(p) | u2(p + 2) << 16;
}
static int32_t i4(const uint8_t* p) {
    return (int32_t)u4(p);
}

// What UBX messages say. Each gives the reason for which it names nothing, 0 for none.

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

static uint32_t read_pvt(receiver_item* item, const uint8_t* p) {
    const receiver_utc utc = {.year = (uint16_t)u2(p + 4),
                              .month = p[6],
                              .day = p[7],
                              .hour = p[8],
                              .minute = p[9],
                              .second = p[10],
                              .reserved = 0};
    const int32_t nano = i4(p + 16);
    if (u4(p) > 604799999u || nano < -1000000000 || nano > 1000000000) return RECEIVER_BAD_VALUE;
    if ((p[11] & 3u) == 3u && !possible(&utc)) return RECEIVER_BAD_VALUE;
    // A navigation epoch away from the second names no pulse.
    const int whole = nano > -500000 && nano < 500000;
    const int resolved = (p[11] & 7u) == 7u;
    receiver_pvt* pvt = &item->of.pvt;
    item->kind = RECEIVER_PVT;
    pvt->utc = utc;
    pvt->tow_ms = u4(p);
    pvt->accuracy_ns = u4(p + 12);
    pvt->resolved = resolved && whole ? 1 : 0;
    // Fix types 1 (dead reckoning only) and 0 have no time to speak of.
    pvt->fixed = (p[21] & 1u) && p[20] >= 2 && p[20] <= 5 ? 1 : 0;
    if (!resolved || !pvt->fixed) return RECEIVER_NOT_VALID;
    return whole ? 0 : RECEIVER_FRACTION;
}

static uint32_t read_tp(receiver_item* item, const uint8_t* p) {
    const uint32_t tow_ms = u4(p), sub = u4(p + 4), flags = p[14], reference = p[15] & 15u;
    uint32_t week = u2(p + 12);
    if (tow_ms > 604799999u) return RECEIVER_BAD_VALUE;
    // A pulse of whole seconds: the nearest one, and not more than a millisecond off.
    const uint32_t milli = tow_ms % 1000u;
    uint32_t tow_s = tow_ms / 1000u;
    if (milli == 999u && sub != 0)
        ++tow_s;
    else if (milli != 0)
        return RECEIVER_FRACTION;
    if (tow_s >= 604800u) {
        tow_s = 0;
        ++week;
    }
    receiver_tp* tp = &item->of.tp;
    item->kind = RECEIVER_TP;
    tp->week = (uint16_t)week;
    tp->tow_s = tow_s;
    tp->qerr_ps = i4(p + 8);
    tp->utc_base = flags & 1u;
    tp->utc_known = flags >> 1 & 1u;
    // Time of week of another system counts otherwise (BeiDou, GLONASS); Galileo's is steered to GPS's, and
    // receivers give its week in GPS's count.
    tp->gps = !(flags & 1u) && (reference == 0 || reference == 3) ? 1 : 0;
    tp->qerr_valid = !(flags & 16u) && tp->qerr_ps > -1000000 && tp->qerr_ps < 1000000 ? 1 : 0;
    return tp->gps || (tp->utc_base && tp->utc_known) ? 0 : RECEIVER_TIME_BASE;
}

static int leap_seconds_possible(int8_t gps_utc_s) {
    return gps_utc_s >= 0 && gps_utc_s < 100;
}

static uint32_t read_timels(receiver_item* item, const uint8_t* p) {
    const int8_t now = (int8_t)p[9], change = (int8_t)p[11];
    if (change < -1 || change > 1 || !leap_seconds_possible(now)) return RECEIVER_BAD_VALUE;
    receiver_leap* leap = &item->of.leap;
    item->kind = RECEIVER_LEAP;
    item->says = SAYS_TIMELS;
    leap->tow_ms = u4(p);
    leap->gps_utc_s = now;
    leap->change_s = change;
    // Source 0 is what the receiver was delivered with, 255 nothing; what is between came from satellites.
    leap->known = (p[23] & 1u) && p[8] != 0 && p[8] != 255 ? 1 : 0;
    leap->change_known = (p[23] & 2u) ? 1 : 0;
    leap->event_s = i4(p + 12);
    return leap->known ? 0 : RECEIVER_NOT_VALID;
}

static uint32_t read_timegps(receiver_item* item, const uint8_t* p) {
    const int8_t now = (int8_t)p[10];
    if (u4(p) > 604799999u || !leap_seconds_possible(now)) return RECEIVER_BAD_VALUE;
    if (!(p[11] & 4u)) return RECEIVER_NOT_VALID;
    item->kind = RECEIVER_LEAP;
    item->of.leap = (receiver_leap){.tow_ms = u4(p), .gps_utc_s = now, .known = 1};
    return 0;
}

static uint32_t read_ubx(receiver_item* item, const uint8_t* p, uint32_t n) {
    const uint32_t length = n - 8;
    switch ((uint32_t)p[2] << 8 | p[3]) {
        case 0x0107:  // 84 up to protocol 15: without the magnetic declination
            return length == 92 || length == 84 ? read_pvt(item, p + 6) : RECEIVER_BAD_LENGTH;
        case 0x0D01:
            return length == 16 ? read_tp(item, p + 6) : RECEIVER_BAD_LENGTH;
        case 0x0126:
            return length == 24 ? read_timels(item, p + 6) : RECEIVER_BAD_LENGTH;
        case 0x0120:
            return length == 16 ? read_timegps(item, p + 6) : RECEIVER_BAD_LENGTH;
        default:
            return 0;
    }
}

// What sentences say.

static int digit(uint8_t c) {
    return c >= '0' && c <= '9' ? c - '0' : -1;
}
static int capital(uint8_t c) {
    return c >= 'A' && c <= 'Z';
}
static int hex(uint8_t c) {
    c = c >= 'a' && c <= 'f' ? (uint8_t)(c - 'a' + 'A') : c;
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
// The only character of a field; 0: none, or more than one.
static uint8_t only(const uint8_t* p, const uint8_t* end) {
    return !field_ends(p, end) && field_ends(p + 1, end) ? *p : 0;
}
static int among(uint8_t c, const char* which) {
    while (*which && (uint8_t)*which != c) ++which;
    return *which != 0;
}

// Day, month and year in utc, and hhmmss with any fraction at p.
static uint32_t read_time(receiver_item* item, const uint8_t* p, const uint8_t* end) {
    receiver_utc* utc = &item->of.utc;
    const int32_t hour = number(p, end, 2), minute = number(p + 2, end, 2), second = number(p + 4, end, 2);
    if (hour < 0 || minute < 0 || second < 0) return RECEIVER_BAD_VALUE;
    p += 6;
    uint32_t fraction = 0;
    if (p < end && *p == '.')
        for (++p; p < end && digit(*p) >= 0; ++p) fraction |= *p != '0';
    utc->hour = (uint8_t)hour;
    utc->minute = (uint8_t)minute;
    utc->second = (uint8_t)second;
    if (!field_ends(p, end) || !possible(utc)) return RECEIVER_BAD_VALUE;
    if (fraction) return RECEIVER_FRACTION;
    item->kind = RECEIVER_UTC;
    return 0;
}

static uint32_t read_rmc(receiver_item* item, const uint8_t* p, const uint8_t* end) {
    const uint8_t *time = field(p, end, 1), *date = field(p, end, 9);
    // Status A, or D for a differential fix. The mode of NMEA 2.3 says of some more that they are no fix: not
    // valid, estimated, set by hand, simulated. Receivers give wrong times with status V.
    const int fix = among(only(field(p, end, 2), end), "AD") && !among(only(field(p, end, 12), end), "NEMS");
    item->says = fix ? SAYS_FIX : SAYS_NO_FIX;
    if (!fix || field_ends(time, end) || field_ends(date, end)) return RECEIVER_NOT_VALID;
    const int32_t day = number(date, end, 2), month = number(date + 2, end, 2),
                  year = number(date + 4, end, 2);
    if (day < 0 || month < 0 || year < 0 || !field_ends(date + 6, end)) return RECEIVER_BAD_VALUE;
    // Two digits: of the hundred years from 1980 on.
    item->of.utc = (receiver_utc){.year = (uint16_t)(year >= 80 ? 1900 + year : 2000 + year),
                                  .month = (uint8_t)month,
                                  .day = (uint8_t)day};
    return read_time(item, time, end);
}

// ZDA does not say whether there is a fix: it is taken as the last RMC or GGA says.
static uint32_t read_zda(receiver_item* item, const uint8_t* p, const uint8_t* end) {
    const uint8_t *t = field(p, end, 1), *d = field(p, end, 2), *m = field(p, end, 3), *y = field(p, end, 4);
    item->says = SAYS_NOTHING_OF_FIX;
    if (field_ends(t, end) || field_ends(d, end) || field_ends(m, end) || field_ends(y, end))
        return RECEIVER_NOT_VALID;
    const int32_t day = number(d, end, 2), month = number(m, end, 2), year = number(y, end, 4);
    if (day < 0 || month < 0 || year < 0) return RECEIVER_BAD_VALUE;
    if (!field_ends(d + 2, end) || !field_ends(m + 2, end) || !field_ends(y + 4, end))
        return RECEIVER_BAD_VALUE;
    item->of.utc = (receiver_utc){.year = (uint16_t)year, .month = (uint8_t)month, .day = (uint8_t)day};
    return read_time(item, t, end);
}

// $ccSSS,...*hh and the line's end.
static uint32_t read_nmea(receiver_item* item, const uint8_t* p, uint32_t n) {
    const uint8_t* end = p + n;
    while (*--end != '*') {
    }
    if (p[3] == 'R') return read_rmc(item, p, end);
    if (p[3] == 'Z') return read_zda(item, p, end);
    const uint8_t quality = only(field(p, end, 6), end);
    if (among(quality, "123459")) item->says = SAYS_FIX;
    if (among(quality, "0678")) item->says = SAYS_NO_FIX;
    return 0;
}

// How far a start has come. p: behind its last byte, of which the last RECEIVER_READ are there.

// Both sums of UBX's checksum, the second in the upper half.
static uint32_t fletcher(uint32_t sum, uint8_t c) {
    const uint32_t a = (sum + c) & 0xFFu;
    return a | ((sum >> 16) + a) << 16;
}

static uint32_t step_ubx(receiver_start* at, const uint8_t* p) {
    const uint8_t c = p[-1];
    if (at->seen == 2) return c == 0x62 ? MORE : NOISE;
    at->likely = 1;
    if (at->seen == 3 && c >= 0x80) return NOISE;  // no such class; of B5 62 B5 62 the second is the start
    if (at->seen == 6) {
        at->whole = (uint16_t)(u2(p - 2) + 8);
        if (u2(p - 2) > RECEIVER_LONGEST) return RECEIVER_TOO_LONG;
    }
    if (at->whole == 0 || at->seen + 2u <= at->whole) {
        at->sum = fletcher(at->sum, c);
        return MORE;
    }
    if (at->seen < at->whole) return MORE;
    return p[-2] == (at->sum & 0xFFu) && c == (at->sum >> 16 & 0xFFu) ? SOUND : RECEIVER_BAD_CHECKSUM;
}

// CRC-24Q, four bits at a time.
static uint32_t crc24q(uint32_t crc, uint8_t c) {
    static const uint32_t table[16] = {
        0x000000, 0x864CFB, 0x8AD50D, 0x0C99F6, 0x93E6E1, 0x15AA1A, 0x1933EC, 0x9F7F17,
        0xA18139, 0x27CDC2, 0x2B5434, 0xAD18CF, 0x3267D8, 0xB42B23, 0xB8B2D5, 0x3EFE2E,
    };
    crc = crc << 4 ^ table[(crc >> 20 ^ c >> 4) & 15u];
    return crc << 4 ^ table[(crc >> 20 ^ c) & 15u];
}

static uint32_t step_rtcm(receiver_start* at, const uint8_t* p) {
    at->sum = crc24q(at->sum, p[-1]);
    if (at->seen == 2) return p[-1] & 0xFCu ? NOISE : MORE;  // six reserved bits
    if (at->seen == 3) at->whole = (uint16_t)(((uint32_t)p[-2] << 8 | p[-1]) + 6);
    if (at->seen == 5 && at->whole >= 8) {
        // A message number that there is: ten bits of a first byte are soon met by chance.
        const uint32_t number = (uint32_t)p[-2] << 4 | p[-1] >> 4;
        at->likely = (number > 1000 && number < 1305) || number > 4000;
    }
    if (at->seen != at->whole) return MORE;
    // With its own checksum behind it, the sum of the whole is 0.
    if ((at->sum & 0xFFFFFFu) == 0) return SOUND;
    return at->likely ? RECEIVER_BAD_CHECKSUM : NOISE;
}

enum { ADDRESS = 0, BODY = 1, LINE_END = 2 };  // of a sentence, in whole

// The address of a sentence has ended at its first comma: 1: it looks like one; 2: of a kind that is read,
// whoever talks, but nobody's own ($P...).
static uint8_t judge_address(const receiver_start* at, const uint8_t* p) {
    if (at->seen < 5) return 0;
    const uint32_t name = (uint32_t)p[-4] << 16 | (uint32_t)p[-3] << 8 | p[-2];
    const int read = name == 0x524D43 || name == 0x5A4441 || name == 0x474741;  // RMC, ZDA, GGA
    return at->seen == 7 && p[-6] != 'P' && read ? 2 : 1;
}

static uint32_t step_nmea(receiver_start* at, const uint8_t* p) {
    const uint8_t c = p[-1];
    const uint32_t broken = at->likely ? RECEIVER_CUT_SHORT : NOISE;
    if (c == '\n' || c == '\r') {
        if (at->whole != LINE_END) {
            uint32_t result = at->likely ? RECEIVER_NO_CHECKSUM : NOISE;
            if (at->star == 3 && hex(p[-3]) >= 0 && hex(p[-2]) >= 0)
                result = hex(p[-3]) * 16 + hex(p[-2]) == at->star_sum ? SOUND : RECEIVER_BAD_CHECKSUM;
            at->star_sum = (uint8_t)result;
            at->whole = LINE_END;
        }
        if (c == '\n') return at->star_sum;
    } else {
        if (at->whole == LINE_END || c < 0x20 || c > 0x7E || c == '$') return broken;
        if (at->whole == ADDRESS && !capital(c) && digit(c) < 0) {
            at->whole = BODY;
            at->likely = c == ',' ? judge_address(at, p) : 0;
        }
        if (c == '*') {
            at->star = 1;
            at->star_sum = (uint8_t)at->sum;
        } else if (at->star > 0 && at->star < 4) {
            ++at->star;
        }
        at->sum ^= c;
    }
    if (at->seen < RECEIVER_LONGEST) return MORE;
    return at->likely ? RECEIVER_TOO_LONG : NOISE;
}

static uint32_t step(receiver_start* at, const uint8_t* p) {
    ++at->seen;
    if (at->first == 0xB5) return step_ubx(at, p);
    return at->first == '$' ? step_nmea(at, p) : step_rtcm(at, p);
}

// The starts that are followed: each lies within the one before it.

// Counts of what lies within start i; those of -1 are the ones that everybody sees.
static void count(receiver* self, int32_t i, uint32_t what, uint32_t many) {
    if (i < 0) {
        if (what == RECEIVER_SKIPPED)
            self->taken += many;
        else
            self->counts[what] += many;
        return;
    }
    if (many == 0) return;
    self->tallied = 1;
    const uint32_t level = (uint32_t)i < RECEIVER_TALLIES ? (uint32_t)i : RECEIVER_TALLIES - 1;
    self->tallies[level][what] = (uint16_t)(self->tallies[level][what] + many);
}

// What lies within start i, which was none, lies within the one before it now, or is free.
static void shift_tallies(receiver* self, uint32_t i) {
    for (uint32_t k = 0; k < RECEIVER_COUNTS; ++k) {
        count(self, (int32_t)i - 1, k, self->tallies[i][k]);
        for (uint32_t j = i; j + 1 < RECEIVER_TALLIES; ++j) self->tallies[j][k] = self->tallies[j + 1][k];
        self->tallies[RECEIVER_TALLIES - 1][k] = 0;
    }
}

static void forget_tallies(receiver* self, uint32_t from) {
    for (uint32_t i = from; i < RECEIVER_TALLIES; ++i)
        for (uint32_t k = 0; k < RECEIVER_COUNTS; ++k) self->tallies[i][k] = 0;
    if (from == 0) self->tallied = 0;
}

static void fail(receiver* self, uint32_t i, uint32_t reason) {
    if (self->tallied && i < RECEIVER_TALLIES) shift_tallies(self, i);
    if (reason != NOISE) count(self, (int32_t)i - 1, reason, 1);
    --self->depth;
    for (uint32_t k = i; k < self->depth; ++k) self->starts[k] = self->starts[k + 1];
    for (uint32_t k = 0; k < self->items; ++k)
        if (self->waiting[k].inside >= (int32_t)i) --self->waiting[k].inside;
    if (self->depth == 0) self->tallied = 0;
}

// Bytes of no message, but for those of which it is still open.
static void count_skipped(receiver* self) {
    self->skipped = self->total - self->taken - (self->depth > 0 ? self->starts[0].seen : 0);
}

static void read_message(receiver* self, const receiver_start* at) {
    receiver_item item = {.inside = (int8_t)((int32_t)self->depth - 1)};
    const uint8_t* p = self->bytes + self->used - at->seen;
    uint32_t reason = 0;
    if (at->first == 0xB5 && at->seen <= RECEIVER_READ)
        reason = read_ubx(&item, p, at->seen);
    else if (at->first == '$' && at->likely == 2)
        reason = at->seen <= RECEIVER_READ ? read_nmea(&item, p, at->seen) : RECEIVER_TOO_LONG;
    if (reason == 0 && item.kind == RECEIVER_NONE && item.says == 0) return;
    item.reason = (uint8_t)reason;
    if (reason == RECEIVER_BAD_VALUE) item.says = 0;  // nothing of it is believed
    if (self->items == RECEIVER_WAITING) {
        ++self->no_room;
        --self->items;
        for (uint32_t k = 0; k < self->items; ++k) self->waiting[k] = self->waiting[k + 1];
    }
    self->waiting[self->items++] = item;
}

// Start i was a sound message: what began within it is nothing.
static void succeed(receiver* self, uint32_t i) {
    const receiver_start at = self->starts[i];
    self->depth = i;
    if (self->tallied) forget_tallies(self, i);
    while (self->items > 0 && self->waiting[self->items - 1].inside >= (int32_t)i) --self->items;
    const uint32_t what = at.first == 0xB5  ? RECEIVER_GOOD_UBX
                          : at.first == '$' ? RECEIVER_GOOD_NMEA
                                            : RECEIVER_GOOD_RTCM;
    count(self, (int32_t)i - 1, what, 1);
    count(self, (int32_t)i - 1, RECEIVER_SKIPPED, at.seen);  // bytes that are not skipped
    read_message(self, &at);
}

static void begin(receiver* self, uint8_t first) {
    if (self->blind > 0) return;
    if (self->depth == RECEIVER_STARTS) {
        ++self->no_room;
        self->blind = RECEIVER_LONGEST + 8;
        return;
    }
    self->starts[self->depth++] =
        (receiver_start){.first = first, .seen = 1, .sum = first == 0xD3 ? crc24q(0, first) : 0};
}

void receiver_init(receiver* self) {
    // What lies behind is read only where it was written.
    for (uint32_t i = 0; i < offsetof(receiver, bytes); ++i) ((uint8_t*)self)[i] = 0;
}

// A message that waits for nothing any more; says what it was.
static uint32_t take(receiver* self, const receiver_item* item) {
    uint32_t reason = item->reason;
    if (item->says & SAYS_FIX) self->no_fix = 0;
    if (item->says & SAYS_NO_FIX) self->no_fix = 1;
    if ((item->says & SAYS_NOTHING_OF_FIX) && self->no_fix) reason = RECEIVER_NOT_VALID;
    if (reason != 0) ++self->counts[reason];
    switch (item->kind) {
        case RECEIVER_PVT:
            self->pvt = item->of.pvt;
            return RECEIVER_PVT;
        case RECEIVER_TP:
            self->tp = item->of.tp;
            return RECEIVER_TP;
        case RECEIVER_LEAP:
            if (item->says & SAYS_TIMELS)
                self->timels = 1;
            else if (self->timels)
                return RECEIVER_NONE;
            self->leap = item->of.leap;
            return RECEIVER_LEAP;
        case RECEIVER_UTC:
            if (reason != 0) return RECEIVER_NONE;
            self->utc = item->of.utc;
            return RECEIVER_UTC;
        default:
            return RECEIVER_NONE;
    }
}

uint32_t receiver_next(receiver* self) {
    uint32_t kind = RECEIVER_NONE;
    while (kind == RECEIVER_NONE && self->items > 0 && self->waiting[0].inside < 0) {
        kind = take(self, &self->waiting[0]);
        --self->items;
        for (uint32_t k = 0; k < self->items; ++k) self->waiting[k] = self->waiting[k + 1];
    }
    return kind;
}

// Bytes of which nothing begins or ends: most of them, so they are not held up.
static uint32_t passes(receiver* self, uint8_t c) {
    if (self->depth != 1 || c == 0xB5 || c == '$' || c == 0xD3) return 0;
    receiver_start* at = &self->starts[0];
    if (at->first == 0xB5) {
        if (at->seen < 6 || at->seen + 3u > at->whole) return 0;
        at->sum = fletcher(at->sum, c);
    } else if (at->first == '$') {
        if (at->whole != BODY || at->star != 0 || c < 0x20 || c > 0x7E || c == '*') return 0;
        if (at->seen + 1u >= RECEIVER_LONGEST) return 0;
        at->sum ^= c;
    } else {
        if (at->seen < 5 || at->seen + 1u >= at->whole) return 0;
        at->sum = crc24q(at->sum, c);
    }
    ++at->seen;
    return 1;
}

static void follow(receiver* self, uint8_t c) {
    uint32_t sound = 0;
    for (uint32_t i = 0; i < self->depth && !sound;) {
        const uint32_t result = step(&self->starts[i], self->bytes + self->used);
        if (result == MORE) {
            ++i;
        } else if (result == SOUND) {
            succeed(self, i);
            sound = 1;
        } else {
            fail(self, i, result);
        }
    }
    if (!sound && (c == 0xB5 || c == '$' || c == 0xD3)) begin(self, c);
    count_skipped(self);
}

uint32_t receiver_byte(receiver* self, uint8_t byte) {
    if (self->used == RECEIVER_ROOM) {
        const uint32_t gone = RECEIVER_ROOM - RECEIVER_READ;
        for (uint32_t i = gone; i < RECEIVER_ROOM; ++i) self->bytes[i - gone] = self->bytes[i];
        self->used = RECEIVER_READ;
    }
    self->bytes[self->used++] = byte;
    ++self->total;
    if (self->blind > 0) --self->blind;
    if (!passes(self, byte)) follow(self, byte);
    return self->items > 0 ? receiver_next(self) : RECEIVER_NONE;
}

uint32_t receiver_silence(receiver* self) {
    while (self->depth > 0) fail(self, 0, self->starts[0].likely ? RECEIVER_CUT_SHORT : NOISE);
    self->blind = 0;
    count_skipped(self);
    return receiver_next(self);
}

void receiver_pulse(receiver* self) {
    for (uint32_t k = 0; k < self->items; ++k) {
        receiver_item* item = &self->waiting[k];
        if (item->inside < 0 || item->kind == RECEIVER_NONE || item->kind == RECEIVER_LEAP) continue;
        item->kind = RECEIVER_NONE;
        item->reason = RECEIVER_NO_ROOM;
    }
}
