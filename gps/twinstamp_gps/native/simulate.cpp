// SPDX-License-Identifier: Apache-2.0
#include "simulate.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

namespace twinstamp::gps {
namespace {

constexpr double kQ32PerNs = 4294967296.0 / 1e9;
constexpr std::uint64_t kStart_s = 1'800'000'000;  // TAI at the start of a run
constexpr double kCall_s = 0.2;                    // the servo is called so long after each second
constexpr double kWrite_s = 0.001;                 // and its output acts so much later

// The card: an oscillator, an accumulator with rate and slew, the capture's 1 ns grid.
class Card {
  public:
    Card(const OscillatorModel& model, std::uint64_t seed, double uncertainty_ns)
        : oscillator_(model, seed), random_(seed ^ 0xC0FFEE), load_ns_(uncertainty_ns) {}

    // dt seconds of true time.
    void advance(double dt_s) {
        const double gained_ns = oscillator_.advance(dt_s);
        const double steered_ns = steer_ * (dt_s * 1e9 + gained_ns);
        double slewed_ns = 0;
        if (slew_left_ns_ != 0) {
            const double most_ns = slew_rate_ * dt_s * 1e9;
            slewed_ns = std::clamp(slew_left_ns_, -most_ns, most_ns);
            slew_left_ns_ -= slewed_ns;
        }
        phase_ns_ += gained_ns;
        error_ns_ += gained_ns + steered_ns + slewed_ns;
        if (dt_s * 1e9 + gained_ns + steered_ns + slewed_ns <= 0) backward_++;
    }
    // Card time, 32.32, at true second `second` and ns after it.
    std::uint64_t now_q32(std::uint64_t second, double ns) const {
        return (second << 32) + base_q32_ +
               static_cast<std::uint64_t>(std::llround((ns + error_ns_) * kQ32PerNs));
    }
    // The same of an edge that is `ns` from now, sampled every ns of the card's own oscillator.
    std::uint64_t capture_q32(std::uint64_t second, double ns) const {
        const double rate = 1 + steer_ + oscillator_.frequency_ppb() * 1e-9;
        const double phase = phase_ns_ + ns * (1 + oscillator_.frequency_ppb() * 1e-9);
        const double grid = std::floor(phase) + 0.5 - phase;
        const double at_ns = error_ns_ + ns * rate + grid * rate;
        return (second << 32) + base_q32_ + static_cast<std::uint64_t>(std::llround(at_ns * kQ32PerNs));
    }
    void write(const servo_output& out) {
        if (out.flags & SERVO_OUT_LOAD) {
            base_q32_ += static_cast<std::uint64_t>(out.load_delta_q32);
            error_ns_ += load_ns_ * (2 * random_.uniform() - 1);
            slew_left_ns_ = 0;
            // Whole seconds and large parts stay in base_q32_ only while the card is that far off.
            const auto rest = static_cast<std::int64_t>(base_q32_);
            if (std::llabs(rest) < (std::int64_t{1} << 33)) {
                error_ns_ += static_cast<double>(rest) / kQ32PerNs;
                base_q32_ = 0;
            }
        }
        increment_q72_ = out.increment_q72;
        steer_ = static_cast<double>(static_cast<std::int64_t>(out.increment_q72 - SERVO_NOMINAL_Q72)) /
                 static_cast<double>(SERVO_NOMINAL_Q72);
        if (out.flags & SERVO_OUT_SLEW) {
            slew_step_q64_ = out.slew_step_q64;
            slew_left_ns_ = static_cast<double>(out.slew_amount_q64) * 0x1p-64 * 1e9;
            slew_rate_ =
                static_cast<double>(out.slew_step_q64) / (static_cast<double>(SERVO_NOMINAL_Q72) / 256);
        }
    }
    std::int64_t slew_left_q64() const { return static_cast<std::int64_t>(slew_left_ns_ * 1e-9 * 0x1p64); }
    bool known() const { return base_q32_ == 0; }
    double error_ns() const { return known() ? error_ns_ : std::numeric_limits<double>::infinity(); }
    std::uint64_t increment_q72() const { return increment_q72_; }
    std::uint64_t slew_step_q64() const { return slew_step_q64_; }
    double oscillator_ppb() const { return oscillator_.frequency_ppb(); }
    double slew_rate() const { return slew_rate_; }
    std::uint64_t backward() const { return backward_; }

  private:
    Oscillator oscillator_;
    Random random_;
    double load_ns_;
    double error_ns_ = 0, phase_ns_ = 0, steer_ = 0, slew_left_ns_ = 0, slew_rate_ = 0;
    std::uint64_t base_q32_ = std::uint64_t{0} - (kStart_s << 32) + 12345;  // it starts at 0 and something
    std::uint64_t backward_ = 0;
    std::uint64_t increment_q72_ = SERVO_NOMINAL_Q72, slew_step_q64_ = 0;
};

}  // namespace

Log simulate(const Run& run) {
    servo_state state;
    if (servo_init(&state, &run.config) != SERVO_OK)
        throw std::invalid_argument("the servo refuses this configuration");
    Card card(run.oscillator, run.seed * 4 + 1, 2000);
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
    for (std::uint64_t k = 0; k < seconds; k++) {
        const double t = static_cast<double>(k);
        const std::uint64_t second = kStart_s + k;
        const Pulse following = receiver.next();
        servo_input in{};
        // The pulse, and what faults make of it.
        double late_ns = pulse.late_ns;
        bool present = true, message = true;
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
                    in.flags |= SERVO_IN_DOUBLE;
                    break;
                case FaultKind::kEarly:
                    late_ns -= fault.value;
                    in.flags |= SERVO_IN_EARLY | SERVO_IN_DOUBLE;
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
                    named = static_cast<std::int64_t>(random.bits());
                    qerr_ps = static_cast<std::int32_t>(random.bits());
                    break;
                case FaultKind::kMessageLost:
                    message = false;
                    break;
                case FaultKind::kAccept:
                    in.flags |= SERVO_IN_ACCEPT;
                    break;
            }
        }
        if (present) {
            in.flags |= SERVO_IN_PULSE;
            in.pulse_q32 = card.capture_q32(second, late_ns);
        }
        if (message) {
            in.flags |= SERVO_IN_TAI | SERVO_IN_ACCURACY;
            in.tai_s = static_cast<std::uint64_t>(named);
            in.accuracy_ns = 5;
            if (qerr) {
                in.flags |= SERVO_IN_QERR;
                in.qerr_ps = qerr_ps;
            }
        }
        if (present && message && log.first_valid_s < 0) log.first_valid_s = t;

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
                servo_step(&state, &in, &out);
            }
            if (called && !written && until_s >= kCall_s + kWrite_s) {
                go_to(kCall_s + kWrite_s);
                written = true;
                card.write(out);
                if (out.flags & SERVO_OUT_SLEW)
                    log.worst_rate_ppb = std::max(log.worst_rate_ppb, card.slew_rate() * 1e9);
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
