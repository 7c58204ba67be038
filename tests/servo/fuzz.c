// SPDX-License-Identifier: Apache-2.0
// Hostile inputs for the servo, under the sanitizers: fuzz SEED STEPS. Says what went wrong, with status 1;
// the sanitizers stop it otherwise. Inputs are mixtures of what a receiver sends and of anything.
#include <stdio.h>
#include <stdlib.h>

#include "edges.h"
#include "servo.h"

static uint64_t state;

static uint64_t bits(void) {  // splitmix64
    uint64_t z = (state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static uint64_t any(void) {
    const uint64_t word = bits();
    switch (bits() % 6) {
        case 0:
            return 0;
        case 1:
            return UINT64_MAX - word % 3;
        case 2:
            return (UINT64_C(1) << 63) - word % 3;
        case 3:
            return word >> (word % 64);
        default:
            return word;
    }
}

#define CHECK(what)                             \
    if (!(what)) {                              \
        printf("step %ld: not %s\n", i, #what); \
        return 1;                               \
    }

int main(int count, char** words) {
    if (count != 3) return 2;
    state = strtoull(words[1], NULL, 10);
    const long steps = atol(words[2]);
    servo_config config;
    servo_config_default(&config);
    if (bits() % 2) {  // any noise, any limits: refused, or safe
        uint32_t* fields = (uint32_t*)&config;
        for (size_t i = 0; i < sizeof config / sizeof *fields; i++)
            if (bits() % 3 == 0) fields[i] = (uint32_t)any();
    }
    servo_state servo;
    if (servo_init(&servo, &config) != SERVO_OK) servo_config_default(&config);
    if (servo_init(&servo, &config) != SERVO_OK) return 1;
    uint64_t now_q32 = any(), true_q32 = UINT64_C(1800000000) << 32;
    uint32_t moves = (uint32_t)any();
    unsigned hostile = (unsigned)(bits() % 100);  // per cent of the steps
    for (long i = 0; i < steps; i++) {
        const uint64_t second = UINT64_C(1) << 32;
        now_q32 += second;
        true_q32 += second;
        servo_input in = {.now_q32 = now_q32 + second / 5,
                          .pulse_q32 = now_q32 + bits() % 64,
                          .tai_s = true_q32 >> 32,
                          .qerr_ps = (int32_t)(bits() % 16000) - 8000,
                          .accuracy_ns = 5,
                          .flags = SERVO_IN_PULSE | SERVO_IN_TAI | SERVO_IN_QERR,
                          .other_q32 = (int32_t)any(),
                          .moves = moves};
        if (bits() % 100 < hostile) {
            switch (bits() % 11) {
                case 0:
                    in.now_q32 = any();
                    break;
                case 1:
                    in.pulse_q32 = any();
                    break;
                case 2:
                    in.slew_left_q64 = (int64_t)any();
                    break;
                case 3:
                    in.tai_s = any();
                    break;
                case 4:
                    in.qerr_ps = (int32_t)any();
                    break;
                case 5:
                    in.accuracy_ns = (uint32_t)any();
                    break;
                case 6:
                    in.flags = (uint32_t)any();
                    break;
                case 7:
                    in.pulse_q32 += bits() % (second >> bits() % 32);
                    break;
                case 8:
                    in.moves = ++moves;
                    break;
                case 9: {  // any edges, in place of the pulse
                    edges came;
                    const uint64_t expected = any();
                    edges_start(&came, bits() % 2, expected);
                    in.flags &= ~(uint32_t)SERVO_IN_PULSE;
                    for (uint64_t n = bits() % 5; n > 0; n--) edges_take(&came, any());
                    edges_tell(&came, &in);
                    CHECK(came.count < 2 || llabs(came.nearest_q32) <= llabs(came.other_q32));
                    CHECK(((in.flags & SERVO_IN_PULSE) != 0) == (came.count > 0));
                    break;
                }
                default:
                    in.now_q32 = any();
                    in.pulse_q32 = in.now_q32 - bits() % second;
                    in.tai_s = any();
            }
        }
        servo_output out;
        servo_step(&servo, &in, &out);
        if (out.flags & SERVO_OUT_LOAD) now_q32 += (uint64_t)out.load_delta_q32;
        CHECK(out.increment_q72 >= SERVO_LOWEST_Q72 && out.increment_q72 <= SERVO_HIGHEST_Q72);
        CHECK(out.state <= SERVO_FAILED);
        CHECK(((out.flags & SERVO_OUT_LOCKED) != 0) == (out.state == SERVO_LOCKED));
        CHECK(!(out.flags & SERVO_OUT_LOAD) || out.state == SERVO_ACQUIRING);
        CHECK((out.state != SERVO_COLD && out.state != SERVO_FAILED) || out.bound_ns == SERVO_BOUND_UNKNOWN);
        CHECK(out.bound_ns <= config.holdover_bound_ns || out.bound_ns == SERVO_BOUND_UNKNOWN);
        // A slew within the limit, done before the next pulse, can never move time by more.
        const int64_t most_q64 = INT64_C(6456360426) * config.slew_limit_ppb + 1;  // 0.35 s of it, 2^-64 s
        CHECK(out.slew_amount_q64 <= most_q64 && out.slew_amount_q64 >= -most_q64);
        CHECK(out.slew_step_q64 <= (SERVO_NOMINAL_Q72 >> 8) * config.slew_limit_ppb / 1000000000u);
        CHECK(out.state != SERVO_LOCKED || out.bound_ns != SERVO_BOUND_UNKNOWN);
        CHECK(out.state == SERVO_COLD || out.state == SERVO_FAILED || !(out.events & SERVO_EVENT_MOVED));
    }
    return 0;
}
