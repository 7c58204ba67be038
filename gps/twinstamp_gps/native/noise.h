// SPDX-License-Identifier: Apache-2.0
// Noise of oscillators and of receivers' pulses, second by second, from a seed. Units: ns, s, ppb (1e-9).
#ifndef TWINSTAMP_GPS_NOISE_H
#define TWINSTAMP_GPS_NOISE_H

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace twinstamp::gps {

// xoshiro256++ (Blackman, Vigna 2019), seeded by splitmix64; normal deviates by Marsaglia's polar method. Not
// std::normal_distribution: the same seed must give the same run with every library.
class Random {
  public:
    explicit Random(std::uint64_t seed) {
        for (auto& word : state_) {
            seed += 0x9E3779B97F4A7C15;
            std::uint64_t z = seed;
            z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
            z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
            word = z ^ (z >> 31);
        }
    }
    std::uint64_t bits() {
        const std::uint64_t result = rotate(state_[0] + state_[3], 23) + state_[0];
        const std::uint64_t t = state_[1] << 17;
        state_[2] ^= state_[0];
        state_[3] ^= state_[1];
        state_[1] ^= state_[2];
        state_[0] ^= state_[3];
        state_[2] ^= t;
        state_[3] = rotate(state_[3], 45);
        return result;
    }
    double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }  // [0, 1)
    double normal() {
        if (held_) {
            held_ = false;
            return spare_;
        }
        double a, b, s;
        do {
            a = 2 * uniform() - 1;
            b = 2 * uniform() - 1;
            s = a * a + b * b;
        } while (s >= 1 || s == 0);
        const double scale = std::sqrt(-2 * std::log(s) / s);
        spare_ = b * scale;
        held_ = true;
        return a * scale;
    }

  private:
    static std::uint64_t rotate(std::uint64_t x, int by) { return x << by | x >> (64 - by); }
    std::array<std::uint64_t, 4> state_;
    double spare_ = 0;
    bool held_ = false;
};

struct OscillatorModel {
    double white_ppb = 0;          // white FM: Allan deviation over 1 s
    double flicker_ppb = 0;        // flicker FM: floor of the Allan deviation
    double walk_ppb = 0;           // random walk FM: change of frequency in 1 s, one sigma
    double temperature_ppb_c = 0;  // per degree Celsius
    double ageing_ppb_day = 0;
    double offset_ppb = 0;           // at the start
    double temperature_c = 0;        // one sigma of the room's slow change (time constant half an hour)
    double temperature_daily_c = 0;  // amplitude of its daily swing
};

// Free phase of an oscillator: advance(dt) is by how many ns it gains on true time in dt seconds.
class Oscillator {
  public:
    Oscillator(const OscillatorModel& model, std::uint64_t seed) : model_(model), random_(seed) {
        // Flicker: S_y = h / f with h = floor^2 / (2 ln 2), as a sum of first-order processes whose time
        // constants are an octave apart; each then has variance h ln 2.
        const double sigma = model.flicker_ppb / std::sqrt(2.0);
        for (int i = 0; i < kPoles; i++) {
            time_constant_s_[i] = kShortest * std::pow(2.0, i);
            pole_ppb_[i] = sigma * random_.normal();
        }
        sigma_ppb_ = sigma;
        temperature_c_ = model.temperature_c * random_.normal();
        day_phase_ = 2 * std::numbers::pi * random_.uniform();
        start_c_ = temperature_c();
        frequency_ppb_ = model.offset_ppb;
        for (const double pole : pole_ppb_) frequency_ppb_ += pole;
    }

    double advance(double dt_s) {
        double gained_ns = model_.white_ppb * std::sqrt(dt_s) * random_.normal() + frequency_ppb_ * dt_s;
        time_s_ += dt_s;
        fast_s_ += dt_s;
        slow_s_ += dt_s;
        if (fast_s_ >= 0.0999) {
            step_poles(0, kFast, fast_s_);
            walk_ppb_ += model_.walk_ppb * std::sqrt(fast_s_) * random_.normal();
            fast_s_ = 0;
        }
        if (slow_s_ >= 0.999) {
            step_poles(kFast, kPoles, slow_s_);
            const double kept = std::exp(-slow_s_ / kRoom);
            temperature_c_ =
                temperature_c_ * kept + model_.temperature_c * std::sqrt(1 - kept * kept) * random_.normal();
            slow_s_ = 0;
        }
        double sum = model_.offset_ppb + walk_ppb_ + model_.ageing_ppb_day * time_s_ / 86400 +
                     model_.temperature_ppb_c * (temperature_c() - start_c_);
        for (const double pole : pole_ppb_) sum += pole;
        frequency_ppb_ = sum;
        return gained_ns;
    }

    double frequency_ppb() const { return frequency_ppb_; }  // without its white part
    double temperature_c() const {
        return temperature_c_ +
               model_.temperature_daily_c * std::sin(day_phase_ + 2 * std::numbers::pi * time_s_ / 86400);
    }

  private:
    static constexpr int kPoles = 22, kFast = 8;
    static constexpr double kShortest = 0.0625, kRoom = 1800;

    void step_poles(int from, int to, double dt_s) {
        if (sigma_ppb_ == 0) return;
        for (int i = from; i < to; i++) {
            if (dt_s != kept_for_[i]) {
                kept_[i] = std::exp(-dt_s / time_constant_s_[i]);
                fresh_[i] = sigma_ppb_ * std::sqrt(1 - kept_[i] * kept_[i]);
                kept_for_[i] = dt_s;
            }
            pole_ppb_[i] = pole_ppb_[i] * kept_[i] + fresh_[i] * random_.normal();
        }
    }

    OscillatorModel model_;
    Random random_;
    std::array<double, kPoles> time_constant_s_{}, pole_ppb_{}, kept_{}, fresh_{}, kept_for_{};
    double sigma_ppb_ = 0, walk_ppb_ = 0, temperature_c_ = 0, day_phase_ = 0, start_c_ = 0,
           frequency_ppb_ = 0;
    double time_s_ = 0, fast_s_ = 0, slow_s_ = 0;
};

struct ReceiverModel {
    double jitter_ns = 0;    // white, one sigma
    double sawtooth_ns = 0;  // half the span of the pulse's quantisation
    double wander_ns = 0;    // first-order process, one sigma
    double wander_s = 3600;  // its time constant
    double daily_ns = 0;     // amplitudes of sinusoids of 24 h and 12 h, random phases
    double half_daily_ns = 0;
};

struct Pulse {
    double late_ns;        // against its second
    std::int32_t qerr_ps;  // as in UBX-TIM-TP: the second is at pulse + qErr
    double wander_ns;      // the part of late_ns that nobody can see
};

// The pulses of a receiver, one a second.
class Receiver {
  public:
    Receiver(const ReceiverModel& model, std::uint64_t seed) : model_(model), random_(seed) {
        wander_ns_ = model.wander_ns * random_.normal();
        for (auto& phase : phase_) phase = 2 * std::numbers::pi * random_.uniform();
        tick_ns_ = 2 * model.sawtooth_ns * random_.uniform();
        drift_ns_ = 2 * model.sawtooth_ns * random_.uniform();
    }

    Pulse next() {
        const double kept = std::exp(-1 / model_.wander_s);
        wander_ns_ = wander_ns_ * kept + model_.wander_ns * std::sqrt(1 - kept * kept) * random_.normal();
        const double day = 2 * std::numbers::pi * time_s_ / 86400;
        const double slow = wander_ns_ + model_.daily_ns * std::sin(day + phase_[0]) +
                            model_.half_daily_ns * std::sin(2 * day + phase_[1]);
        // The receiver's oscillator drifts through its own ticks; near a whole tick a second the sawtooth
        // stands still for a while (a hanging bridge).
        double saw = 0;
        if (const double span = 2 * model_.sawtooth_ns; span > 0) {
            drift_ns_ += 0.02 * span * random_.normal();
            tick_ns_ += drift_ns_;
            tick_ns_ -= span * std::floor(tick_ns_ / span);
            saw = tick_ns_ - model_.sawtooth_ns;
        }
        time_s_ += 1;
        return {slow + saw + model_.jitter_ns * random_.normal(),
                static_cast<std::int32_t>(std::lround(-saw * 1000)), slow};
    }

  private:
    ReceiverModel model_;
    Random random_;
    std::array<double, 2> phase_{};
    double wander_ns_ = 0, tick_ns_ = 0, drift_ns_ = 0, time_s_ = 0;
};

}  // namespace twinstamp::gps

#endif
