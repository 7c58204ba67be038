// SPDX-License-Identifier: Apache-2.0
// Which of the edges that came since the last step is the pulse: the one nearest to where it is expected. A
// disturbance may come before it or after it; what is left for the servo is where the next nearest one
// stands.
#ifndef TWINSTAMP_EDGES_H
#define TWINSTAMP_EDGES_H

#include "servo.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    uint64_t expected_q32;  // card time at which the pulse is expected
    int32_t nearest_q32;    // of the edges so far, from there, held at +-0.5 s; with count > 0
    int32_t other_q32;      // the next nearest one, with count > 1
    uint32_t known;         // expected_q32 means something; else the first edge is taken
    uint32_t count;
} edges;

// A new second.
void edges_start(edges* self, uint32_t known, uint64_t expected_q32);
// An edge. Returns 1 where it is the nearest so far.
uint32_t edges_take(edges* self, uint64_t at_q32);
// Card time of the nearest one; with count > 0.
uint64_t edges_nearest(const edges* self);
// What the servo wants to know: pulse_q32, other_q32, SERVO_IN_PULSE and SERVO_IN_DOUBLE.
void edges_tell(const edges* self, servo_input* in);

#ifdef __cplusplus
}
#endif

#endif
