// SPDX-License-Identifier: Apache-2.0
// The Verilated flow_stream fed from arrays, and the kernels' flow hash to compare with; for ctypes.
#include <cstring>
#include <deque>
#include <memory>

#include "Vflow_stream.h"
#include "twinstamp/flow.h"
#include "verilated.h"

namespace {

struct Bench {
    VerilatedContext context;
    Vflow_stream top{&context};
    std::uint64_t random = 1;

    std::uint32_t draw(std::uint32_t below) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        return static_cast<std::uint32_t>((random >> 32) * below >> 32);
    }
    void clock() {
        top.clk_i = top.key_clk_i = 0;
        top.eval();
        top.clk_i = top.key_clk_i = 1;
        top.eval();
    }
    void quiet() { top.valid_i = top.first_i = top.last_i = top.abort_i = 0; }
};

// What becomes of a frame on its way in.
enum Action : std::uint8_t {
    WHOLE = 0,        // last_i with the last byte
    LATE_LAST = 1,    // last_i alone, later
    ABORTED = 2,      // abort_i somewhere
    RESTARTED = 3,    // no end at all: the next frame's first_i ends it
    ABORTED_LAST = 4  // abort_i together with last_i
};

}  // namespace

extern "C" {

// What the compiled comparison needs of the kernels' own code: parse_frame, flow_key, flow_hash.
std::uint64_t reference_flow(const std::uint8_t* key, const std::uint8_t* frame, std::uint32_t caplen) {
    twinstamp::FlowHashKey secret;
    std::memcpy(&secret, key, sizeof secret);
    twinstamp::Layers layers;
    twinstamp::parse_frame(frame, caplen, twinstamp::LINK_ETHERNET, twinstamp::Layer::outer, layers);
    twinstamp::FlowKey fields;
    twinstamp::flow_key(frame, caplen, layers, fields);
    return twinstamp::flow_hash(secret, fields, twinstamp::HashMode::flow);
}

std::uint32_t flow_key_bytes() {
    return sizeof(twinstamp::FlowHashKey);
}

// Feeds n frames. gap: clocks without a byte before each frame. holes: of 256 clocks within a frame, how
// many bring no byte. Results come in the order of the frames that end. Returns how many results there were
// (more than `room` are counted only), or a negative number: a result came without a frame. latency: the
// largest number of clocks between a last_i and its done_o.
std::int64_t hash_frames(const std::uint32_t* flow_key, const std::uint8_t* data, const std::uint64_t* offset,
                         const std::uint32_t* caplen, const std::uint8_t* action, const std::uint32_t* gap,
                         std::uint32_t n, std::uint32_t holes, std::uint64_t seed, std::uint32_t room,
                         std::uint64_t* flow, std::uint8_t* ok, std::uint32_t* latency) {
    auto bench = std::make_unique<Bench>();
    auto& top = bench->top;
    bench->random = seed * 2 + 1;
    bench->quiet();
    top.key_write_i = 0;
    top.rst_ni = 0;
    bench->clock();
    bench->clock();
    top.rst_ni = 1;
    top.key_write_i = 1;
    for (std::uint32_t i = 0; i < flow_key_bytes() / 4; ++i) {
        top.key_address_i = static_cast<std::uint8_t>(i);
        top.key_data_i = flow_key[i];
        bench->clock();
    }
    top.key_write_i = 0;

    std::int64_t now = 0, results = 0;
    std::deque<std::int64_t> ends;
    *latency = 0;
    bool astray = false;
    const auto clock = [&] {
        if (top.last_i && !top.abort_i) ends.push_back(now);
        bench->clock();
        ++now;
        if (top.done_o) {
            if (ends.empty()) {
                astray = true;
                return;
            }
            const auto took = static_cast<std::uint32_t>(now - ends.front());
            ends.pop_front();
            if (took > *latency) *latency = took;
            if (results < room) {
                flow[results] = top.flow_o;
                ok[results] = top.ok_o;
            }
            ++results;
        }
    };
    for (std::uint32_t f = 0; f < n; ++f) {
        bench->quiet();
        for (std::uint32_t i = 0; i < gap[f]; ++i) clock();
        const std::uint8_t* p = data + offset[f];
        const std::uint32_t stop = action[f] == ABORTED ? bench->draw(caplen[f]) : caplen[f];
        for (std::uint32_t i = 0; i < stop; ++i) {
            bench->quiet();
            while (i > 0 && bench->draw(256) < holes) {
                top.data_i = static_cast<std::uint8_t>(bench->draw(256));
                clock();
            }
            top.valid_i = 1;
            top.data_i = p[i];
            top.first_i = i == 0;
            top.last_i = i + 1 == caplen[f] && (action[f] == WHOLE || action[f] == ABORTED_LAST);
            top.abort_i = top.last_i && action[f] == ABORTED_LAST;
            clock();
        }
        bench->quiet();
        if (action[f] == LATE_LAST) {
            for (std::uint32_t i = bench->draw(6); i > 0; --i) clock();
            top.last_i = 1;
            clock();
        } else if (action[f] == ABORTED) {
            top.abort_i = 1;
            clock();
        }
    }
    bench->quiet();
    for (std::uint32_t i = 0; i < 2000; ++i) clock();
    return astray ? -1 : results;
}

}  // extern "C"
