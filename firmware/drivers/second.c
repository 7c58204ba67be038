// SPDX-License-Identifier: Apache-2.0
#include "second.h"

#define GPS_EPOCH_TAI_S UINT64_C(315964819)  // 1980-01-06T00:00:19 TAI, 1970 TAI being 0
// Receivers whose week has ten bits, or whose firmware is older than two rollovers, say a week of the past:
// no pulse is before this week (2025-01-05).
#define FIRST_WEEK 2348u
// IERS Bulletin C 70: no leap second until the end of 2025; leap-seconds.list then expires 2026-06-28.
#define TABLE_OFFSET_S 37
#define TABLE_FROM_S UINT64_C(1483228837)   // 2017-01-01
#define TABLE_UNTIL_S UINT64_C(1782604837)  // 2026-06-28

// Days since 1970-01-01 of the proleptic Gregorian calendar (Hinnant, days_from_civil).
static int64_t days_of(const receiver_utc* utc) {
    const int32_t month = utc->month;
    const int32_t year = (int32_t)utc->year - (month <= 2 ? 1 : 0);
    const int32_t era = year / 400, of_era = year - era * 400;
    const int32_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + (int32_t)utc->day - 1;
    return (int64_t)era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static uint64_t seconds_of(const receiver_utc* utc) {
    return (uint64_t)days_of(utc) * 86400u + (uint64_t)utc->hour * 3600u + (uint64_t)utc->minute * 60u +
           utc->second;
}

static uint64_t tai_of_gps(uint32_t week, uint32_t tow_s) {
    while (week < FIRST_WEEK) week += 1024u;
    return GPS_EPOCH_TAI_S + (uint64_t)week * 604800u + tow_s;
}

// TAI - UTC at a second of UTC; 0: unknown.
static uint32_t offset_at(const second* self, uint64_t utc_s, int32_t* offset_s) {
    if (self->has_leap && self->leap.known) {
        *offset_s = self->leap.gps_utc_s + 19;
        return 1;
    }
    if (self->told_until_s != 0 && utc_s + (uint64_t)(int64_t)self->told_s < self->told_until_s) {
        *offset_s = self->told_s;
        return 1;
    }
    if (utc_s + TABLE_OFFSET_S >= TABLE_FROM_S && utc_s + TABLE_OFFSET_S < TABLE_UNTIL_S) {
        *offset_s = TABLE_OFFSET_S;
        return 1;
    }
    return 0;
}

static uint32_t tai_of_utc(const second* self, const receiver_utc* utc, uint64_t* tai_s) {
    const uint64_t utc_s = seconds_of(utc);
    int32_t offset_s = 0;
    if (!offset_at(self, utc_s, &offset_s)) return 0;
    *tai_s = utc_s + (uint64_t)(int64_t)offset_s;
    return 1;
}

void second_init(second* self) {
    *self = (second){0};
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
            self->has_leap = 1;
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
    self->told_s = offset_s;
    self->told_until_s = until_s;
    return 1;
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
        const uint64_t utc_s = tai_of_gps(self->tp.week, self->tp.tow_s) - 19;
        int32_t offset_s = 0;
        if (offset_at(self, utc_s, &offset_s)) {
            tai_s = utc_s + (uint64_t)(int64_t)offset_s;
            named = 1;
        }
    } else if (fixed && self->pvt.resolved) {
        named = tai_of_utc(self, &self->pvt.utc, &tai_s);
    } else if (!self->has_pvt && self->has_utc) {
        named = tai_of_utc(self, &self->utc, &tai_s);
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
    // TAI - UTC: told by somebody, or the difference of both names of this pulse.
    int32_t offset_s = 0;
    if (out->flags & SECOND_TAI) {
        const uint64_t utc_s = fixed && self->pvt.resolved ? seconds_of(&self->pvt.utc) : 0;
        if (offset_at(self, tai_s - 37, &offset_s)) {
            self->offset_s = offset_s;
            self->offset_known = 1;
        } else if (utc_s != 0 && self->tp.gps && usable && tai_s - utc_s >= 30 && tai_s - utc_s <= 60) {
            self->offset_s = (int32_t)(tai_s - utc_s);
            self->offset_known = 1;
        } else {
            self->offset_known = 0;
        }
    }
    out->utc_offset_s = self->offset_s;
    out->utc_known = self->offset_known;
}
