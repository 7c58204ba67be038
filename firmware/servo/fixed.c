// SPDX-License-Identifier: Apache-2.0
#include "fixed.h"

typedef struct {
    uint64_t high, low;
} wide;

static wide multiply(uint64_t a, uint64_t b) {
    const uint64_t a0 = (uint32_t)a, a1 = a >> 32, b0 = (uint32_t)b, b1 = b >> 32;
    const uint64_t low = a0 * b0, cross = a1 * b0 + (low >> 32), other = a0 * b1 + (uint32_t)cross;
    return (wide){a1 * b1 + (cross >> 32) + (other >> 32), other << 32 | (uint32_t)low};
}

static int64_t with_sign(uint64_t magnitude, bool negative, bool* saturated) {
    if (magnitude > (uint64_t)FIXED_MAX) {
        *saturated = true;
        magnitude = (uint64_t)FIXED_MAX;
    }
    return negative ? -(int64_t)magnitude : (int64_t)magnitude;
}

int64_t fixed_add(int64_t a, int64_t b, bool* saturated) {
    if (b > 0 && a > FIXED_MAX - b) {
        *saturated = true;
        return FIXED_MAX;
    }
    if (b < 0 && a < -FIXED_MAX - b) {
        *saturated = true;
        return -FIXED_MAX;
    }
    return a + b;
}

int64_t fixed_sub(int64_t a, int64_t b, bool* saturated) {
    return fixed_add(a, b < -FIXED_MAX ? FIXED_MAX : -b, saturated);
}

int64_t fixed_mul_div(int64_t a, int64_t b, int64_t c, bool* saturated) {
    const bool negative = (a < 0) != (b < 0);
    const uint64_t divisor = (uint64_t)c;
    wide product = multiply(fixed_magnitude(a), fixed_magnitude(b));
    product.low += divisor / 2;
    product.high += product.low < divisor / 2;
    if (product.high == 0) return with_sign(product.low / divisor, negative, saturated);
    if (product.high >= divisor) return with_sign(UINT64_MAX, negative, saturated);
    uint64_t rest = product.high, quotient = product.low;
    for (int bit = 0; bit < 64; bit++) {  // rest < divisor < 2^63: doubling fits
        rest = rest << 1 | quotient >> 63;
        quotient <<= 1;
        if (rest >= divisor) {
            rest -= divisor;
            quotient |= 1;
        }
    }
    return with_sign(quotient, negative, saturated);
}

int64_t fixed_mul_shift(int64_t a, int64_t b, unsigned shift, bool* saturated) {
    const bool negative = (a < 0) != (b < 0);
    wide product = multiply(fixed_magnitude(a), fixed_magnitude(b));
    const uint64_t half = UINT64_C(1) << (shift - 1);
    product.low += half;
    product.high += product.low < half;
    if (product.high >> shift) return with_sign(UINT64_MAX, negative, saturated);
    return with_sign(product.high << (64 - shift) | product.low >> shift, negative, saturated);
}

uint32_t fixed_sqrt(uint64_t a) {
    uint64_t root = 0, bit = UINT64_C(1) << 62;
    while (bit > a) bit >>= 2;
    for (; bit != 0; bit >>= 2) {
        if (a >= root + bit) {
            a -= root + bit;
            root = (root >> 1) + bit;
        } else {
            root >>= 1;
        }
    }
    return (uint32_t)root;
}
