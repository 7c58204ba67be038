// SPDX-License-Identifier: Apache-2.0
#include "edges.h"

static int32_t held(int64_t q32) {
    return (int32_t)(q32 > INT32_MAX ? INT32_MAX : q32 < -INT32_MAX ? -INT32_MAX : q32);
}

static int32_t size(int32_t q32) {
    return q32 < 0 ? -q32 : q32;
}

void edges_start(edges* self, uint32_t known, uint64_t expected_q32) {
    *self = (edges){.expected_q32 = expected_q32, .known = known};
}

uint32_t edges_take(edges* self, uint64_t at_q32) {
    if (!self->known) self->expected_q32 = at_q32;
    self->known = 1;
    const int32_t at = held((int64_t)(at_q32 - self->expected_q32));
    const uint32_t before = self->count++;
    const uint32_t nearer = before == 0 || size(at) < size(self->nearest_q32);
    if (nearer) {
        self->other_q32 = self->nearest_q32;
        self->nearest_q32 = at;
    } else if (before == 1 || size(at) < size(self->other_q32)) {
        self->other_q32 = at;
    }
    return nearer;
}

uint64_t edges_nearest(const edges* self) {
    return self->expected_q32 + (uint64_t)(int64_t)self->nearest_q32;
}

void edges_tell(const edges* self, servo_input* in) {
    if (self->count == 0) return;
    in->flags |= SERVO_IN_PULSE;
    in->pulse_q32 = edges_nearest(self);
    if (self->count == 1) return;
    in->flags |= SERVO_IN_DOUBLE;
    in->other_q32 = held((int64_t)self->other_q32 - self->nearest_q32);
}
