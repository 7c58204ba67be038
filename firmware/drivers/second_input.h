// SPDX-License-Identifier: Apache-2.0
// What the servo is told of a second besides its edges: the name of its pulse, and who vouches for it.
#ifndef TWINSTAMP_SECOND_INPUT_H
#define TWINSTAMP_SECOND_INPUT_H

#include "second.h"
#include "servo.h"

// in: as edges_tell() left it, flags added to. due_q32: the second of the clock that the step is for. *name:
// all zeros before, the pulse's name afterwards, where there is one.
static inline void second_input(second* names, uint64_t due_q32, second_name_t* name, servo_input* in) {
    const uint32_t pulse = in->flags & SERVO_IN_PULSE;
    if (pulse) {
        second_pulse(names, in->pulse_q32);
        second_name(names, name);
    }
    const uint32_t vouched = second_vouched(names, pulse ? in->pulse_q32 : due_q32);
    if (vouched == SECOND_FIX) in->flags |= SERVO_IN_FIX;
    if (vouched == SECOND_FIX_BEFORE) in->flags |= SERVO_IN_FIX_BEFORE;
    if (!pulse) second_missed(names);
    if (name->flags & SECOND_TAI) {
        in->flags |= SERVO_IN_TAI;
        in->tai_s = name->tai_s;
    }
    if (name->flags & SECOND_QERR) {
        in->flags |= SERVO_IN_QERR;
        in->qerr_ps = name->qerr_ps;
    }
    if (name->flags & SECOND_ACCURACY) {
        in->flags |= SERVO_IN_ACCURACY;
        in->accuracy_ns = name->accuracy_ns;
    }
}

#endif
