// SPDX-License-Identifier: Apache-2.0
// Access to the card's registers. A test on the host defines TWINSTAMP_MMIO_TEST and brings its own
// functions.
#ifndef TWINSTAMP_MMIO_H
#define TWINSTAMP_MMIO_H

#include <stdint.h>

#ifdef TWINSTAMP_MMIO_TEST
uint32_t mmio_read(uint32_t offset);
void mmio_write(uint32_t offset, uint32_t value);
void mmio_wait(void);
#else
#define MMIO_REGISTERS 0x40000000u
#define MMIO_WAIT 0x80000000u
static inline uint32_t mmio_read(uint32_t offset) {
    return *(volatile const uint32_t*)(MMIO_REGISTERS + offset);
}
static inline void mmio_write(uint32_t offset, uint32_t value) {
    *(volatile uint32_t*)(MMIO_REGISTERS + offset) = value;
}
// Sleeps until an event is pending.
static inline void mmio_wait(void) {
    (void)*(volatile const uint32_t*)MMIO_WAIT;
}
#endif

// Lower word first: reading it latches both, writing the upper one takes both over.
static inline uint64_t mmio_read64(uint32_t offset) {
    const uint32_t low = mmio_read(offset);
    return (uint64_t)mmio_read(offset + 4) << 32 | low;
}
static inline void mmio_write64(uint32_t offset, uint64_t value) {
    mmio_write(offset, (uint32_t)value);
    mmio_write(offset + 4, (uint32_t)(value >> 32));
}

#endif
