// SPDX-License-Identifier: Apache-2.0
#include "card_sim.h"

#include <malloc.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "Vtwinstamp_card.h"
#include "random.h"
#include "verilated.h"
#if VM_TRACE_FST
#include "verilated_fst_c.h"
#else
class VerilatedFstC {};
#endif

namespace twinstamp::sim {
namespace {

constexpr std::array<uint32_t, 256> crc_table() {
    std::array<uint32_t, 256> table{};
    for (uint32_t i = 0; i < 256; ++i) {
        uint32_t c = i;
        for (int k = 0; k < 8; ++k) c = c & 1 ? (c >> 1) ^ 0xEDB88320u : c >> 1;
        table[i] = c;
    }
    return table;
}
constexpr auto CRC = crc_table();

// The first to come on top of a heap.
constexpr auto LATER = [](const auto& a, const auto& b) {
    return a.arrival.due_fs != b.arrival.due_fs ? a.arrival.due_fs > b.arrival.due_fs : a.order > b.order;
};

constexpr uint8_t OKAY = 0, SLVERR = 2, DECERR = 3;

using u128 = unsigned __int128;

}  // namespace

void Clock::renew() {
    left = INTERVAL;
    drift += walk * gaussian(wander_seed, 0, interval);
    const double y = drift + white * gaussian(wander_seed, 1, interval);
    ++interval;
    const int64_t change = std::llround(y * static_cast<double>(nominal_fs) * 0x1p32);
    const auto period =
        static_cast<__int128>((u128{static_cast<uint64_t>(nominal_fs)} << 32) | nominal_fraction) - change;
    period_fs = static_cast<int64_t>(period >> 32);
    period_fraction = static_cast<uint32_t>(period);
}

void Clock::skip(uint64_t n) {
    while (n > 2) {
        // All but the last edges of an interval at once.
        const uint64_t most = left ? uint64_t{left} - 1 : n;
        const uint64_t k = std::min(n - 2, most);
        if (k) {
            const u128 sum =
                ((u128{static_cast<uint64_t>(period_fs)} << 32) | period_fraction) * k + next_fraction;
            next_fraction = static_cast<uint32_t>(sum);
            next_fs += static_cast<int64_t>(sum >> 32);
            edges += k;
            n -= k;
            if (left) left -= static_cast<uint32_t>(k);
        } else {
            advance();
            --n;
        }
    }
    for (; n; --n) advance();
}

uint64_t Clock::edges_until(int64_t fs) const {
    uint64_t n = 0;
    Clock clock = *this;
    while (clock.next_fs <= fs) {
        uint64_t k = static_cast<uint64_t>((fs - clock.next_fs) / (clock.period_fs + 1));
        if (clock.left) k = std::min(k, uint64_t{clock.left});
        if (k == 0) k = 1;
        clock.skip(k);
        n += k;
    }
    return n;
}

CardSim::CardSim(uint64_t seed)
    : random_(static_cast<std::mt19937::result_type>(seed ^ (seed >> 32))), seed_(seed), sampler_(seed) {
    context_ = std::make_unique<VerilatedContext>();
    context_->traceEverOn(true);
    context_->randReset(0);
    mallopt(M_PERTURB, 0xFF);  // new memory is 0: two models can be compared, padding included
    top_ = std::make_unique<Vtwinstamp_card>(context_.get());
    mallopt(M_PERTURB, 0);
    for (int c = 1; c <= PORTS; ++c) clocks_[c].next_fs = 1'000'000 + 1'500'000 * c;
    top_->rst_ni = 0;
    top_->clk_i = 0;
    top_->clk_reg_i = 0;
    top_->aux_clk_i = 0;
    top_->uart_rx_i = 1;
    top_->rx_clk_i = 0;
    top_->m_axi_awready = 1;
    top_->m_axi_wready = 1;
    top_->m_axi_arready = 1;
    top_->s_axil_bready = 1;
    top_->s_axil_rready = 1;
    for (int p = 0; p < PORTS; ++p) {
        top_->rxd_i[p] = 0;
        top_->late_i[p] = 0;
    }
    top_->rx_dv_i = 0;
    top_->rx_er_i = 0;
    top_->mdio_i = 15;
    top_->eval();
    run_cycles(8);
    top_->rst_ni = 1;
    run_cycles(8);
    check_edges();
    set_plain(false);
}

CardSim::~CardSim() {
    for (int p = 0; p < PORTS; ++p) {
        if (cables_[p] && cables_[p]->from != this) cables_[p]->from->unplug(cables_[p]->from_port, *this, p);
        for (auto [card, port] : outgoing_[p]) {
            if (card != this) card->cables_[port].reset();
        }
        for (const auto& cloud : clouds_[p]) cloud->to = nullptr;
        for (const auto& collector : collectors_[p]) collector.cloud->from = nullptr;
    }
#if VM_TRACE_FST
    if (trace_) trace_->close();
#endif
    // A model takes leave of the context in force, which eval() sets and the harness's own edges do not: it
    // may be that of another card, long gone.
    Verilated::threadContextp(context_.get());
    top_->final();
    top_.reset();
    Verilated::threadContextp(nullptr);
}

bool CardSim::trace(const std::string& path) {
#if VM_TRACE_FST
    trace_ = std::make_unique<VerilatedFstC>();
    trace_->set_time_unit("1fs");
    trace_->set_time_resolution("1fs");
    top_->trace(trace_.get(), 99);
    trace_->open(path.c_str());
    if (trace_->isOpen()) set_plain(true);
    return trace_->isOpen();
#else
    (void)path;
    return false;
#endif
}

void CardSim::set_clock(int which, int64_t period_fs, uint32_t period_fraction, int64_t phase_fs) {
    Clock& clock = clocks_[which];
    calm_ = {};  // it may stand from now on
    clock.set_period(period_fs, period_fraction);
    if (phase_fs >= 0) {
        clock.next_fs = now_fs_ + 1 + phase_fs;
        clock.next_fraction = 0;
    }
    if (which != 0) return;
    for (auto& ends : outgoing_) {
        for (auto [card, port] : ends) card->follow(port);
    }
}

void CardSim::set_wander(int which, double white, double walk, uint64_t seed) {
    Clock& clock = clocks_[which];
    clock.white = white;
    clock.walk = walk;
    clock.wander_seed = seed;
    clock.interval = 0;
    clock.drift = 0;
    clock.left = 0;
    clock.set_period(clock.nominal_fs, clock.nominal_fraction);
    if (white > 0 || walk > 0) clock.renew();
    if (which != 0) return;
    for (auto& ends : outgoing_) {
        for (auto [card, port] : ends) card->follow(port);
    }
}

void CardSim::connect(int port, const std::shared_ptr<Cloud>& cloud) {
    cloud->from = this;
    collectors_[port].push_back({cloud, {}, -1, false, false});
    collecting_ = true;
}

void CardSim::source(Cloud& cloud, const WireItem* items, uint64_t n, const uint8_t* bytes) {
    std::vector<uint8_t> frame;
    for (const WireItem* item = items; item < items + n; ++item) {
        const int64_t start = std::max(
            {cloud.source_fs + int64_t{item->gap} * 8'000'000, item->not_before_fs, cloud.to->now_fs()});
        frame.assign(bytes + item->offset, bytes + item->offset + item->length);
        if (item->flags & WIRE_ADD_FCS) {
            uint32_t crc = 0xFFFFFFFFu;
            for (const uint8_t value : frame) crc = (crc >> 8) ^ CRC[(crc ^ value) & 0xFF];
            for (int k = 0; k < 4; ++k) frame.push_back(static_cast<uint8_t>(~crc >> (8 * k)));
        }
        const int64_t sfd = start + int64_t{item->preamble} * 8'000'000;
        cloud.source_fs = sfd + (static_cast<int64_t>(frame.size()) + 1) * 8'000'000;
        cloud.frame(sfd, cloud.source_fs, frame.data(), frame.size());
    }
}

void CardSim::arrive(int port, Cloud* cloud, Arrival arrival) {
    auto& heap = arrivals_[port];
    heap.push_back({cloud, std::move(arrival), arrival_order_++});
    std::push_heap(heap.begin(), heap.end(), LATER);
}

// The next frame out of a cloud onto an idle wire, where one is due.
bool CardSim::take_arrival(int port) {
    auto& heap = arrivals_[port];
    Wire& wire = wires_[port];
    if (heap.empty() || heap.front().arrival.due_fs > now_fs_ || wire.idle <= 12) return false;
    std::pop_heap(heap.begin(), heap.end(), LATER);
    wire.bytes = std::move(heap.back().arrival.bytes);
    wire.cloud = heap.back().cloud;
    wire.cloud_index = heap.back().arrival.index;
    heap.pop_back();
    wire.item = {0, static_cast<uint32_t>(wire.bytes.size()), 12, 0, 7, 0, 0, 0xFFFFFFFFu};
    return true;
}

// What the transmitters send, into their clouds.
void CardSim::collect() {
    for (int p = 0; p < PORTS; ++p) {
        const bool enabled = top_->tx_en_o >> p & 1;
        for (Collector& collector : collectors_[p]) {
            if (!enabled) {
                // A frame without an SFD or with an error mark goes no further.
                if (collector.carrier && collector.sfd_fs >= 0 && !collector.error) {
                    collector.cloud->frame(collector.sfd_fs, now_fs_, collector.bytes.data(),
                                           collector.bytes.size());
                }
                collector.carrier = false;
                continue;
            }
            if (!collector.carrier) {
                collector.carrier = true;
                collector.error = false;
                collector.sfd_fs = -1;
                collector.bytes.clear();
            }
            collector.error |= top_->tx_er_o >> p & 1;
            if (collector.sfd_fs >= 0) {
                collector.bytes.push_back(top_->txd_o[p]);
            } else if (top_->txd_o[p] == 0xD5) {
                collector.sfd_fs = now_fs_;
            }
        }
    }
}

// No more symbols of `port` to that end.
void CardSim::unplug(int port, const CardSim& to, int to_port) {
    std::erase_if(outgoing_[port],
                  [&](const auto& end) { return end.first == &to && end.second == to_port; });
}

void CardSim::connect(int port, CardSim& to, int to_port, int64_t delay_fs) {
    if (const Cable* old = to.cables_[to_port].get()) old->from->unplug(old->from_port, to, to_port);
    auto cable = std::make_unique<Cable>();
    cable->from = this;
    cable->from_port = port;
    cable->delay_fs = delay_fs;
    to.cables_[to_port] = std::move(cable);
    outgoing_[port].emplace_back(&to, to_port);
    to.follow(to_port);
}

// The recovered clock: the sender's edges, a cable later.
void CardSim::follow(int port) {
    calm_ = {};  // as in set_clock
    const Cable& cable = *cables_[port];
    Clock clock = cable.from->clocks_[0];
    clock.next_fs += path_fs(port);
    while (clock.next_fs <= now_fs_) clock.advance();
    clock.last_fs = clocks_[1 + port].last_fs;
    clock.before_fs = clocks_[1 + port].before_fs;
    clocks_[1 + port] = clock;
}

void CardSim::drive_cable(int port, Cable& cable) {
    const uint8_t bit = static_cast<uint8_t>(1u << port);
    const int64_t path = path_fs(port);
    if (cable.from != this) cable.from->run_until(now_fs_ - path);
    if (!phys_[port].carries()) cable.symbols.clear();
    Wire& wire = wires_[port];
    // Half a period of tolerance: a change of the clock leaves no byte behind.
    const int64_t latest = now_fs_ - path + 4'000'000;
    if (cable.symbols.empty() || cable.symbols.front().left_fs > latest) {
        cable.carrier = false;
        wire.active = false;
        top_->rx_dv_i &= static_cast<uint8_t>(~bit);
        top_->rx_er_i &= static_cast<uint8_t>(~bit);
        top_->rxd_i[port] = 0;
        return;
    }
    const Cable::Symbol symbol = cable.symbols.front();
    cable.symbols.pop_front();
    if (!cable.carrier) {
        cable.carrier = true;
        cable.sfd_seen = cable.first_next = false;
        wire.active = true;
        ++wire.started;
        wire.truths.push_back({-1, -1, 0, 0, 0, 0});
    }
    if (cable.first_next) {
        cable.first_next = false;
        wire.truths.back().first_fs = now_fs_;
        pending_truths_.push_back({port, wire.started - 1, true, now_fs_});
    } else if (!cable.sfd_seen && symbol.value == 0xD5) {
        cable.sfd_seen = cable.first_next = true;
        wire.truths.back().sfd_fs = now_fs_;
        pending_truths_.push_back({port, wire.started - 1, false, now_fs_});
    }
    top_->rxd_i[port] = symbol.value;
    top_->rx_dv_i |= bit;
    if (symbol.error) {
        top_->rx_er_i |= bit;
    } else {
        top_->rx_er_i &= static_cast<uint8_t>(~bit);
    }
}

void CardSim::run_until(int64_t fs) {
    if (warping_) {
        warp(UINT64_MAX, fs);
        return;
    }
    for (;;) {
        int64_t next = clocks_[0].next_fs;
        for (int c = 1; c <= PORTS; ++c) {
            if (clocks_[c].next_fs < next) next = clocks_[c].next_fs;
        }
        if (next > fs) return;
        step();
    }
}

void CardSim::set_memory(uint64_t address, uint8_t* memory, uint64_t bytes) {
    memory_address_ = address;
    memory_ = memory;
    memory_bytes_ = bytes;
}

void CardSim::set_stall(uint32_t stall, uint32_t latency_min, uint32_t latency_max) {
    stall_ = stall;
    latency_min_ = latency_min;
    latency_max_ = latency_max;
    if (stall == 0) top_->m_axi_awready = top_->m_axi_wready = 1;
}

void CardSim::set_error(uint32_t after_bursts) {
    error_after_ = after_bursts ? static_cast<uint32_t>(bursts_) + after_bursts : 0;
}

void CardSim::send(int port, const WireItem* items, uint64_t n, const uint8_t* bytes, uint64_t size) {
    if (n == 0) return;
    Wire& wire = wires_[port];
    wire.items.insert(wire.items.end(), items, items + n);
    wire.pools.emplace_back(bytes, bytes + size);
    wire.pool_items.push_back(n);
}

uint64_t CardSim::truth(int port, WireTruth* out, uint64_t room) {
    Wire& wire = wires_[port];
    uint64_t ready = wire.started - wire.truth_base - (wire.active ? 1 : 0);
    for (const auto& pending : pending_truths_) {
        if (pending.port == port && pending.index - wire.truth_base < ready)
            ready = pending.index - wire.truth_base;
    }
    const uint64_t n = ready < room ? ready : room;
    std::memcpy(out, wire.truths.data(), n * sizeof(WireTruth));
    wire.truths.erase(wire.truths.begin(), wire.truths.begin() + static_cast<std::ptrdiff_t>(n));
    wire.truth_base += n;
    return n;
}

// What the PHY puts on the pins right after the receive clock's edge.
void CardSim::drive_wire(int port) {
    Wire& wire = wires_[port];
    if (wire.plain > 0 && phys_[port].carries()) [[likely]] {
        --wire.plain;
        ++wire.place;
        const uint8_t value = *wire.next++;
        wire.crc = (wire.crc >> 8) ^ CRC[(wire.crc ^ value) & 0xFF];
        top_->rxd_i[port] = value;
        return;
    }
    const uint8_t bit = static_cast<uint8_t>(1u << port);
    if (!wire.active) {
        if (wire.idle != UINT32_MAX) ++wire.idle;
        const bool arrival = phys_[port].carries() && take_arrival(port);
        if (!arrival && wire.items.empty()) {
            if (top_->rx_dv_i & bit) {
                top_->rx_dv_i &= static_cast<uint8_t>(~bit);
                top_->rx_er_i &= static_cast<uint8_t>(~bit);
                top_->rxd_i[port] = 0;
            }
            return;
        }
        // idle counts this byte time too.
        if (!arrival && (wire.idle <= wire.items.front().gap || now_fs_ < wire.items.front().not_before_fs ||
                         !phys_[port].carries())) {
            if (top_->rx_dv_i & bit) {
                top_->rx_dv_i &= static_cast<uint8_t>(~bit);
                top_->rx_er_i &= static_cast<uint8_t>(~bit);
                top_->rxd_i[port] = 0;
            }
            return;
        }
        if (!arrival) {
            wire.item = wire.items.front();
            wire.items.pop_front();
        }
        wire.active = true;
        wire.place = 0;
        wire.crc = 0xFFFFFFFFu;
        ++wire.started;
        wire.truths.push_back({-1, -1, 0, 0, 0, 0});
    }
    // The link went: what was on its way is cut off (a cloud wants to know of an SFD first).
    if (!phys_[port].carries() && (!wire.cloud || wire.truths.back().sfd_fs >= 0)) {
        leave_wire(port);
        top_->rx_dv_i &= static_cast<uint8_t>(~bit);
        top_->rx_er_i &= static_cast<uint8_t>(~bit);
        top_->rxd_i[port] = 0;
        return;
    }
    const WireItem& item = wire.item;
    const int64_t place = wire.place++;
    const bool sfd = !(item.flags & WIRE_NO_SFD);
    const int64_t data = place - item.preamble - (sfd ? 1 : 0);
    const int64_t total = int64_t{item.length} + (item.flags & WIRE_ADD_FCS ? 4 : 0);
    uint8_t value = 0x55;
    bool error = false, carrier = true;
    if (data == -1 && sfd) {
        value = 0xD5;
        wire.truths.back().sfd_fs = now_fs_;
        if (wire.cloud) wire.cloud->arrived(wire.cloud_index, now_fs_);
        pending_truths_.push_back({port, wire.started - 1, false, now_fs_});
    } else if (data >= 0 && data < total) {
        if (data < item.length) {
            const auto& pool = wire.cloud ? wire.bytes : wire.pools.front();
            value = pool[item.offset + static_cast<uint64_t>(data)];
            wire.crc = (wire.crc >> 8) ^ CRC[(wire.crc ^ value) & 0xFF];
            if (item.flags & WIRE_MARKS) {
                const uint8_t mark = pool[item.offset + item.length + static_cast<uint64_t>(data)];
                error = mark & 1;
                carrier = !(mark & 2);
            }
        } else {
            const int64_t k = data - item.length;
            value = static_cast<uint8_t>(~wire.crc >> (8 * k));
            if (k == 3) value ^= item.damage;
        }
        error |= data == int64_t{item.error_at};
        if (data == 0 && sfd) {
            wire.truths.back().first_fs = now_fs_;
            pending_truths_.push_back({port, wire.started - 1, true, now_fs_});
            // RX_DV is high by now and RX_ER low: up to the last byte of the item only data changes.
            if (!(item.flags & WIRE_MARKS) && item.error_at >= item.length && item.length > 2) {
                wire.next = (wire.cloud ? wire.bytes : wire.pools.front()).data() + item.offset + 1;
                wire.plain = int64_t{item.length} - 2;
            }
        }
    }
    if (data >= total - 1) leave_wire(port);  // the last byte: the carrier goes with the next edge
    if (place == 0 && total + item.preamble + (sfd ? 1 : 0) == 0) return;
    top_->rxd_i[port] = value;
    if (carrier) {
        top_->rx_dv_i |= bit;
    } else {
        top_->rx_dv_i &= static_cast<uint8_t>(~bit);
    }
    if (error) {
        top_->rx_er_i |= bit;
    } else {
        top_->rx_er_i &= static_cast<uint8_t>(~bit);
    }
}

// The event under way on a wire is over.
void CardSim::leave_wire(int port) {
    Wire& wire = wires_[port];
    wire.active = false;
    wire.plain = 0;
    wire.idle = 0;
    if (wire.cloud) {
        wire.cloud = nullptr;
    } else if (--wire.pool_items.front() == 0) {
        wire.pool_items.pop_front();
        wire.pools.pop_front();
    }
}

uint64_t CardSim::recorded(int port, uint16_t* out, uint64_t room) {
    auto& all = recorded_[port];
    const uint64_t n = std::min<uint64_t>(all.size(), room);
    std::memcpy(out, all.data(), n * sizeof *out);
    all.erase(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(n));
    return n;
}

void CardSim::memory_edge(bool b) {
    auto* top = top_.get();
    if (b) responses_.pop_front();
    if (stall_) {
        top->m_axi_awready = (random() & 0xFFFF) >= stall_;
        top->m_axi_wready = (random() & 0xFFFF) >= stall_;
    }
    const bool valid = !responses_.empty() && responses_.front().due <= cycles_;
    top->m_axi_bvalid = valid;
    if (valid) top->m_axi_bresp = responses_.front().code;
}

void CardSim::resolve(const uint32_t before[4]) {
    const auto wide = [](const uint32_t* words) {
        return (u128{words[3]} << 96) | (u128{words[2]} << 64) | (u128{words[1]} << 32) | words[0];
    };
    const u128 c0 = wide(before), c1 = wide(card_time());
    const int64_t span = clocks_[0].last_fs - clocks_[0].before_fs;
    for (const auto& pending : pending_truths_) {
        const int64_t since = pending.at_fs - clocks_[0].before_fs;
        // c0 stands from the edge before until this one.
        const u128 at = c0 + (c1 - c0) * static_cast<u128>(since < 0 ? 0 : since) / static_cast<u128>(span);
        Wire& wire = wires_[pending.port];
        WireTruth& truth = wire.truths[pending.index - wire.truth_base];
        (pending.first ? truth.first_q32 : truth.sfd_q32) = static_cast<uint64_t>(at >> 40);
        (pending.first ? truth.first_rest : truth.sfd_rest) = static_cast<uint32_t>(at >> 8);
    }
    pending_truths_.clear();
}

const uint32_t* CardSim::card_time() const {
    return top_->now_q72_o.data();
}

void CardSim::core_edge() {
    auto* top = top_.get();
    for (int p = 0; p < PORTS; ++p) {
        uint8_t late = top->late_i[p] & 4;
        if (rx_edges_[p] == 1 && now_fs_ - clocks_[1 + p].last_fs < window_fs_)
            late |= static_cast<uint8_t>(draw(seed_, static_cast<uint64_t>(p), clocks_[0].edges) & 3);
        top->late_i[p] = late;
        rx_edges_[p] = 0;
        ++core_edges_[p];
    }
    // What stands on the bus before the edge is what the edge transfers.
    const bool aw = top->m_axi_awvalid && top->m_axi_awready;
    const bool w = top->m_axi_wvalid && top->m_axi_wready;
    const bool b = top->m_axi_bvalid && top->m_axi_bready;
    if (aw) {
        ++bursts_;
        const uint64_t address = top->m_axi_awaddr, bytes = 8ull * (top->m_axi_awlen + 1u);
        uint8_t code = OKAY;
        if (address < memory_address_ || address + bytes > memory_address_ + memory_bytes_) code = DECERR;
        if (error_after_ && bursts_ >= error_after_) code = SLVERR;
        burst_address_.push_back(address);
        burst_code_.push_back(code);
    }
    if (w) beats_.push_back({top->m_axi_wdata, top->m_axi_wlast != 0});
    // AXI lets data come before its address.
    while (!beats_.empty() && !burst_address_.empty()) {
        const Beat beat = beats_.front();
        beats_.pop_front();
        uint64_t& place = burst_address_.front();
        if (burst_code_.front() == OKAY) std::memcpy(memory_ + (place - memory_address_), &beat.data, 8);
        place += 8;
        if (beat.last) {
            uint64_t due = cycles_ + latency_min_;
            if (latency_max_ > latency_min_) due += random() % (latency_max_ - latency_min_ + 1);
            if (due < last_due_) due = last_due_;
            last_due_ = due;
            responses_.push_back({due, burst_code_.front()});
            burst_address_.pop_front();
            burst_code_.pop_front();
        }
    }
    const bool ar = top->m_axi_arvalid && top->m_axi_arready;
    const bool r = top->m_axi_rvalid && top->m_axi_rready;
    const uint64_t araddr = top->m_axi_araddr;
    const int beats = top->m_axi_arlen + 1;
    uint32_t before[4];
    const bool pending = !pending_truths_.empty();
    if (pending) std::memcpy(before, card_time(), sizeof before);
    edge(0);
    ++cycles_;
    if (pending) resolve(before);
    if (receiver_) drive_receiver();
    if (aw || w || b || stall_ || !responses_.empty()) memory_edge(b);
    if (ar) {
        read_address_ = araddr;
        read_left_ = beats;
        read_due_ = cycles_ + latency_min_;
        if (latency_max_ > latency_min_) read_due_ += random() % (latency_max_ - latency_min_ + 1);
        const uint64_t end = araddr + 8ull * static_cast<uint64_t>(beats);
        read_code_ = araddr < memory_address_ || end > memory_address_ + memory_bytes_ ? DECERR : OKAY;
    }
    if (read_left_ || r) read_edge(ar, r);
    if (top->mdc_o != mdc_) management_edge();
    if (cycles_ >= link_due_) links_up();
    if (top->tx_en_o) {
        for (int p = 0; p < PORTS; ++p) {
            if (!(top->tx_en_o >> p & 1) || !phys_[p].carries()) continue;
            for (auto [card, port] : outgoing_[p]) {
                card->cables_[port]->symbols.push_back(
                    {now_fs_, top->txd_o[p], static_cast<uint8_t>(top->tx_er_o >> p & 1)});
            }
        }
    }
    if (collecting_) collect();
}

// Pulse and serial line of a GPS receiver, behind the edge.
void CardSim::drive_receiver() {
    top_->pps_word_i = sampler_.word(now_fs_, clocks_[0].period_fs);
    top_->uart_rx_i = serial_.level(now_fs_);
}

bool CardSim::pulse(int64_t fs) {
    if (fs <= sampler_.last_change() || fs <= now_fs_ + clocks_[0].period_fs) return false;
    receiver_ = true;
    sampler_.change(fs);
    return true;
}

void CardSim::serial(int64_t start_fs, int64_t bit_fs, const uint8_t* bytes, uint64_t n) {
    receiver_ = true;
    serial_.send(std::max(start_fs, now_fs_), bit_fs, bytes, n, true);
}

void CardSim::plug(int port, bool cable, uint16_t partner, uint8_t gigabit) {
    phys_[port].plug(cable, partner, gigabit, cycles_);
    watch_links();
}

void CardSim::set_phy(int port, int64_t least_fs, int64_t most_fs, uint64_t negotiation) {
    latency_least_fs_[port] = least_fs;
    latency_most_fs_[port] = most_fs;
    phys_[port].set_negotiation(negotiation);
}

void CardSim::watch_links() {
    link_due_ = Phy::NEVER_DUE;
    for (const Phy& phy : phys_) link_due_ = phy.due() < link_due_ ? phy.due() : link_due_;
}

void CardSim::management_edge() {
    const auto rose = static_cast<uint8_t>(top_->mdc_o & ~mdc_);
    mdc_ = top_->mdc_o;
    for (int p = 0; p < PORTS; ++p) {
        if (!(rose >> p & 1)) continue;
        const bool master = !(top_->mdio_oe_o >> p & 1) || (top_->mdio_o >> p & 1);
        if (phys_[p].rise(master && phys_[p].wire(), cycles_)) watch_links();
        const auto bit = static_cast<uint8_t>(1u << p);
        top_->mdio_i = static_cast<uint8_t>((top_->mdio_i & ~bit) | (phys_[p].wire() ? bit : 0));
    }
}

void CardSim::links_up() {
    for (int p = 0; p < PORTS; ++p) {
        if (phys_[p].due() > cycles_) continue;
        phys_[p].come_up();
        const auto span = static_cast<uint64_t>(latency_most_fs_[p] - latency_least_fs_[p]) + 1;
        for (int64_t* latency : {&tx_latency_fs_[p], &rx_latency_fs_[p]}) {
            const uint64_t drawn = (uint64_t{random()} << 32 | random()) % span;
            *latency = latency_least_fs_[p] + static_cast<int64_t>(drawn);
        }
        if (cables_[p]) follow(p);
        for (auto [card, port] : outgoing_[p]) card->follow(port);
    }
    watch_links();
}

// One read burst at a time: this card asks for no more.
void CardSim::read_edge(bool ar, bool r) {
    auto* top = top_.get();
    if (r && !ar) {
        --read_left_;
        read_address_ += 8;
    }
    const bool valid = read_left_ > 0 && cycles_ >= read_due_ && !(stall_ && (random() & 0xFFFF) < stall_);
    top->m_axi_rvalid = valid;
    if (!valid) return;
    uint64_t data = 0;
    if (read_code_ == OKAY) std::memcpy(&data, memory_ + (read_address_ - memory_address_), 8);
    top->m_axi_rdata = data;
    top->m_axi_rresp = read_code_;
    top->m_axi_rlast = read_left_ == 1;
}

void CardSim::rx_edge(int port) {
    auto* top = top_.get();
    uint8_t late = top->late_i[port] & 3;
    if (core_edges_[port] == 1 && now_fs_ - clocks_[0].last_fs < window_fs_)
        late |= static_cast<uint8_t>(
            draw(seed_, PORTS + static_cast<uint64_t>(port), clocks_[1 + port].edges) & 4);
    if (top->late_i[port] != late) {
        top->late_i[port] = late;
        stale_ |= 1u << port;
    }
    core_edges_[port] = 0;
    ++rx_edges_[port];
    edge(1 + port);
    stale_ |= 1u << port;
    if (cables_[port]) {
        drive_cable(port, *cables_[port]);
    } else {
        for (const auto& cloud : clouds_[port]) {
            if (cloud->from && cloud->from != this) cloud->from->run_until(now_fs_ - cloud->delay_fs());
        }
        drive_wire(port);
    }
    if (recording_[port]) [[unlikely]] {
        recorded_[port].push_back(static_cast<uint16_t>(top->rxd_i[port] | (top->rx_dv_i >> port & 1) << 8 |
                                                        (top->rx_er_i >> port & 1) << 9));
    }
}

void CardSim::step() {
    int event = 0;
    int64_t at = clocks_[0].next_fs;
    for (int c = 1; c <= PORTS; ++c) {
        if (clocks_[c].next_fs < at) {
            at = clocks_[c].next_fs;
            event = c;
        }
    }
    if (plain_ && event == last_event_) rest();
    now_fs_ = at;
    clocks_[event].advance();
    last_event_ = event;
    if (event == 0) {
        if (top_->reg_active_o) register_cycles_ = 65;
        register_edge_ = register_cycles_ != 0;
        aux_edge_ = register_edge_ || top_->aux_active_o;
        if (register_cycles_) --register_cycles_;
        core_edge();
    } else {
        rx_edge(event - 1);
    }
#if VM_TRACE_FST
    if (trace_) trace_->dump(static_cast<uint64_t>(now_fs_));
#endif
}

void CardSim::run_cycles(uint64_t n) {
    if (warping_) {
        warp(cycles_ + n, NEVER);
        return;
    }
    for (const uint64_t end = cycles_ + n; cycles_ < end;) step();
}

uint64_t CardSim::run_wires(uint64_t n) {
    const uint64_t start = cycles_;
    while (cycles_ - start < n) {
        bool busy = false;
        for (int p = 0; p < PORTS; ++p) busy |= pending(p) != 0;
        if (!busy) break;
        // Always whole steps of 64, so that warped and plain runs end at the same cycle.
        uint64_t chunk = 64;
        if (warping_ && still()) {
            const int64_t ahead = (next_activity() - now_fs_) / 8'100'000 / 64 * 64;
            if (ahead > 256)
                chunk = std::min(static_cast<uint64_t>(ahead), (n - (cycles_ - start)) / 64 * 64);
            if (chunk == 0) chunk = 64;
        }
        run_cycles(chunk);
    }
    return cycles_ - start;
}

bool CardSim::write(uint32_t address, uint32_t data, uint8_t strobe) {
    auto* top = top_.get();
    top->s_axil_awaddr = address & 0x1FFFF;
    top->s_axil_wdata = data;
    top->s_axil_wstrb = strobe & 15;
    top->s_axil_awvalid = 1;
    top->s_axil_wvalid = 1;
    for (int i = 0; i < 1000; ++i) {
        const uint64_t cycle = cycles_;
        bool aw = false, w = false, b = false;
        register_cycles_ = 65;
        while (cycles_ == cycle) {
            aw = top->s_axil_awvalid && top->s_axil_awready;
            w = top->s_axil_wvalid && top->s_axil_wready;
            b = top->s_axil_bvalid;
            step();
        }
        if (aw) top->s_axil_awvalid = 0;
        if (w) top->s_axil_wvalid = 0;
        if (b) return true;
    }
    top->s_axil_awvalid = 0;
    top->s_axil_wvalid = 0;
    return false;
}

bool CardSim::read(uint32_t address, uint32_t& data) {
    auto* top = top_.get();
    top->s_axil_araddr = address & 0x1FFFF;
    top->s_axil_arvalid = 1;
    for (int i = 0; i < 1000; ++i) {
        const uint64_t cycle = cycles_;
        bool ar = false, r = false;
        register_cycles_ = 65;
        while (cycles_ == cycle) {
            ar = top->s_axil_arvalid && top->s_axil_arready;
            r = top->s_axil_rvalid;
            if (r) data = top->s_axil_rdata;
            step();
        }
        if (ar) top->s_axil_arvalid = 0;
        if (r) return true;
    }
    top->s_axil_arvalid = 0;
    return false;
}

}  // namespace twinstamp::sim
