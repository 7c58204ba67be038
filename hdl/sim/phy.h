// SPDX-License-Identifier: Apache-2.0
// A gigabit PHY as the simulated card sees it: management of IEEE 802.3 clause 22 (registers 0 to 5, 9, 10,
// 15), auto-negotiation that takes its time, and a latency of each direction that is drawn anew whenever the
// link comes up. hdl/sim/phy_model.sv is its like for tests of single blocks.
#pragma once

#include <cstdint>

namespace twinstamp::sim {

class Phy {
  public:
    static constexpr uint8_t ADDRESS = 1;
    static constexpr uint64_t NEVER_DUE = UINT64_MAX;

    bool operator==(const Phy&) const = default;
    bool link() const { return link_; }
    // Frames pass: the card knows gigabit only.
    bool carries() const {
        return link_ &&
               (control_ & 0x1000 ? (gigabit_ >> 8 & partner_gigabit_) != 0 : (control_ & 0x40) != 0);
    }
    // What the pull-up and whoever drives make of the wire.
    bool wire() const { return !drives_ || out_; }
    // Core clock cycle at which the link comes up; NEVER_DUE: it is up, or cannot.
    uint64_t due() const { return due_; }

    // A cable plugged or pulled, and what the other end offers (register 5; full and half gigabit as bits 1,
    // 0).
    void plug(bool cable, uint16_t partner, uint8_t gigabit, uint64_t cycle) {
        cable_ = cable;
        partner_ = partner;
        partner_gigabit_ = gigabit;
        restart(cycle);
    }
    void set_negotiation(uint64_t cycles) { negotiation_ = cycles; }
    void come_up() {
        due_ = NEVER_DUE;
        link_ = true;
    }
    // A rising edge of MDC; `in`: the wire before it. True: the link went down or negotiates anew.
    bool rise(bool in, uint64_t cycle) {
        ++bit_;
        switch (state_) {
            case State::preamble:
                bit_ = 1;
                if (in) {
                    if (ones_ < 32) ++ones_;
                } else {
                    if (ones_ == 32) {
                        state_ = State::head;
                        head_ = 0;
                    }
                    ones_ = 0;
                }
                return false;
            case State::head:
                head_ = head_ << 1 | in;
                if (bit_ == 14) state_ = State::data;
                return false;
            case State::data:
                break;
        }
        const bool mine = (head_ >> 5 & 31) == ADDRESS, reads = (head_ >> 10 & 3) == 2;
        // Bits 14 and 15 are the turnaround: a read is answered from the second one on.
        if (bit_ == 15 && mine && reads) {
            drives_ = true;
            out_ = false;
            shift_ = value(head_ & 31);
        } else {
            out_ = shift_ >> 15 & 1;
            shift_ = static_cast<uint16_t>(shift_ << 1 | in);
        }
        if (bit_ != 32) return false;
        state_ = State::preamble;
        drives_ = false;
        return mine && (head_ >> 10 & 3) == 1 && write(head_ & 31, shift_, cycle);
    }

  private:
    enum class State { preamble, head, data };

    uint16_t value(uint32_t index) {
        const bool complete = link_ && (control_ & 0x1000);
        switch (index) {
            case 0:
                return control_;
            case 1: {
                const bool up = link_ && !low_seen_;
                low_seen_ = !link_;
                return static_cast<uint16_t>(0x7949 | complete << 5 | up << 2);
            }
            case 2:
                return 0x0022;
            case 3:
                return 0x1622;
            case 4:
                return ability_;
            case 5:
                return complete ? partner_ | 0x4000 : 0;
            case 9:
                return gigabit_;
            case 10:
                return complete ? static_cast<uint16_t>(0x3000 | partner_gigabit_ << 10) : 0;
            case 15:
                return 0x3000;
            default:
                return 0;
        }
    }
    bool write(uint32_t index, uint16_t data, uint64_t cycle) {
        if (index == 4) ability_ = data;
        if (index == 9) gigabit_ = data & 0x1F00;
        if (index != 0) return false;
        if (data & 0x8000) {
            control_ = 0x1140;
            ability_ = 0x01E1;
            gigabit_ = 0x0300;
        } else {
            control_ = data & 0x3D40;
            if (!(data & 0x0200)) return false;
        }
        restart(cycle);
        return true;
    }
    void restart(uint64_t cycle) {
        link_ = false;
        low_seen_ = true;
        const bool forced = !(control_ & 0x1000);
        const bool common = (gigabit_ >> 8 & partner_gigabit_) || (ability_ >> 5 & partner_ >> 5 & 15);
        due_ = cable_ && (forced || common) ? cycle + (forced ? 1 : negotiation_) : NEVER_DUE;
    }

    bool link_ = true, low_seen_ = false, cable_ = true;
    uint64_t due_ = NEVER_DUE, negotiation_ = 2000;
    uint16_t control_ = 0x1140, ability_ = 0x01E1, gigabit_ = 0x0300, partner_ = 0x01E1;
    uint8_t partner_gigabit_ = 2;

    State state_ = State::preamble;
    int bit_ = 0, ones_ = 0;
    uint32_t head_ = 0;  // operation, PHY, register
    uint16_t shift_ = 0;
    bool drives_ = false, out_ = true;
};

}  // namespace twinstamp::sim
