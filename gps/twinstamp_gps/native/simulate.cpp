// SPDX-License-Identifier: Apache-2.0
#include "simulate.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "card.h"
#include "edges.h"

namespace twinstamp::gps {
namespace {

constexpr std::uint64_t kStart_s = 1'800'000'000;  // TAI at the start of a run
constexpr double kCall_s = 0.2;                    // the servo is called so long after each second
constexpr double kWrite_s = 0.001;                 // and its output acts so much later
constexpr double kHost_s = 0.62;                   // when somebody else moves the clock

}  // namespace

Log simulate(const Run& run) {
    servo_state state;
    if (servo_init(&state, &run.config) != SERVO_OK)
        throw std::invalid_argument("the servo refuses this configuration");
    Card card(run.oscillator, run.seed * 4 + 1, kStart_s, 2000);
    Receiver receiver(run.receiver, run.seed * 4 + 2);
    Random random(run.seed * 4 + 3);
    Log log;
    const auto seconds = static_cast<std::uint64_t>(run.seconds);
    const int rate = run.samples_per_s;
    const double spacing_s = 1.0 / rate;
    const auto samples = seconds * static_cast<std::uint64_t>(rate);
    for (auto* column : {&log.t_s, &log.true_error_ns, &log.bound_ns, &log.offset_ns, &log.frequency_ppb,
                         &log.oscillator_ppb})
        column->reserve(samples);
    log.increment_q72.reserve(samples);
    log.slew_left_q64.reserve(samples);
    log.slew_step_q64.reserve(samples);
    log.state.reserve(samples);
    log.events.reserve(samples);

    servo_output out{};
    out.increment_q72 = SERVO_NOMINAL_Q72;
    out.bound_ns = SERVO_BOUND_UNKNOWN;
    Pulse pulse = receiver.next();
    edges came;  // since the last step
    edges_start(&came, 0, 0);
    std::vector<double> left_ns;  // edges after the last step, from the second now under way
    std::uint32_t moves = 0;      // how often somebody else has moved the clock
    for (std::uint64_t k = 0; k < seconds; k++) {
        const double t = static_cast<double>(k);
        const std::uint64_t second = kStart_s + k;
        const Pulse following = receiver.next();
        servo_input in{};
        // The pulse, and what faults make of it.
        double late_ns = pulse.late_ns;
        bool present = true, message = true, fix = true, corrupt = false, load = false;
        std::vector<double> others_ns;  // edges beside the pulse
        double accuracy_ns = 5, load_ns = 0;
        std::int64_t named = static_cast<std::int64_t>(second);
        std::int32_t qerr_ps = pulse.qerr_ps;
        bool qerr = run.receiver.sawtooth_ns > 0;
        for (const Fault& fault : run.faults) {
            if (t < fault.start_s || t >= fault.start_s + fault.length_s) continue;
            switch (fault.kind) {
                case FaultKind::kOutage:
                    present = message = false;
                    break;
                case FaultKind::kOutlier:
                    late_ns += random.uniform() < 0.5 ? -fault.value : fault.value;
                    break;
                case FaultKind::kStep:
                    late_ns += fault.value;
                    break;
                case FaultKind::kPull:
                    late_ns += fault.value * (t - fault.start_s + 1);
                    break;
                case FaultKind::kMissing:
                    present = present && random.uniform() >= fault.value;
                    break;
                case FaultKind::kDouble:
                    others_ns.push_back(fault.value);
                    break;
                case FaultKind::kEarly:
                    others_ns.push_back(-fault.value);
                    break;
                case FaultKind::kQerrSign:
                    qerr_ps = -pulse.qerr_ps;
                    break;
                case FaultKind::kQerrLate:
                    qerr_ps = following.qerr_ps;
                    break;
                case FaultKind::kQerrLost:
                    qerr = false;
                    break;
                case FaultKind::kLeap:
                    named += static_cast<std::int64_t>(fault.value);
                    break;
                case FaultKind::kMessageLate:
                    named -= 1;
                    break;
                case FaultKind::kMessageCorrupt:
                    corrupt = true;
                    named = static_cast<std::int64_t>(random.bits());
                    qerr_ps = static_cast<std::int32_t>(random.bits());
                    break;
                case FaultKind::kMessageLost:
                    message = false;
                    break;
                case FaultKind::kFixLost:
                    fix = false;
                    break;
                case FaultKind::kAccuracy:
                    accuracy_ns += fault.value * (t - fault.start_s + 1);
                    break;
                case FaultKind::kHostLoad:
                    load = true;
                    load_ns += fault.value;
                    break;
                case FaultKind::kAccept:
                    in.flags |= SERVO_IN_ACCEPT;
                    break;
            }
        }
        // Edges since the last step. Where a disturbance stands need not be exact to the slew.
        std::vector<double> edges_ns;
        edges_ns.swap(left_ns);
        if (present) edges_ns.push_back(late_ns);
        for (const double ns : others_ns) {
            if (ns < kCall_s * 1e9)
                edges_ns.push_back(late_ns + ns);
            else
                left_ns.push_back(late_ns + ns - 1e9);
        }
        std::sort(edges_ns.begin(), edges_ns.end());
        for (const double ns : edges_ns) edges_take(&came, card.capture_q32(second, ns));
        if (message && fix) {
            in.flags |= SERVO_IN_TAI | SERVO_IN_ACCURACY;
            if (!corrupt) in.flags |= SERVO_IN_FIX;
            in.tai_s = static_cast<std::uint64_t>(named);
            in.accuracy_ns = static_cast<std::uint32_t>(std::lround(std::min(accuracy_ns, 4e9)));
            if (qerr) {
                in.flags |= SERVO_IN_QERR;
                in.qerr_ps = qerr_ps;
            }
        }
        if (present && message && fix && log.first_valid_s < 0) log.first_valid_s = t;

        // Through the second: samples of the truth in the middle of equal spans, the call where it falls.
        double at_s = 0;
        bool called = false, written = false;
        const auto go_to = [&](double to_s) {
            if (to_s > at_s) card.advance(to_s - at_s);
            at_s = std::max(at_s, to_s);
        };
        const auto call = [&](double until_s) {
            if (!called && until_s >= kCall_s) {
                go_to(kCall_s);
                called = true;
                in.now_q32 = card.now_q32(second, kCall_s * 1e9);
                in.slew_left_q64 = card.slew_left_q64();
                edges_tell(&came, &in);
                in.moves = moves;
                servo_step(&state, &in, &out);
                // The whole second of card time that comes next, as the firmware counts.
                const std::uint64_t one = std::uint64_t{1} << 32, now = in.now_q32;
                const std::uint64_t next =
                    (now + static_cast<std::uint64_t>(out.load_delta_q32) + one / 5 * 4 + one / 2) &
                    ~(one - 1);
                edges_start(&came, out.state != SERVO_COLD,
                            next + static_cast<std::uint64_t>(std::int64_t{out.expected_q32}));
            }
            if (called && !written && until_s >= kCall_s + kWrite_s) {
                go_to(kCall_s + kWrite_s);
                written = true;
                card.write(out);
                if (out.flags & SERVO_OUT_SLEW)
                    log.worst_rate_ppb = std::max(log.worst_rate_ppb, card.slew_rate() * 1e9);
            }
            if (load && until_s >= kHost_s) {  // the firmware sees it within a tick, and says so
                go_to(kHost_s);
                load = false;
                moves++;
                card.load(std::llround(load_ns * kQ32PerNs));
                edges_start(&came, 0, 0);
                out.state = SERVO_COLD;
                out.bound_ns = SERVO_BOUND_UNKNOWN;
            }
        };
        for (int i = 0; i < rate; i++) {
            const double sample_s = (i + 0.5) * spacing_s;
            call(sample_s);
            go_to(sample_s);
            log.t_s.push_back(static_cast<float>(t + sample_s));
            log.true_error_ns.push_back(static_cast<float>(card.error_ns()));
            log.bound_ns.push_back(out.bound_ns == SERVO_BOUND_UNKNOWN
                                       ? std::numeric_limits<float>::infinity()
                                       : static_cast<float>(out.bound_ns));
            log.offset_ns.push_back(static_cast<float>(static_cast<double>(out.offset_ps) * 1e-3));
            log.frequency_ppb.push_back(static_cast<float>(static_cast<double>(out.frequency_ppt) * 1e-3));
            log.oscillator_ppb.push_back(static_cast<float>(card.oscillator_ppb()));
            log.increment_q72.push_back(card.increment_q72());
            log.slew_left_q64.push_back(card.slew_left_q64());
            log.slew_step_q64.push_back(card.slew_step_q64());
            log.state.push_back(static_cast<std::uint8_t>(out.state));
            log.events.push_back(out.events);
        }
        call(1.0);
        go_to(1.0);
        pulse = following;
    }
    log.backward = card.backward();
    return log;
}

}  // namespace twinstamp::gps
