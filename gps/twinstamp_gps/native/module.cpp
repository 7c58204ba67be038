// SPDX-License-Identifier: Apache-2.0
// twinstamp_gps._servo: the firmware's servo and timescales, noise models, and the simulation around them.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <limits>
#include <map>
#include <memory>
#include <stdexcept>
#include <utility>

extern "C" {
#include "fixed.h"
}
#include "card.h"
#include "course.h"
#include "noise.h"
#include "servo.h"
#include "simulate.h"

namespace nb = nanobind;
using namespace nb::literals;
namespace gps = twinstamp::gps;

namespace {

using Config = std::map<std::string, std::uint32_t>;

constexpr std::pair<const char*, std::uint32_t servo_config::*> kSettings[] = {
    {"white_ppt", &servo_config::white_ppt},
    {"flicker_ppt", &servo_config::flicker_ppt},
    {"walk_ppt", &servo_config::walk_ppt},
    {"temperature_ppt", &servo_config::temperature_ppt},
    {"learn", &servo_config::learn},
    {"wander_ps", &servo_config::wander_ps},
    {"jitter_ps", &servo_config::jitter_ps},
    {"sawtooth_ps", &servo_config::sawtooth_ps},
    {"capture_ps", &servo_config::capture_ps},
    {"slew_limit_ppb", &servo_config::slew_limit_ppb},
    {"frequency_limit_ppb", &servo_config::frequency_limit_ppb},
    {"lock_pulses", &servo_config::lock_pulses},
    {"lock_bound_ns", &servo_config::lock_bound_ns},
    {"holdover_bound_ns", &servo_config::holdover_bound_ns},
};

servo_config config_of(const Config& values) {
    servo_config config;
    servo_config_default(&config);
    for (const auto& [name, value] : values) {
        bool known = false;
        for (const auto& [setting, member] : kSettings) {
            if (name != setting) continue;
            config.*member = value;
            known = true;
        }
        if (!known) throw std::invalid_argument("servo: no setting is called " + name);
    }
    return config;
}

Config values_of(const servo_config& config) {
    Config values;
    for (const auto& [setting, member] : kSettings) values[setting] = config.*member;
    return values;
}

nb::dict dict_of(const servo_output& out) {
    nb::dict result;
    result["increment_q72"] = out.increment_q72;
    result["load_delta_q32"] = out.load_delta_q32;
    result["slew_amount_q64"] = out.slew_amount_q64;
    result["slew_step_q64"] = out.slew_step_q64;
    result["bound_ns"] = out.bound_ns;
    result["flags"] = out.flags;
    result["state"] = out.state;
    result["events"] = out.events;
    result["offset_ps"] = out.offset_ps;
    result["innovation_ps"] = out.innovation_ps;
    result["frequency_ppt"] = out.frequency_ppt;
    result["ageing_ppt_day"] = out.ageing_ppt_day;
    result["sigma_ps"] = out.sigma_ps;
    result["frequency_sigma_ppt"] = out.frequency_sigma_ppt;
    result["white_ppt"] = out.white_ppt;
    result["flicker_ppt"] = out.flicker_ppt;
    result["walk_ppt"] = out.walk_ppt;
    result["qerr_use"] = out.qerr_use;
    result["holdover_s"] = out.holdover_s;
    result["expected_q32"] = out.expected_q32;
    return result;
}

class Servo {
  public:
    explicit Servo(const Config& values) {
        const servo_config config = config_of(values);
        if (servo_init(&state_, &config) != SERVO_OK)
            throw std::invalid_argument("servo: a setting is outside its limits (firmware/servo/servo.h)");
    }
    nb::dict step(std::uint64_t now_q32, std::uint64_t pulse_q32, std::int64_t slew_left_q64,
                  std::uint64_t tai_s, std::int32_t qerr_ps, std::uint32_t accuracy_ns, std::uint32_t flags,
                  std::int32_t other_q32, std::uint32_t moves) {
        const servo_input in{.now_q32 = now_q32,
                             .pulse_q32 = pulse_q32,
                             .slew_left_q64 = slew_left_q64,
                             .tai_s = tai_s,
                             .qerr_ps = qerr_ps,
                             .accuracy_ns = accuracy_ns,
                             .flags = flags,
                             .other_q32 = other_q32,
                             .moves = moves,
                             .reserved = 0};
        servo_output out;
        servo_step(&state_, &in, &out);
        return dict_of(out);
    }
    nb::bytes state() const { return nb::bytes(reinterpret_cast<const char*>(&state_), sizeof state_); }

  private:
    servo_state state_;
};

constexpr const char* kCounts[RECEIVER_COUNTS] = {
    "ubx",      "nmea",       "rtcm",      "skipped",  "bad checksum", "no checksum", "cut short",
    "too long", "bad length", "bad value", "fraction", "time base",    "not valid",   "no room",
};

nb::dict step_of(gps::Course& course, std::uint64_t now_q32, std::int64_t slew_left_q64) {
    nb::dict result = dict_of(course.step(now_q32, slew_left_q64));
    const servo_input& in = course.input();
    const second& names = course.names();
    result["pulse"] = (in.flags & SERVO_IN_PULSE) != 0;
    result["in_flags"] = in.flags;
    result["pulse_q32"] = in.pulse_q32;
    result["named_tai_s"] = in.tai_s;
    result["qerr_ps"] = in.qerr_ps;
    result["accuracy_ns"] = in.accuracy_ns;
    result["utc_source"] = names.source;
    result["utc_offset_s"] = names.published.offset_s;
    result["leap_s"] = names.published.leap_s;
    result["leap_tai_s"] = names.published.leap_tai_s;
    result["utc_until_tai_s"] = names.published.until_s;
    return result;
}

nb::dict counts_of(const gps::Course& course) {
    nb::dict result;
    for (int i = 0; i < RECEIVER_COUNTS; i++) result[kCounts[i]] = course.heard().counts[i];
    return result;
}

gps::OscillatorModel oscillator_of(const std::map<std::string, double>& values) {
    gps::OscillatorModel model;
    for (const auto& [name, value] : values) {
        if (name == "white_ppb")
            model.white_ppb = value;
        else if (name == "flicker_ppb")
            model.flicker_ppb = value;
        else if (name == "walk_ppb")
            model.walk_ppb = value;
        else if (name == "temperature_ppb_c")
            model.temperature_ppb_c = value;
        else if (name == "ageing_ppb_day")
            model.ageing_ppb_day = value;
        else if (name == "offset_ppb")
            model.offset_ppb = value;
        else if (name == "temperature_c")
            model.temperature_c = value;
        else if (name == "temperature_daily_c")
            model.temperature_daily_c = value;
        else
            throw std::invalid_argument("oscillator: no setting is called " + name);
    }
    return model;
}

gps::ReceiverModel receiver_of(const std::map<std::string, double>& values) {
    gps::ReceiverModel model;
    for (const auto& [name, value] : values) {
        if (name == "jitter_ns")
            model.jitter_ns = value;
        else if (name == "sawtooth_ns")
            model.sawtooth_ns = value;
        else if (name == "wander_ns")
            model.wander_ns = value;
        else if (name == "wander_s")
            model.wander_s = value;
        else if (name == "daily_ns")
            model.daily_ns = value;
        else if (name == "half_daily_ns")
            model.half_daily_ns = value;
        else
            throw std::invalid_argument("receiver: no setting is called " + name);
    }
    return model;
}

template <typename T>
nb::ndarray<nb::numpy, T, nb::ndim<1>> array_of(std::vector<T>&& values) {
    auto* kept = new std::vector<T>(std::move(values));
    nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
    return {kept->data(), {kept->size()}, owner};
}

nb::dict run_simulation(const std::map<std::string, double>& oscillator,
                        const std::map<std::string, double>& receiver, const Config& config,
                        const std::vector<std::tuple<std::uint32_t, double, double, double>>& faults,
                        double seconds, std::uint64_t seed, int samples_per_s) {
    if (!(seconds >= 1 && seconds <= 1e7)) throw std::invalid_argument("simulate: seconds must be 1 to 10^7");
    if (samples_per_s < 1 || samples_per_s > 1000)
        throw std::invalid_argument("simulate: 1 to 1000 samples a second");
    gps::Run run{oscillator_of(oscillator),
                 receiver_of(receiver),
                 config_of(config),
                 {},
                 seconds,
                 seed,
                 samples_per_s};
    for (const auto& [kind, start_s, length_s, value] : faults) {
        if (kind > static_cast<std::uint32_t>(gps::FaultKind::kAccept))
            throw std::invalid_argument("simulate: no such fault");
        run.faults.push_back({static_cast<gps::FaultKind>(kind), start_s, length_s, value});
    }
    gps::Log log;
    {
        nb::gil_scoped_release unlocked;
        log = gps::simulate(run);
    }
    nb::dict result;
    result["t_s"] = array_of(std::move(log.t_s));
    result["true_error_ns"] = array_of(std::move(log.true_error_ns));
    result["bound_ns"] = array_of(std::move(log.bound_ns));
    result["offset_ns"] = array_of(std::move(log.offset_ns));
    result["frequency_ppb"] = array_of(std::move(log.frequency_ppb));
    result["oscillator_ppb"] = array_of(std::move(log.oscillator_ppb));
    result["increment_q72"] = array_of(std::move(log.increment_q72));
    result["slew_left_q64"] = array_of(std::move(log.slew_left_q64));
    result["slew_step_q64"] = array_of(std::move(log.slew_step_q64));
    result["state"] = array_of(std::move(log.state));
    result["events"] = array_of(std::move(log.events));
    result["first_valid_s"] = log.first_valid_s;
    result["worst_rate_ppb"] = log.worst_rate_ppb;
    result["backward"] = log.backward;
    return result;
}

}  // namespace

NB_MODULE(_servo, m) {
    nb::set_leak_warnings(false);
    m.doc() = "The firmware's servo, compiled for the host, with noise models and a simulation.";
    nb::class_<Servo>(m, "Servo")
        .def(nb::init<const Config&>(), "config"_a = Config{})
        .def("step", &Servo::step, nb::kw_only(), "now_q32"_a, "pulse_q32"_a = 0, "slew_left_q64"_a = 0,
             "tai_s"_a = 0, "qerr_ps"_a = 0, "accuracy_ns"_a = 0, "flags"_a = 0, "other_q32"_a = 0,
             "moves"_a = 0)
        .def("state", &Servo::state);
    nb::class_<gps::Course>(m, "Course")
        .def(
            "__init__",
            [](gps::Course* self, const Config& values) { new (self) gps::Course(config_of(values)); },
            "config"_a = Config{})
        .def("start", &gps::Course::start, "now_q32"_a)
        .def("edge", &gps::Course::edge, "at_q32"_a)
        .def(
            "bytes",
            [](gps::Course& self, const nb::bytes& data, std::uint64_t now_q32) {
                self.bytes(reinterpret_cast<const std::uint8_t*>(data.c_str()), data.size(), now_q32);
            },
            "data"_a, "now_q32"_a)
        .def("silence", &gps::Course::silence, "now_q32"_a)
        .def("until_step_q32", &gps::Course::until_step_q32, "now_q32"_a)
        .def("moved", &gps::Course::moved, "now_q32"_a)
        .def("name", &gps::Course::name, "tai_s"_a, "accuracy_ns"_a)
        .def("accept", &gps::Course::accept)
        .def("tell", &gps::Course::tell, "offset_s"_a, "until_s"_a)
        .def("tell_leap", &gps::Course::tell_leap, "change_s"_a, "leap_tai_s"_a)
        .def("step", &step_of, "now_q32"_a, "slew_left_q64"_a = 0)
        .def("loaded", &gps::Course::loaded, "delta_q32"_a)
        .def("counts", &counts_of)
        .def_prop_ro("cold", &gps::Course::cold)
        .def_prop_ro("pulses", &gps::Course::pulses)
        .def_prop_ro("extra_pulses", &gps::Course::extra_pulses);
    nb::class_<gps::Oscillator>(m, "Oscillator")
        .def(
            "__init__",
            [](gps::Oscillator* self, const std::map<std::string, double>& model, std::uint64_t seed) {
                new (self) gps::Oscillator(oscillator_of(model), seed);
            },
            "model"_a, "seed"_a)
        .def("advance", &gps::Oscillator::advance, "dt_s"_a)
        .def_prop_ro("frequency_ppb", &gps::Oscillator::frequency_ppb)
        .def_prop_ro("temperature_c", &gps::Oscillator::temperature_c)
        .def(
            "phase_ns",
            [](gps::Oscillator& self, double dt_s, std::size_t n) {
                std::vector<double> phase(n);
                double sum = 0;
                for (auto& value : phase) value = sum += self.advance(dt_s);
                return array_of(std::move(phase));
            },
            "dt_s"_a, "n"_a);
    nb::class_<gps::Receiver>(m, "Receiver")
        .def(
            "__init__",
            [](gps::Receiver* self, const std::map<std::string, double>& model, std::uint64_t seed) {
                new (self) gps::Receiver(receiver_of(model), seed);
            },
            "model"_a, "seed"_a)
        .def("next", [](gps::Receiver& self) {
            const gps::Pulse pulse = self.next();
            return std::tuple(pulse.late_ns, pulse.qerr_ps, pulse.wander_ns);
        });
    nb::class_<gps::Card>(m, "Card")
        .def(
            "__init__",
            [](gps::Card* self, const std::map<std::string, double>& model, std::uint64_t seed) {
                new (self) gps::Card(oscillator_of(model), seed, 0, 0);
            },
            "model"_a, "seed"_a)
        .def("advance", &gps::Card::advance, "dt_s"_a)
        .def(
            "write",
            [](gps::Card& self, std::uint64_t increment_q72, std::int64_t load_delta_q32,
               std::int64_t slew_amount_q64, std::uint64_t slew_step_q64, std::uint32_t flags) {
                servo_output out{};
                out.increment_q72 = increment_q72;
                out.load_delta_q32 = load_delta_q32;
                out.slew_amount_q64 = slew_amount_q64;
                out.slew_step_q64 = slew_step_q64;
                out.flags = flags;
                self.write(out);
            },
            nb::kw_only(), "increment_q72"_a, "load_delta_q32"_a = 0, "slew_amount_q64"_a = 0,
            "slew_step_q64"_a = 0, "flags"_a = 0)
        .def("now_q32", &gps::Card::now_q32, "second"_a, "ns"_a)
        .def_prop_ro("slew_left_q64", &gps::Card::slew_left_q64);
    m.def("simulate", &run_simulation, nb::kw_only(), "oscillator"_a, "receiver"_a, "config"_a, "faults"_a,
          "seconds"_a, "seed"_a, "samples_per_s"_a = 10);
    // The firmware's arithmetic, for its tests: (result, saturated).
    m.def("fixed_add", [](std::int64_t a, std::int64_t b) {
        bool full = false;
        const std::int64_t result = fixed_add(a, b, &full);
        return std::tuple(result, full);
    });
    m.def("fixed_mul_div", [](std::int64_t a, std::int64_t b, std::int64_t c) {
        if (c <= 0) throw std::invalid_argument("fixed_mul_div: the divisor must be positive");
        bool full = false;
        const std::int64_t result = fixed_mul_div(a, b, c, &full);
        return std::tuple(result, full);
    });
    m.def("fixed_mul_shift", [](std::int64_t a, std::int64_t b, unsigned shift) {
        if (shift < 1 || shift > 63) throw std::invalid_argument("fixed_mul_shift: shift must be 1 to 63");
        bool full = false;
        const std::int64_t result = fixed_mul_shift(a, b, shift, &full);
        return std::tuple(result, full);
    });
    m.def("fixed_sqrt", &fixed_sqrt);
    m.def("default_config", [] {
        servo_config config;
        servo_config_default(&config);
        return values_of(config);
    });
}
