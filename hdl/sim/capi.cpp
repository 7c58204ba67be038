// SPDX-License-Identifier: Apache-2.0
// C functions over CardSim, for host/twinstamp/card/sim.py (ctypes).
#include "card_sim.h"

using twinstamp::sim::CardSim;
using twinstamp::sim::Cloud;
using twinstamp::sim::CloudModel;
using twinstamp::sim::CloudTruth;
using twinstamp::sim::WireItem;
using twinstamp::sim::WireTruth;

#pragma GCC visibility push(default)
extern "C" {
// +1 whenever a signature or layout below changes.
int ts_abi() {
    return 5;
}
CardSim* ts_new(uint64_t seed) {
    return new CardSim(seed);
}
void ts_delete(CardSim* card) {
    delete card;
}
void ts_set_clock(CardSim* card, int which, int64_t period_fs, uint32_t fraction, int64_t phase_fs) {
    card->set_clock(which, period_fs, fraction, phase_fs);
}
void ts_set_memory(CardSim* card, uint64_t address, uint8_t* memory, uint64_t bytes) {
    card->set_memory(address, memory, bytes);
}
void ts_set_stall(CardSim* card, uint32_t stall, uint32_t latency_min, uint32_t latency_max) {
    card->set_stall(stall, latency_min, latency_max);
}
void ts_set_error(CardSim* card, uint32_t after_bursts) {
    card->set_error(after_bursts);
}
void ts_set_window(CardSim* card, int64_t window_fs) {
    card->set_window(window_fs);
}
void ts_send(CardSim* card, int port, const WireItem* items, uint64_t n, const uint8_t* bytes,
             uint64_t size) {
    card->send(port, items, n, bytes, size);
}
uint64_t ts_pending(CardSim* card, int port) {
    return card->pending(port);
}
uint64_t ts_truth(CardSim* card, int port, WireTruth* out, uint64_t room) {
    return card->truth(port, out, room);
}
void ts_run(CardSim* card, uint64_t cycles) {
    card->run_cycles(cycles);
}
uint64_t ts_run_wires(CardSim* card, uint64_t cycles) {
    return card->run_wires(cycles);
}
void ts_set_warp(CardSim* card, int on) {
    card->set_warp(on != 0);
}
uint64_t ts_state(CardSim* card, uint8_t* out, uint64_t room) {
    return card->state(out, room);
}
uint64_t ts_warped(CardSim* card) {
    return card->warped();
}
int ts_write(CardSim* card, uint32_t address, uint32_t data, uint32_t strobe) {
    return card->write(address, data, static_cast<uint8_t>(strobe));
}
void ts_record(CardSim* card, int port, int on) {
    card->record(port, on != 0);
}
uint64_t ts_recorded(CardSim* card, int port, uint16_t* out, uint64_t room) {
    return card->recorded(port, out, room);
}
int ts_read(CardSim* card, uint32_t address, uint32_t* data) {
    return card->read(address, *data);
}
int64_t ts_now_fs(CardSim* card) {
    return card->now_fs();
}
uint64_t ts_cycles(CardSim* card) {
    return card->cycles();
}
uint64_t ts_bursts(CardSim* card) {
    return card->bursts();
}
void ts_connect(CardSim* card, int port, CardSim* to, int to_port, int64_t delay_fs) {
    card->connect(port, *to, to_port, delay_fs);
}
void ts_plug(CardSim* card, int port, int cable, uint32_t partner, uint32_t gigabit) {
    card->plug(port, cable != 0, static_cast<uint16_t>(partner), static_cast<uint8_t>(gigabit));
}
void ts_set_phy(CardSim* card, int port, int64_t least_fs, int64_t most_fs, uint64_t negotiation) {
    card->set_phy(port, least_fs, most_fs, negotiation);
}
int ts_phy(CardSim* card, int port, int64_t* tx_fs, int64_t* rx_fs) {
    return card->phy(port, *tx_fs, *rx_fs);
}
void ts_run_until(CardSim* card, int64_t fs) {
    card->run_until(fs);
}
void ts_wander(CardSim* card, int which, double white, double walk, uint64_t seed) {
    card->set_wander(which, white, walk, seed);
}
// Edges so far, last edge, period in fs and its fraction.
void ts_clock(CardSim* card, int which, int64_t* out) {
    const auto& clock = card->clock(which);
    out[0] = static_cast<int64_t>(clock.edges);
    out[1] = clock.last_fs;
    out[2] = clock.period_fs;
    out[3] = clock.period_fraction;
}
// A handle; cards that the cloud joins hold it too.
std::shared_ptr<Cloud>* ts_cloud(CardSim* to, int port, uint64_t seed, const CloudModel* model) {
    if (to->has_cable(port)) return nullptr;
    auto cloud = std::make_shared<Cloud>(seed, *model, *to, port);
    to->attach(port, cloud);
    return new std::shared_ptr<Cloud>(cloud);
}
void ts_cloud_delete(std::shared_ptr<Cloud>* cloud) {
    delete cloud;
}
int ts_cloud_from(std::shared_ptr<Cloud>* cloud, CardSim* card, int port) {
    if ((*cloud)->from) return 0;
    card->connect(port, *cloud);
    return 1;
}
int ts_cloud_send(std::shared_ptr<Cloud>* cloud, const WireItem* items, uint64_t n, const uint8_t* bytes) {
    if (!(*cloud)->to) return 0;
    CardSim::source(**cloud, items, n, bytes);
    return 1;
}
uint64_t ts_cloud_truth(std::shared_ptr<Cloud>* cloud, CloudTruth* out, uint64_t room) {
    return (*cloud)->truth(out, room);
}
int ts_trace(CardSim* card, const char* path) {
    return card->trace(path);
}
}
#pragma GCC visibility pop
