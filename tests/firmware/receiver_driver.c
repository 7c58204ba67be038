// SPDX-License-Identifier: Apache-2.0
// firmware/drivers/receiver.c and second.c on the host, with sanitizers, for tests/firmware/test_receiver.py.
// Lines on standard input, answers on standard output:
//   B HEX       bytes into the parser; prints each message that comes out
//   P Q32       a pulse at card time Q32 (decimal)
//   H Q32       what follows is heard at card time Q32
//   V Q32       whether a message with a fix was heard for the second that begins at Q32: 1, before: 2, no: 0
//   Z           forgets what was heard
//   N           names the last pulse: flags tai_s qerr_ps accuracy_ns, and TAI - UTC at it: s, 1 where known
//   U TAI_S     what is published at a second of card time: offset_s leap_s leap_tai_s until_s source
//   M           a second without a pulse
//   T S UNTIL   TAI - UTC told by the host
//   L S TAI_S   the leap second to come, told by the host
//   S           the line is silent; prints each message that waited for that
//   R           begins anew
//   C           counters (RECEIVER_* order), then how many starts were followed at a time at the most
//   F SEED N    fuzz: N rounds of random damage to the bytes of all B lines so far; prints messages taken
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "receiver.h"
#include "second.h"

static receiver gps;
static second names;
static uint64_t now_q32;
static uint8_t corpus[1 << 20];
static size_t corpus_bytes;
static uint32_t deepest;

static void show(uint32_t kind) {
    if (kind == RECEIVER_PVT) {
        printf("PVT %u-%02u-%02uT%02u:%02u:%02u tow %u tAcc %u resolved %u fixed %u\n", gps.pvt.utc.year,
               gps.pvt.utc.month, gps.pvt.utc.day, gps.pvt.utc.hour, gps.pvt.utc.minute, gps.pvt.utc.second,
               gps.pvt.tow_ms, gps.pvt.accuracy_ns, gps.pvt.resolved, gps.pvt.fixed);
    } else if (kind == RECEIVER_TP) {
        printf("TP week %u tow %u qErr %d gps %u utc %u qerr_valid %u\n", gps.tp.week, gps.tp.tow_s,
               gps.tp.qerr_ps, gps.tp.gps, gps.tp.utc_base, gps.tp.qerr_valid);
    } else if (kind == RECEIVER_LEAP) {
        printf("LEAP %d change %d in %d known %u\n", gps.leap.gps_utc_s, gps.leap.change_s, gps.leap.event_s,
               gps.leap.known);
    } else if (kind == RECEIVER_UTC) {
        printf("UTC %u-%02u-%02uT%02u:%02u:%02u\n", gps.utc.year, gps.utc.month, gps.utc.day, gps.utc.hour,
               gps.utc.minute, gps.utc.second);
    }
}

static void take(uint32_t kind, int print) {
    while (kind != RECEIVER_NONE) {
        if (print) show(kind);
        second_message(&names, &gps, kind, now_q32);
        kind = receiver_next(&gps);
    }
}

static void bytes(const uint8_t* p, size_t n, int print) {
    for (size_t i = 0; i < n; ++i) {
        take(receiver_byte(&gps, p[i]), print);
        if (gps.depth > deepest) deepest = gps.depth;
    }
}

static uint64_t random_state;
static uint32_t draw(uint32_t below) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)((random_state >> 32) * below >> 32);
}

static void fuzz(uint64_t seed, uint32_t rounds) {
    static uint8_t copy[4096];
    random_state = seed * 0x9E3779B97F4A7C15u + 1;
    for (uint32_t round = 0; round < rounds; ++round) {
        size_t n = 1 + draw(sizeof copy - 1);
        if (n > corpus_bytes) n = corpus_bytes;
        const size_t at = draw((uint32_t)(corpus_bytes - n + 1));
        memcpy(copy, corpus + at, n);
        for (uint32_t damage = draw(12); damage > 0; --damage) {
            const size_t place = draw((uint32_t)n);
            switch (draw(5)) {
                case 0:
                    copy[place] ^= (uint8_t)(1u << draw(8));
                    break;
                case 1:
                    copy[place] = (uint8_t)draw(256);
                    break;
                case 2:
                    memset(copy + place, (int)draw(256), n - place < 40 ? n - place : 40);
                    break;
                case 3:
                    memmove(copy + place, copy + place + 1, n - place - 1);
                    break;  // a byte lost
                default:
                    memcpy(copy + place, draw(2) ? "\xB5\x62\x01\x07\x5C\x00" : "\xD3\x00\x40$GNR",
                           n - place < 6 ? n - place : 6);
                    break;
            }
        }
        bytes(copy, n, 0);
        if (draw(4) == 0) {
            receiver_pulse(&gps);
            second_pulse(&names, now_q32 += SECOND_Q32 + draw(1000));
        }
        if (draw(4) == 0) {
            second_name_t name;
            second_name(&names, &name);
            second_publish(&names, draw(2) ? name.tai_s : 0);
        }
        if (draw(16) == 0) take(receiver_silence(&gps), 0);
        if (gps.used > RECEIVER_ROOM || gps.depth > RECEIVER_STARTS || gps.items > RECEIVER_WAITING) abort();
    }
}

int main(void) {
    static char line[1 << 16];
    receiver_init(&gps);
    second_init(&names);
    while (fgets(line, sizeof line, stdin)) {
        char* rest = line + 1;
        if (line[0] == 'B') {
            static uint8_t data[sizeof line / 2];
            size_t n = 0;
            unsigned value;
            for (rest += *rest == ' '; sscanf(rest, "%2x", &value) == 1; rest += 2)
                data[n++] = (uint8_t)value;
            if (corpus_bytes + n <= sizeof corpus) {
                memcpy(corpus + corpus_bytes, data, n);
                corpus_bytes += n;
            }
            bytes(data, n, 1);
        } else if (line[0] == 'P') {
            now_q32 = strtoull(rest, &rest, 10);
            receiver_pulse(&gps);
            second_pulse(&names, now_q32);
        } else if (line[0] == 'N') {
            second_name_t name;
            second_name(&names, &name);
            second_publish(&names, name.flags & SECOND_TAI ? name.tai_s : 0);
            const second_offset* of = &names.published;
            const int after = of->leap_s != 0 && names.tai_s >= of->leap_tai_s;
            printf("%u %" PRIu64 " %d %u %d %d\n", name.flags, name.tai_s, name.qerr_ps, name.accuracy_ns,
                   of->offset_s + (after ? of->leap_s : 0), names.source != SECOND_NOBODY);
        } else if (line[0] == 'U') {
            second_publish(&names, strtoull(rest, &rest, 10));
            const second_offset* of = &names.published;
            printf("%d %d %" PRIu64 " %" PRIu64 " %u\n", of->offset_s, of->leap_s, of->leap_tai_s,
                   of->until_s, names.source);
        } else if (line[0] == 'H') {
            now_q32 = strtoull(rest, &rest, 10);
        } else if (line[0] == 'V') {
            printf("%u\n", second_vouched(&names, strtoull(rest, &rest, 10)));
        } else if (line[0] == 'Z') {
            second_forget(&names);
        } else if (line[0] == 'M') {
            second_missed(&names);
        } else if (line[0] == 'T') {
            const long offset = strtol(rest, &rest, 10);
            printf("%u\n", second_tell(&names, (int32_t)offset, strtoull(rest, &rest, 10)));
        } else if (line[0] == 'L') {
            const long change = strtol(rest, &rest, 10);
            printf("%u\n", second_tell_leap(&names, (int32_t)change, strtoull(rest, &rest, 10)));
        } else if (line[0] == 'C') {
            for (uint32_t i = 0; i < RECEIVER_COUNTS; ++i) printf("%u ", gps.counts[i]);
            printf("%u\n", deepest);
        } else if (line[0] == 'R') {
            receiver_init(&gps);
            second_init(&names);
            deepest = 0;
        } else if (line[0] == 'S') {
            take(receiver_silence(&gps), 1);
        } else if (line[0] == 'F') {
            const uint64_t seed = strtoull(rest, &rest, 10);
            fuzz(seed, (uint32_t)strtoul(rest, &rest, 10));
            printf("%u %u\n", gps.good_ubx, gps.good_nmea);
        }
        fflush(stdout);
    }
    return 0;
}
