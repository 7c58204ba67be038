// SPDX-License-Identifier: Apache-2.0
// The Verilated card in a world of its own: clocks with femtosecond edges, GMII wires that know the true
// time of each byte, host memory behind AXI, registers behind AXI-Lite.
//
// One call runs many cycles. Each event is one rising edge of one clock; nothing happens at falling ones.
// What a flip-flop samples at an edge is what stood on its input before it: the harness changes inputs after
// an edge's evaluation, as hardware behind registers does.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cloud.h"
#include "phy.h"
#include "pps_sampler.h"
#include "serial_line.h"

class VerilatedContext;
class Vtwinstamp_card;
class VerilatedFstC;

namespace twinstamp::sim {

constexpr int PORTS = 4;
constexpr int64_t NEVER = INT64_MAX;

// Edges at start + k * period, kept to 2^-32 fs.
struct Clock {
    int64_t next_fs = 0;
    uint32_t next_fraction = 0;
    int64_t period_fs = 8'000'000;
    uint32_t period_fraction = 0;
    int64_t last_fs = -1'000'000'000;
    int64_t before_fs = -1'008'000'000;  // the edge before the last
    uint64_t edges = 0;
    // Wander: the period is set anew every INTERVAL edges, from the seed and the interval's number.
    static constexpr uint32_t INTERVAL = 1024;
    int64_t nominal_fs = 8'000'000;
    uint32_t nominal_fraction = 0;
    uint64_t wander_seed = 0, interval = 0;
    double white = 0, walk = 0, drift = 0;  // fractional frequency: per interval, its step, the walk's sum
    uint32_t left = 0;                      // edges of this interval, 0: no wander

    void set_period(int64_t fs, uint32_t fraction) {
        nominal_fs = period_fs = fs;
        nominal_fraction = period_fraction = fraction;
    }
    void advance() {
        before_fs = last_fs;
        last_fs = next_fs;
        const uint64_t fraction = uint64_t{next_fraction} + period_fraction;
        next_fraction = static_cast<uint32_t>(fraction);
        next_fs += period_fs + static_cast<int64_t>(fraction >> 32);
        ++edges;
        if (left && --left == 0) renew();
    }
    void skip(uint64_t n);                   // n times advance()
    uint64_t edges_until(int64_t fs) const;  // at or before it
    void renew();
};

// One carrier event to put on a wire. Layout shared with host/twinstamp/card/sim.py.
struct WireItem {
    uint64_t offset;        // first byte after the SFD, in the bytes handed over with it
    uint32_t length;        // bytes after the SFD, without the FCS where add_fcs
    uint32_t gap;           // idle byte times before it, at least
    int64_t not_before_fs;  // wait until then, 0: do not
    uint16_t preamble;      // bytes 0x55 before the SFD
    uint8_t flags;          // WIRE_*
    uint8_t damage;         // exclusive-or into the last byte of the FCS
    uint32_t error_at;      // byte after the SFD with RX_ER, 0xFFFFFFFF: none
};
static_assert(sizeof(WireItem) == 32);
enum : uint8_t {
    WIRE_ADD_FCS = 1,
    WIRE_NO_SFD = 2,  // preamble, then the bytes, without an SFD
    WIRE_MARKS = 4,   // behind the bytes stands a mark for each: 1 RX_ER, 2 no RX_DV
};

// Truth about one WireItem.
struct WireTruth {
    int64_t sfd_fs, first_fs;       // when SFD and first byte appeared on the pins; -1: not in it
    uint64_t sfd_q32, first_q32;    // card time at those instants, interpolated between its edges
    uint32_t sfd_rest, first_rest;  // 32 more fraction bits of those
};
static_assert(sizeof(WireTruth) == 40);

class CardSim {
  public:
    explicit CardSim(uint64_t seed);
    ~CardSim();
    CardSim(const CardSim&) = delete;
    CardSim& operator=(const CardSim&) = delete;

    void set_clock(int which, int64_t period_fs, uint32_t period_fraction, int64_t phase_fs);
    void set_memory(uint64_t address, uint8_t* memory, uint64_t bytes);
    // Each cycle a ready signal is low with probability stall / 65536; responses take latency_min to
    // latency_max cycles.
    void set_stall(uint32_t stall, uint32_t latency_min, uint32_t latency_max);
    void set_error(uint32_t after_bursts);  // answer this and later bursts with SLVERR; 0: never
    void set_window(int64_t window_fs) { window_fs_ = window_fs; }

    void send(int port, const WireItem* items, uint64_t n, const uint8_t* bytes, uint64_t size);
    uint64_t pending(int port) const {
        return wires_[port].items.size() + arrivals_[port].size() + (wires_[port].active ? 1 : 0);
    }
    uint64_t truth(int port, WireTruth* out, uint64_t room);
    // What the pins of a port say at each edge of its receive clock, from now on: data, 256 RX_DV, 512 RX_ER.
    void record(int port, bool on) { recording_[port] = on; }
    uint64_t recorded(int port, uint16_t* out, uint64_t room);

    // The PHY of a port: its cable, and what the other end offers; while its link is down nothing is received
    // or sent (what waits on a wire waits on).
    void plug(int port, bool cable, uint16_t partner, uint8_t gigabit);
    // Latency of each direction, drawn from least to most whenever the link comes up (it changes what cables
    // take from pins to pins), from then on; cycles of negotiation.
    void set_phy(int port, int64_t least_fs, int64_t most_fs, uint64_t negotiation);
    bool phy(int port, int64_t& tx_fs, int64_t& rx_fs) const {
        tx_fs = tx_latency_fs_[port];
        rx_fs = rx_latency_fs_[port];
        return phys_[port].link();
    }

    // Joins this card's transmitter to another's (or its own) receiver: a cable of delay_fs, at least a
    // period. The receiver's recovered clock follows this card's core clock from now on.
    void connect(int port, CardSim& to, int to_port, int64_t delay_fs);
    // Joins this card's transmitter to a cloud; frames leave it on its receiver's own clock.
    void connect(int port, const std::shared_ptr<Cloud>& cloud);
    bool has_cable(int port) const { return cables_[port] != nullptr; }
    // Frames into a cloud from a source at the host: WireItem as on a wire, at 8 ns a byte.
    static void source(Cloud& cloud, const WireItem* items, uint64_t n, const uint8_t* bytes);
    void attach(int port, const std::shared_ptr<Cloud>& cloud) { clouds_[port].push_back(cloud); }
    void arrive(int port, Cloud* cloud, Arrival arrival);
    // white, walk: standard deviation of the fractional frequency in an interval, of its step between two.
    void set_wander(int which, double white, double walk, uint64_t seed);
    const Clock& clock(int which) const { return clocks_[which]; }

    // A GPS receiver: its PPS line changes at fs, later than ever before (false: it does not); bytes on its
    // serial line; the sampler's aperture jitter and half its undecided window.
    bool pulse(int64_t fs);
    void serial(int64_t start_fs, int64_t bit_fs, const uint8_t* bytes, uint64_t n);
    void set_sampler(int64_t jitter_fs, int64_t window_fs) { sampler_.set_noise(jitter_fs, window_fs); }

    void run_cycles(uint64_t n);
    void run_until(int64_t fs);  // all edges at or before fs
    // Idle time in one step from now on; the same to the last bit.
    void set_warp(bool on) { warping_ = on; }
    uint64_t warped() const { return warped_; }  // cycles that were not run one by one
    // The bytes of every signal in the model; returns how many.
    uint64_t state(uint8_t* out, uint64_t room);
    // Runs until the wire's queues are empty, or n cycles have passed; returns cycles run.
    uint64_t run_wires(uint64_t n);
    bool write(uint32_t address, uint32_t data, uint8_t strobe = 15);
    bool read(uint32_t address, uint32_t& data);

    int64_t now_fs() const { return now_fs_; }
    uint64_t cycles() const { return cycles_; }
    uint64_t bursts() const { return bursts_; }
    bool trace(const std::string& path);
    // Each edge through Verilator's eval(), for comparison: the same, slower.
    void set_plain(bool on);
    const uint32_t* card_time() const;  // q72, four words

  private:
    void unplug(int port, const CardSim& to, int to_port);
    struct Wire {
        std::deque<WireItem> items;
        std::deque<std::vector<uint8_t>> pools;  // bytes of the items, in order
        std::deque<uint64_t> pool_items;         // items left per pool
        WireItem item{};
        std::vector<uint8_t> bytes;  // of a frame out of a cloud
        Cloud* cloud = nullptr;      // where it came from
        uint64_t cloud_index = 0;
        bool active = false;
        const uint8_t* next = nullptr;  // bytes that follow with nothing special about them
        int64_t plain = 0;              // how many
        int64_t place = 0;              // of the next byte: negative: idle, then preamble, SFD, bytes, FCS
        uint32_t gap_left = 0;
        uint32_t crc = 0;
        uint32_t idle = 1000;  // byte times since the last carrier
        uint64_t started = 0;
        std::vector<WireTruth> truths;
        uint64_t truth_base = 0;  // items whose truth was fetched
    };
    // One direction of a cable: bytes on their way, by the core clock edge at which they left.
    struct Cable {
        struct Symbol {
            int64_t left_fs;
            uint8_t value, error;
        };
        CardSim* from = nullptr;
        int from_port = 0;
        int64_t delay_fs = 0;
        std::deque<Symbol> symbols;
        bool carrier = false, sfd_seen = false, first_next = false;
    };
    // What a transmitter sends into a cloud, until its frame is whole.
    struct Collector {
        std::shared_ptr<Cloud> cloud;
        std::vector<uint8_t> bytes;
        int64_t sfd_fs = -1;
        bool carrier = false, error = false;
    };
    struct Waiting {
        Cloud* cloud;
        Arrival arrival;
        uint64_t order;
    };
    struct PendingTruth {
        int port;
        uint64_t index;
        bool first;
        int64_t at_fs;
    };
    struct Beat {
        uint64_t data;
        bool last;
    };
    struct Response {
        uint64_t due;
        uint8_t code;
    };

    void step();
    void edge(int event);
    void rest();
    void wake(uint32_t bits);
    void rouse();
    void doze();
    void settle();
    void move_polls(uint64_t cycles);
    uint64_t until_poll() const;
    void check_edges();
    void warp(uint64_t end_cycles, int64_t end_fs);
    bool still() const;
    bool settled();
    uint64_t round_of_polls();
    bool leap(uint64_t end_cycles, int64_t end_fs);
    int64_t next_activity() const;
    void core_edge();
    void rx_edge(int port);
    void drive_wire(int port);
    void leave_wire(int port);
    bool take_arrival(int port);
    void collect();
    void drive_cable(int port, Cable& cable);
    void follow(int port);
    // From the sender's pins to this card's.
    int64_t path_fs(int port) const {
        const Cable& cable = *cables_[port];
        return cable.delay_fs + cable.from->tx_latency_fs_[cable.from_port] + rx_latency_fs_[port];
    }
    void drive_receiver();
    void management_edge();
    void watch_links();
    void links_up();
    void memory_edge(bool b);
    void read_edge(bool ar, bool r);
    void resolve(const uint32_t before[4]);
    uint32_t random() { return static_cast<uint32_t>(random_()); }

    std::unique_ptr<VerilatedContext> context_;
    std::unique_ptr<Vtwinstamp_card> top_;
    std::unique_ptr<VerilatedFstC> trace_;
    std::mt19937 random_;  // of the memory
    uint64_t seed_;        // of what flip-flops catch
    Clock clocks_[1 + PORTS];
    int last_event_ = -1;
    bool plain_ = true;
    bool register_edge_ = false;      // this core edge is one of the register block's clock too
    bool aux_edge_ = false;           // … and of the clock of PPS, serial line and soft core
    uint32_t awake_ = ~0u;            // parts of the model that are evaluated, see edge.cpp
    std::array<uint32_t, 4> calm_{};  // what could have slept at the last looks
    uint64_t slept_ = 0, sleep_ = 0;  // cycles that the PHYs' timers are behind, and may be
    uint32_t stale_ = 0;              // ports whose inputs changed since the model saw them
    int64_t now_fs_ = 0;
    uint64_t cycles_ = 0;
    uint32_t register_cycles_ = 64;  // cycles that the register block's clock still runs
    int64_t window_fs_ = 50'000;
    // Edges of one clock since the other's last: with two, the change that a flip-flop sees may be the
    // earlier one, which is not near.
    int rx_edges_[PORTS] = {}, core_edges_[PORTS] = {};
    Wire wires_[PORTS];
    std::vector<PendingTruth> pending_truths_;
    bool recording_[PORTS] = {};
    std::vector<uint16_t> recorded_[PORTS];

    std::unique_ptr<Cable> cables_[PORTS];                   // into this card's ports
    std::vector<std::pair<CardSim*, int>> outgoing_[PORTS];  // where each transmitter goes
    std::vector<std::shared_ptr<Cloud>> clouds_[PORTS];      // that end at this card's ports
    std::vector<Waiting> arrivals_[PORTS];                   // a heap, the first to come on top
    uint64_t arrival_order_ = 0;
    std::vector<Collector> collectors_[PORTS];
    bool collecting_ = false;
    bool warping_ = false;
    uint64_t warped_ = 0;
    std::vector<uint8_t> snapshot_;
    // The model some time ago, between two polls.
    struct Round {
        std::vector<uint8_t> bytes;
        std::vector<std::pair<uint32_t, uint32_t>> timers;
        Phy phys[PORTS];
        uint64_t cycle = 0;
    } round_;

    PpsSampler sampler_;
    SerialLine serial_;
    bool receiver_ = false;

    Phy phys_[PORTS];
    int64_t latency_least_fs_[PORTS] = {}, latency_most_fs_[PORTS] = {};
    int64_t tx_latency_fs_[PORTS] = {}, rx_latency_fs_[PORTS] = {};
    uint64_t link_due_ = Phy::NEVER_DUE;  // cycle of the next link that comes up
    uint8_t mdc_ = 0;

    uint8_t* memory_ = nullptr;
    uint64_t memory_address_ = 0, memory_bytes_ = 0;
    uint32_t stall_ = 0, latency_min_ = 8, latency_max_ = 8;
    uint64_t bursts_ = 0;
    uint32_t error_after_ = 0;
    uint64_t read_address_ = 0, read_due_ = 0;  // the read burst under way
    int read_left_ = 0;
    uint8_t read_code_ = 0;
    std::deque<uint64_t> burst_address_;  // bursts whose data is to come
    std::deque<uint8_t> burst_code_;
    std::deque<Beat> beats_;
    std::deque<Response> responses_;
    uint64_t last_due_ = 0;
};

}  // namespace twinstamp::sim
