// SPDX-License-Identifier: Apache-2.0
#include "fixed.h"

typedef struct {
    uint64_t high, low;
} wide;

static wide multiply(uint64_t a, uint64_t b) {
    if ((a | b) >> 32 == 0) return (wide){0, a * b};
    const uint64_t a0 = (uint32_t)a, a1 = a >> 32, b0 = (uint32_t)b, b1 = b >> 32;
    const uint64_t low = a0 * b0, cross = a1 * b0 + (low >> 32), other = a0 * b1 + (uint32_t)cross;
    return (wide){a1 * b1 + (cross >> 32) + (other >> 32), other << 32 | (uint32_t)low};
}

// Not inline, so that the quotient is worked out once: with its remainder beside it a compiler calls for
// both.
static __attribute__((noinline)) uint64_t quotient_of(uint64_t a, uint32_t b) {
    return a / b;
}

// value / divisor, for value.high < divisor: two digits of 32 bits (Knuth, TAOCP 2, 4.3.1, algorithm D). A
// bit at a time takes the soft core eight times as long.
static uint64_t divide(wide value, uint64_t divisor) {
    uint64_t rest = value.high, low = value.low, quotient = 0;
    const uint32_t high = (uint32_t)(divisor >> 32);
    const int shift = high != 0 ? __builtin_clz(high) : 32 + __builtin_clz((uint32_t)divisor);
    if (shift > 0) {
        divisor <<= shift;
        rest = rest << shift | low >> (64 - shift);
        low <<= shift;
    }
    const uint32_t top = (uint32_t)(divisor >> 32), bottom = (uint32_t)divisor;
    for (int digit = 0; digit < 2; digit++) {
        const uint64_t next = low >> 32;
        uint64_t guess = quotient_of(rest, top), left = rest - guess * top;
        // By two too large at most.
        while (guess >> 32 != 0 || guess * bottom > (left << 32 | next)) {
            guess--;
            left += top;
            if (left >> 32 != 0) break;
        }
        rest = (rest << 32 | next) - guess * divisor;
        quotient = quotient << 32 | guess;
        low <<= 32;
    }
    return quotient;
}

static __attribute__((noinline)) int64_t with_sign(uint64_t magnitude, bool negative, bool* saturated) {
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

int64_t fixed_mul(int64_t a, int64_t b, bool* saturated) {
    const wide product = multiply(fixed_magnitude(a), fixed_magnitude(b));
    return with_sign(product.high == 0 ? product.low : UINT64_MAX, (a < 0) != (b < 0), saturated);
}

int64_t fixed_mul_div(int64_t a, int64_t b, int64_t c, bool* saturated) {
    const bool negative = (a < 0) != (b < 0);
    const uint64_t divisor = (uint64_t)c;
    wide product = multiply(fixed_magnitude(a), fixed_magnitude(b));
    product.low += divisor / 2;
    product.high += product.low < divisor / 2;
    if (product.high == 0) return with_sign(product.low / divisor, negative, saturated);
    if (product.high >= divisor) return with_sign(UINT64_MAX, negative, saturated);
    return with_sign(divide(product, divisor), negative, saturated);
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

// Root of a number of 32 bits, with what is left: a digit at a time.
static uint32_t small_sqrt(uint32_t a, uint32_t* left) {
    uint32_t root = 0, bit = a == 0 ? 0 : UINT32_C(1) << ((31 - __builtin_clz(a)) & ~1);
    for (; bit != 0; bit >>= 2) {
        if (a >= root + bit) {
            a -= root + bit;
            root = (root >> 1) + bit;
        } else {
            root >>= 1;
        }
    }
    *left = a;
    return root;
}

// Of more: the upper half's root, and the other digits by one division (Zimmermann, Karatsuba Square Root,
// 1999).
uint32_t fixed_sqrt(uint64_t a) {
    uint32_t left;
    if (a >> 32 == 0) return small_sqrt((uint32_t)a, &left);
    const int shift = __builtin_clz((uint32_t)(a >> 32)) & ~1;
    a <<= shift;
    const uint32_t upper = small_sqrt((uint32_t)(a >> 32), &left), low = (uint32_t)a;
    // By twice the upper half, so that 32 bits do: left is that at most.
    const uint32_t part = left << 15 | low >> 17, guess = part / upper;
    const uint32_t rest = 2 * (part % upper) + (low >> 16 & 1);
    uint64_t root = ((uint64_t)upper << 16) + guess;
    if (((uint64_t)rest << 16 | (low & 0xFFFF)) < (uint64_t)guess * guess) root--;
    return (uint32_t)(root >> (shift / 2));
}
