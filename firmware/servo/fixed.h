// SPDX-License-Identifier: Apache-2.0
// 64-bit arithmetic that never overflows: products and quotients through 128 bits made of two words, results
// held at +-FIXED_MAX. *saturated is set where that happened.
#ifndef TWINSTAMP_FIXED_H
#define TWINSTAMP_FIXED_H

#include <stdbool.h>
#include <stdint.h>

#define FIXED_MAX INT64_MAX

// |a|, also for the one number whose negative does not exist.
static inline uint64_t fixed_magnitude(int64_t a) {
    return a < 0 ? ~(uint64_t)a + 1u : (uint64_t)a;
}

int64_t fixed_add(int64_t a, int64_t b, bool* saturated);
int64_t fixed_sub(int64_t a, int64_t b, bool* saturated);
// a * b.
int64_t fixed_mul(int64_t a, int64_t b, bool* saturated);
// a * b / c, rounded to nearest, halves away from zero; c > 0.
int64_t fixed_mul_div(int64_t a, int64_t b, int64_t c, bool* saturated);
// a * b / 2^shift, rounded to nearest, halves up in magnitude; shift 1 to 63.
int64_t fixed_mul_shift(int64_t a, int64_t b, unsigned shift, bool* saturated);
// The largest r with r * r <= a.
uint32_t fixed_sqrt(uint64_t a);

#endif
