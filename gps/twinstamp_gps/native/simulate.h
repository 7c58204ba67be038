// SPDX-License-Identifier: Apache-2.0
// One run of oscillator, receiver, capture and servo against true time.
#ifndef TWINSTAMP_GPS_SIMULATE_H
#define TWINSTAMP_GPS_SIMULATE_H

#include <cstdint>
#include <string>
#include <vector>

#include "noise.h"
#include "servo.h"

namespace twinstamp::gps {

enum class FaultKind {
    kOutage,          // no pulses, no messages
    kOutlier,         // each pulse off by value ns, sign at random
    kStep,            // pulses off by value ns
    kPull,            // pulses off by value ns more each second
    kMissing,         // a share `value` of the pulses does not come
    kDouble,          // another edge value ns after each pulse
    kEarly,           // another edge value ns before each pulse
    kQerrSign,        // qErr with the opposite sign
    kQerrLate,        // qErr is that of the next pulse
    kQerrLost,        // no qErr
    kLeap,            // messages name a second that is off by value s
    kMessageLate,     // messages name the second before
    kMessageCorrupt,  // messages name any second, qErr is anything
    kMessageLost,     // no messages
    kFixLost,         // messages say that there is no fix; pulses go on
    kAccuracy,        // the receiver's own estimate grows by value ns each second
    kHostLoad,        // somebody else moves card time by value ns, by a load
    kAccept           // the operator accepts, once
};

struct Fault {
    FaultKind kind;
    double start_s, length_s, value;
};

struct Log {
    std::vector<float> t_s, true_error_ns, bound_ns, offset_ns, frequency_ppb;
    std::vector<float> oscillator_ppb;         // the oscillator's true frequency
    std::vector<std::uint64_t> increment_q72;  // what the clock runs by, 2^-72 s a cycle
    std::vector<std::int64_t> slew_left_q64;   // 2^-64 s
    std::vector<std::uint64_t> slew_step_q64;  // of the last slew, 2^-64 s a cycle
    std::vector<std::uint8_t> state;
    std::vector<std::uint32_t> events;  // those of the step before
    double first_valid_s = -1;
    double worst_rate_ppb = 0;   // |rate of card time in a slew - estimated rate|
    std::uint64_t backward = 0;  // times that card time stood or ran back, loads left out
};

struct Run {
    OscillatorModel oscillator;
    ReceiverModel receiver;
    servo_config config;
    std::vector<Fault> faults;
    double seconds = 0;
    std::uint64_t seed = 0;
    int samples_per_s = 10;
};

// Throws std::invalid_argument when the servo refuses the configuration.
Log simulate(const Run& run);

}  // namespace twinstamp::gps

#endif
