// SPDX-License-Identifier: Apache-2.0
// The card's clock as it behaves: what hdl/rtl/clock/card_clock.sv does to card time, without its cycles.
// tests/loop/test_clock.py compares the two.
#ifndef TWINSTAMP_GPS_CARD_H
#define TWINSTAMP_GPS_CARD_H

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>

#include "noise.h"
#include "servo.h"

namespace twinstamp::gps {

constexpr double kQ32PerNs = 4294967296.0 / 1e9;

// An oscillator, an accumulator with rate and slew, the capture's 1 ns grid. Card time begins at 12345 units
// of 2^-32 s, at true second `start_s`. A load is off by up to uncertainty_ns.
class Card {
  public:
    Card(const OscillatorModel& model, std::uint64_t seed, std::uint64_t start_s, double uncertainty_ns)
        : oscillator_(model, seed),
          random_(seed ^ 0xC0FFEE),
          load_ns_(uncertainty_ns),
          base_q32_(12345 - (start_s << 32)) {}

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
    // A load moves card time by delta and ends the slew that is under way.
    void load(std::int64_t delta_q32) {
        base_q32_ += static_cast<std::uint64_t>(delta_q32);
        slew_left_ns_ = 0;
        // Whole seconds and large parts stay in base_q32_ only while the card is that far off.
        const auto rest = static_cast<std::int64_t>(base_q32_);
        if (std::llabs(rest) < (std::int64_t{1} << 33)) {
            error_ns_ += static_cast<double>(rest) / kQ32PerNs;
            base_q32_ = 0;
        }
    }
    // The servo's output, as the firmware writes it.
    void write(const servo_output& out) {
        if (out.flags & SERVO_OUT_LOAD) {
            load(out.load_delta_q32);
            error_ns_ += load_ns_ * (2 * random_.uniform() - 1);
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
    std::uint64_t base_q32_, backward_ = 0;
    double error_ns_ = 0, phase_ns_ = 0, steer_ = 0, slew_left_ns_ = 0, slew_rate_ = 0;
    std::uint64_t increment_q72_ = SERVO_NOMINAL_Q72, slew_step_q64_ = 0;
};

}  // namespace twinstamp::gps

#endif
