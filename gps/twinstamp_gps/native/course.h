// SPDX-License-Identifier: Apache-2.0
// What firmware/main.c does around receiver, names and servo, for a clock that is no card's: bytes and edges
// in, a step of the servo a second. The four parts are the firmware's own sources.
#ifndef TWINSTAMP_GPS_COURSE_H
#define TWINSTAMP_GPS_COURSE_H

#include <cstddef>
#include <cstdint>
#include <stdexcept>

extern "C" {
#include "edges.h"
#include "receiver.h"
#include "second_input.h"
}
#include "servo.h"

namespace twinstamp::gps {

// Times are the clock's own, 32.32 s of TAI once it is set. Steps are due as firmware/main.c has it.
class Course {
  public:
    explicit Course(const servo_config& config) : config_(config) {
        receiver_init(&gps_);
        second_init(&names_);
        if (servo_init(&servo_, &config_) != SERVO_OK)
            throw std::invalid_argument("servo: a setting is outside its limits (firmware/servo/servo.h)");
        edges_start(&came_, 0, 0);
    }

    // The clock reads this now, at the beginning.
    void start(std::uint64_t now_q32) { second_q32_ = now_q32; }
    // An edge at a time of the clock.
    void edge(std::uint64_t at_q32) {
        receiver_pulse(&gps_);
        pulses_++;
        if (came_.count > 0) extra_pulses_++;
        if (cold_ && came_.count == 0) second_q32_ = at_q32;
        edges_take(&came_, at_q32);
    }
    // Bytes of the receiver that were read at now_q32.
    void bytes(const std::uint8_t* data, std::size_t n, std::uint64_t now_q32) {
        for (std::size_t i = 0; i < n; i++) take(receiver_byte(&gps_, data[i]), now_q32);
    }
    // Its line was silent for longer than any pause within a message.
    void silence(std::uint64_t now_q32) { take(receiver_silence(&gps_), now_q32); }
    // How far now is from the next step, 2^-32 s; 0 or less: it is due.
    std::int64_t until_step_q32(std::uint64_t now_q32) const {
        constexpr std::int64_t tenth = SECOND_Q32 / 10;
        const bool heard = came_.count > 0 && (told_ || second_complete(&names_, edges_nearest(&came_)));
        return static_cast<std::int64_t>(second_q32_ - now_q32) + (heard ? tenth : 5 * tenth);
    }
    // Somebody else has moved the clock, which reads now_q32: edges and messages so far count no more.
    void moved(std::uint64_t now_q32) {
        moves_++;
        second_forget(&names_);
        cold_ = true;
        second_q32_ = now_q32;
        edges_start(&came_, 0, 0);
    }
    // The pulse of this second is tai_s, by one who needs no receiver's messages for it.
    void name(std::uint64_t tai_s, std::uint32_t accuracy_ns) {
        told_ = SERVO_IN_TAI | SERVO_IN_FIX | SERVO_IN_ACCURACY;
        told_s_ = tai_s;
        told_ns_ = accuracy_ns;
    }
    void accept() { accept_ = true; }
    bool tell(std::int32_t offset_s, std::uint64_t until_s) {
        return second_tell(&names_, offset_s, until_s);
    }
    bool tell_leap(std::int32_t change_s, std::uint64_t leap_tai_s) {
        return second_tell_leap(&names_, change_s, leap_tai_s);
    }
    // The step of this second; what it says is done by the caller, and a load told by loaded().
    const servo_output& step(std::uint64_t now_q32, std::int64_t slew_left_q64) {
        servo_input in{};
        edges_tell(&came_, &in);
        second_name_t name{};
        second_input(&names_, second_q32_, &name, &in);
        in.moves = moves_;
        if (told_) {
            in.flags |= told_;
            in.tai_s = name.tai_s = told_s_;
            in.accuracy_ns = told_ns_;
            name.flags |= SECOND_TAI;
            told_ = 0;
        }
        if (accept_) in.flags |= SERVO_IN_ACCEPT;
        accept_ = false;
        in.slew_left_q64 = slew_left_q64;
        in.now_q32 = now_q32;
        servo_step(&servo_, &in, &out_);
        input_ = in;
        steps_++;
        const bool load = out_.flags & SERVO_OUT_LOAD;
        const std::uint64_t then_q32 = now_q32 + (load ? static_cast<std::uint64_t>(out_.load_delta_q32) : 0);
        second_publish(&names_, out_.state != SERVO_COLD         ? then_q32 >> 32
                                : (name.flags & SECOND_TAI) != 0 ? name.tai_s
                                                                 : 0);
        if (out_.state == SERVO_COLD && !cold_) second_forget(&names_);
        cold_ = out_.state == SERVO_COLD;
        second_q32_ += SECOND_Q32;
        if (!cold_ && !load) second_q32_ = (second_q32_ + SECOND_Q32 / 2) & ~(SECOND_Q32 - 1);
        next_second();
        return out_;
    }
    // What the last step's load has moved the clock by; 0: it was refused.
    void loaded(std::int64_t delta_q32) {
        const auto delta = static_cast<std::uint64_t>(delta_q32);
        second_shift(&names_, delta);
        second_q32_ += delta;
        if (!cold_) second_q32_ = (second_q32_ + SECOND_Q32 / 2) & ~(SECOND_Q32 - 1);
        next_second();
    }
    const servo_input& input() const { return input_; }
    const second& names() const { return names_; }
    const receiver& heard() const { return gps_; }
    bool cold() const { return cold_; }
    std::uint64_t steps() const { return steps_; }
    std::uint64_t pulses() const { return pulses_; }
    std::uint64_t extra_pulses() const { return extra_pulses_; }

  private:
    void take(std::uint32_t kind, std::uint64_t now_q32) {
        for (; kind != RECEIVER_NONE; kind = receiver_next(&gps_))
            second_message(&names_, &gps_, kind, now_q32);
    }
    void next_second() {
        edges_start(&came_, !cold_,
                    second_q32_ + static_cast<std::uint64_t>(std::int64_t{cold_ ? 0 : out_.expected_q32}));
    }

    servo_config config_;
    receiver gps_;
    second names_;
    servo_state servo_;
    servo_output out_{};
    servo_input input_{};
    edges came_;
    std::uint64_t second_q32_ = 0, steps_ = 0, pulses_ = 0, extra_pulses_ = 0;
    std::uint64_t told_s_ = 0;
    std::uint32_t moves_ = 0, told_ = 0, told_ns_ = 0;
    bool cold_ = true, accept_ = false;
};

}  // namespace twinstamp::gps

#endif
