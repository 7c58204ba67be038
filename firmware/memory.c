// SPDX-License-Identifier: Apache-2.0
// What the compiler calls to copy and clear structs. picolibc's go by bytes, which takes the servo a tenth of
// a millisecond a second; these go by words where both ends are at one.
#include <stddef.h>
#include <stdint.h>

void* memcpy(void* to, const void* from, size_t bytes) {
    uint8_t* out = to;
    const uint8_t* in = from;
    if ((((uintptr_t)to | (uintptr_t)from) & 3u) == 0) {
        for (; bytes >= 4; bytes -= 4, out += 4, in += 4)
            *(uint32_t*)(void*)out = *(const uint32_t*)(const void*)in;
    }
    for (; bytes > 0; bytes--) *out++ = *in++;
    return to;
}

void* memset(void* to, int value, size_t bytes) {
    uint8_t* out = to;
    if (((uintptr_t)to & 3u) == 0) {
        const uint32_t word = (uint8_t)value * 0x01010101u;
        for (; bytes >= 4; bytes -= 4, out += 4) *(uint32_t*)(void*)out = word;
    }
    for (; bytes > 0; bytes--) *out++ = (uint8_t)value;
    return to;
}
