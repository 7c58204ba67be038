// SPDX-License-Identifier: Apache-2.0
#include "second.h"

#define GPS_EPOCH_TAI_S UINT64_C(315964819)  // 1980-01-06T00:00:19 TAI, 1970 TAI being 0
// Receivers whose week has ten bits, or whose firmware is older than two rollovers, say a week of the past:
// no pulse is before this week (2025-01-05).
#define FIRST_WEEK 2348u
// Its first second of UTC: dates go back with the weeks.
#define FIRST_UTC_S (GPS_EPOCH_TAI_S - 19 + (uint64_t)FIRST_WEEK * 604800u - 18)
// IERS Bulletin C 72: no leap second at the end of 2026; leap-seconds.list then expires 2027-06-28.
#define TABLE_FROM_S UINT64_C(1483228837)  // 2017-01-01
static const second_offset table = {.offset_s = 37, .until_s = UINT64_C(1814140837)};
#define DAY_S 86400u
// IERS announces a leap second eight weeks ahead at least: so long holds what satellites said.
#define RECEIVED_S (56u * DAY_S)

// Days since 1970-01-01 of the proleptic Gregorian calendar (Hinnant, days_from_civil).
static int64_t days_of(const receiver_utc* utc) {
    const int32_t month = utc->month;
    const int32_t year = (int32_t)utc->year - (month <= 2 ? 1 : 0);
    const int32_t era = year / 400, of_era = year - era * 400;
    const int32_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + (int32_t)utc->day - 1;
    return (int64_t)era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static uint64_t seconds_of(const receiver_utc* utc) {
    uint64_t utc_s = (uint64_t)days_of(utc) * 86400u + (uint64_t)utc->hour * 3600u +
                     (uint64_t)utc->minute * 60u + utc->second;
    while (utc_s < FIRST_UTC_S + (utc->second == 60)) utc_s += UINT64_C(1024) * 604800u;
    return utc_s;
}

static uint64_t tai_of_gps(uint32_t week, uint32_t tow_s) {
    while (week < FIRST_WEEK) week += 1024u;
    return GPS_EPOCH_TAI_S + (uint64_t)week * 604800u + tow_s;
}

static int32_t offset_at_tai(const second_offset* of, uint64_t tai_s) {
    return of->offset_s + (of->leap_s != 0 && tai_s >= of->leap_tai_s ? of->leap_s : 0);
}

// What counts at a second of TAI, and who says so; 0: nobody knows.
static const second_offset* chosen(const second* self, uint64_t tai_s, uint32_t* source) {
    if (tai_s < self->received.until_s) {
        *source = SECOND_SATELLITES;
        return &self->received;
    }
    if (tai_s < self->told.until_s) {
        *source = SECOND_HOST;
        return &self->told;
    }
    if (tai_s >= TABLE_FROM_S && tai_s < table.until_s) {
        *source = SECOND_TABLE;
        return &table;
    }
    *source = SECOND_NOBODY;
    return 0;
}

// TAI of a second of UTC, counted without leap seconds; in_leap: it is a 23:59:60. 0: unknown.
static uint32_t tai_of_utc(const second* self, uint64_t utc_s, uint32_t in_leap, uint64_t* tai_s) {
    uint32_t source;
    const second_offset* of = chosen(self, utc_s + 37u, &source);
    int32_t offset_s;
    // What the receiver says now, until a leap second is announced; it is dated once a second has its name.
    const uint32_t fresh = self->received.until_s == 0 || (self->new_leap && self->received.leap_s == 0);
    if (self->has_leap && self->leap.known && fresh) {
        offset_s = self->leap.gps_utc_s + 19;
    } else if (of != 0) {
        // 23:59:60 counts as the next day's first second, with the offset of the day that it ends.
        const uint64_t midnight_s = of->leap_tai_s - (uint64_t)(int64_t)(of->offset_s + of->leap_s);
        const uint32_t after = of->leap_s != 0 && utc_s >= midnight_s && !in_leap;
        offset_s = of->offset_s + (after ? of->leap_s : 0);
    } else {
        return 0;
    }
    *tai_s = utc_s + (uint64_t)(int64_t)offset_s;
    return 1;
}

static uint32_t tai_of_civil(const second* self, const receiver_utc* utc, uint64_t* tai_s) {
    return tai_of_utc(self, seconds_of(utc), utc->second == 60, tai_s);
}

// Satellites say that TAI - UTC is offset_s at a second of TAI. leap_s, leap_tai_s: the leap second to come;
// announces: they would name one (else leap_s is 0 whatever comes).
static void learn(second* self, uint64_t tai_s, int32_t offset_s, uint32_t announces, int32_t leap_s,
                  uint64_t leap_tai_s) {
    second_offset* of = &self->received;
    const uint32_t first = of->until_s == 0;
    of->until_s = tai_s + RECEIVED_S;
    // Right behind a leap second that was announced, a late word still names the offset before it.
    if (!first && of->leap_s != 0 && tai_s >= of->leap_tai_s && tai_s - of->leap_tai_s < 60u) return;
    const int32_t difference_s = first ? 0 : offset_s - offset_at_tai(of, tai_s);
    const uint32_t into_day_s = ((uint32_t)tai_s - (uint32_t)offset_s) % DAY_S;
    if (leap_s != 0 && leap_tai_s > tai_s) {
        of->offset_s = offset_s;
        of->leap_s = leap_s;
        of->leap_tai_s = leap_tai_s;
    } else if ((difference_s == 1 || difference_s == -1) && into_day_s < 60u) {  // it came unannounced
        of->offset_s = offset_s - difference_s;
        of->leap_s = difference_s;
        of->leap_tai_s = tai_s - into_day_s;
    } else if (first || difference_s != 0 || (announces && tai_s < of->leap_tai_s)) {
        of->offset_s = offset_s;
        of->leap_s = 0;
        of->leap_tai_s = 0;
    }
}

// NAV-TIMELS that came around second tai_s.
static void learn_from_message(second* self, uint64_t tai_s) {
    const receiver_leap* leap = &self->leap;
    if (!leap->known) return;
    // The second it speaks of, by its time of week: it may be late.
    int32_t ahead_s =
        (int32_t)(leap->tow_ms / 1000u) - (int32_t)(((uint32_t)tai_s - (uint32_t)GPS_EPOCH_TAI_S) % 604800u);
    if (ahead_s > 302400) ahead_s -= 604800;
    if (ahead_s < -302400) ahead_s += 604800;
    if (ahead_s > 5 || ahead_s < -5) return;
    const uint64_t at_s = tai_s + (uint64_t)(int64_t)ahead_s;
    const int32_t offset_s = leap->gps_utc_s + 19;
    int32_t change_s = leap->change_known ? leap->change_s : 0;
    uint64_t leap_tai_s = 0;
    if (change_s != 0) {
        // It ends a day of UTC, whatever second of it the receiver counts to.
        const uint32_t after_s = (uint32_t)(offset_s + change_s);
        const uint32_t event_s = (uint32_t)at_s + (uint32_t)leap->event_s - after_s;
        const uint32_t day = (event_s + DAY_S / 2u) / DAY_S;
        const int32_t off_s = (int32_t)(event_s - day * DAY_S);
        if (off_s >= -2 && off_s <= 2)
            leap_tai_s = (uint64_t)day * DAY_S + after_s;
        else
            change_s = 0;
    }
    learn(self, at_s, offset_s, leap->change_known, change_s, leap_tai_s);
}

void second_init(second* self) {
    *self = (second){0};
    self->published.offset_s = table.offset_s;  // a guess, as after reset
}

static void heard_fix(second* self, uint8_t kind, uint32_t fixed, uint64_t now_q32) {
    if (kind < self->voucher) return;
    self->voucher = kind;
    if (!fixed) return;
    self->fix_q32 = now_q32;
    self->heard_fix = 1;
}

void second_message(second* self, const receiver* from, uint32_t kind, uint64_t now_q32) {
    switch (kind) {
        case RECEIVER_TP:
            self->heard_tp[1] = self->heard_tp[0];
            self->tp_q32[1] = self->tp_q32[0];
            self->heard_tp[0] = from->tp;
            self->tp_q32[0] = now_q32;
            if (self->heard_tps < 2) ++self->heard_tps;
            if (self->voucher < VOUCHER_TP) self->voucher = VOUCHER_TP;
            break;
        case RECEIVER_PVT:
            self->pvt = from->pvt;
            self->pvt_q32 = now_q32;
            self->heard_pvt = 1;
            heard_fix(self, VOUCHER_PVT, from->pvt.fixed, now_q32);
            break;
        case RECEIVER_UTC:
            self->utc = from->utc;
            self->utc_q32 = now_q32;
            self->heard_utc = 1;
            heard_fix(self, VOUCHER_UTC, 1, now_q32);
            break;
        case RECEIVER_LEAP:
            self->leap = from->leap;
            self->has_leap = self->new_leap = 1;
            break;
        default:
            break;
    }
}

static uint32_t behind(uint64_t heard_q32, uint64_t pulse_q32) {
    return heard_q32 - pulse_q32 < SECOND_Q32;
}

// TIM-TP of a pulse at pulse_q32; 0: none. It is sent up to a second before its pulse.
static const receiver_tp* tp_of(const second* self, uint64_t pulse_q32) {
    for (uint32_t i = 0; i < self->heard_tps; ++i) {
        const uint64_t before_q32 = pulse_q32 - self->tp_q32[i];
        if (before_q32 != 0 && before_q32 < SECOND_Q32 + SECOND_Q32 / 8) return &self->heard_tp[i];
    }
    return 0;
}

void second_pulse(second* self, uint64_t pulse_q32) {
    self->pulse_q32 = pulse_q32;
}

uint32_t second_complete(const second* self, uint64_t pulse_q32) {
    if (self->heard_pvt && behind(self->pvt_q32, pulse_q32)) return 1;
    return self->heard_utc && behind(self->utc_q32, pulse_q32) && tp_of(self, pulse_q32) == 0;
}

uint32_t second_vouched(const second* self, uint64_t begin_q32) {
    if (self->voucher == VOUCHER_TP) {
        const receiver_tp* tp = tp_of(self, begin_q32);
        return tp && tp->qerr_valid ? SECOND_FIX : 0;
    }
    if (!self->heard_fix) return 0;
    if (behind(self->fix_q32, begin_q32)) return SECOND_FIX;
    return begin_q32 - self->fix_q32 <= SECOND_Q32 ? SECOND_FIX_BEFORE : 0;
}

void second_missed(second* self) {
    self->heard_pvt = self->heard_utc = 0;
}

void second_forget(second* self) {
    self->heard_tps = self->heard_pvt = self->heard_utc = self->heard_fix = 0;
    self->voucher = VOUCHER_NONE;
    self->agreed = 0;
}

void second_shift(second* self, uint64_t delta_q32) {
    self->pulse_q32 += delta_q32;
    self->tp_q32[0] += delta_q32;
    self->tp_q32[1] += delta_q32;
    self->pvt_q32 += delta_q32;
    self->utc_q32 += delta_q32;
    self->fix_q32 += delta_q32;
    self->candidate_q32 += delta_q32;
}

uint32_t second_tell(second* self, int32_t offset_s, uint64_t until_s) {
    if (offset_s < 30 || offset_s > 60) return 0;
    self->told = (second_offset){.offset_s = offset_s, .until_s = until_s};
    return 1;
}

uint32_t second_tell_leap(second* self, int32_t change_s, uint64_t leap_tai_s) {
    if (change_s < -1 || change_s > 1 || leap_tai_s > UINT32_MAX) return 0;
    // It ends a day of UTC.
    const uint32_t after_s = (uint32_t)(self->told.offset_s + change_s);
    if (change_s != 0 && ((uint32_t)leap_tai_s - after_s) % DAY_S != 0) return 0;
    self->told.leap_s = change_s;
    self->told.leap_tai_s = change_s != 0 ? leap_tai_s : 0;
    return 1;
}

void second_publish(second* self, uint64_t tai_s) {
    if (tai_s != 0) {
        self->tai_s = tai_s;
        if (self->new_leap) learn_from_message(self, tai_s);
        self->new_leap = 0;
    }
    const second_offset* of = chosen(self, self->tai_s, &self->source);
    if (of != 0) self->published = *of;
}

void second_name(second* self, second_name_t* out) {
    *out = (second_name_t){0};
    const receiver_tp* tp = tp_of(self, self->pulse_q32);
    self->has_tp = tp != 0;
    if (tp) self->tp = *tp;
    self->has_pvt = self->heard_pvt && behind(self->pvt_q32, self->pulse_q32);
    self->has_utc = self->heard_utc && behind(self->utc_q32, self->pulse_q32);
    uint64_t tai_s = 0;
    uint32_t named = 0, needed = 2;
    const uint32_t fixed = self->has_pvt && self->pvt.fixed;
    // A receiver that has lost its satellites goes on naming pulses: only its PVT tells.
    const uint32_t usable = self->has_tp && (!self->has_pvt || fixed);
    if (usable && self->tp.gps) {
        tai_s = tai_of_gps(self->tp.week, self->tp.tow_s);
        named = 1;
    } else if (usable && self->tp.utc_base && self->tp.utc_known) {
        named = tai_of_utc(self, tai_of_gps(self->tp.week, self->tp.tow_s) - 19, 0, &tai_s);
    } else if (fixed && self->pvt.resolved) {
        named = tai_of_civil(self, &self->pvt.utc, &tai_s);
    } else if (!self->has_pvt && self->has_utc) {
        named = tai_of_civil(self, &self->utc, &tai_s);
        needed = 3;
    }
    if (second_vouched(self, self->pulse_q32) == 0) named = 0;
    if (named) {
        const uint64_t passed_q32 = self->pulse_q32 - self->candidate_q32;
        const uint64_t passed_s = (passed_q32 + SECOND_Q32 / 2) >> 32;
        if (self->agreed != 0 && tai_s - self->candidate_s == passed_s) {
            if (self->agreed < needed) ++self->agreed;
        } else {
            self->agreed = 1;
        }
        self->candidate_s = tai_s;
        self->candidate_q32 = self->pulse_q32;
        if (self->agreed >= needed) {
            out->flags |= SECOND_TAI;
            out->tai_s = tai_s;
        }
    }
    if (usable && self->tp.qerr_valid) {
        out->flags |= SECOND_QERR;
        out->qerr_ps = self->tp.qerr_ps;
    }
    if (fixed && self->pvt.accuracy_ns != 0xFFFFFFFFu) {
        out->flags |= SECOND_ACCURACY;
        out->accuracy_ns = self->pvt.accuracy_ns;
    }
    if (self->has_tp || self->has_pvt || self->has_utc) out->flags |= SECOND_MESSAGE;
    // A receiver without NAV-TIMELS tells TAI - UTC by both names of a pulse.
    if ((out->flags & SECOND_TAI) && usable && self->tp.gps && fixed && self->pvt.resolved &&
        !(self->has_leap && self->leap.known)) {
        const uint64_t offset_s = tai_s - seconds_of(&self->pvt.utc);
        if (offset_s >= 30 && offset_s <= 60) learn(self, tai_s, (int32_t)offset_s, 0, 0, 0);
    }
}
