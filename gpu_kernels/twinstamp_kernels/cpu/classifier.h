// SPDX-License-Identifier: Apache-2.0
// Frames in, rule, flow hash and servers out: the rules and balance stage on n CPU threads.
#pragma once

#include <memory>
#include <vector>

#include "fragments.h"
#include "rule_compiler.h"
#include "twinstamp/balance.h"
#include "twinstamp/judge.h"
#include "workers.h"

namespace twinstamp {

// Memory that is not cleared when it grows.
template <typename T>
struct Buffer {
    std::unique_ptr<T[]> data;
    u64 capacity = 0;
    T* ensure(u64 n) {
        if (n > capacity || data == nullptr) {
            capacity = n + n / 8 + 1;
            data.reset(new T[capacity]);
        }
        return data.get();
    }
};

struct Frames {
    const u8* data;
    u64 data_bytes;
    const u64* offset;
    const u32* caplen;
    const u32* length;
    const i64* timestamp_ns;
    const u16* port;
    const u16* flags;
    const u16* linktypes;
    u64 ports;
    const u8* keep;  // null: judge all
    u64 count;
    u64 first;  // number of frame 0 among all frames of the stream
};

struct Verdicts {
    Buffer<i32> rule;
    Buffer<u64> hash;
    Buffer<u8> fate;
    Buffer<u32> copy_frame;
    Buffer<u16> copy_server;
    std::vector<u32> held;
    u64 count = 0, copies = 0;
};

// Verdicts of the frames of a list, in its order.
struct Listed {
    std::vector<i32> rule;
    std::vector<u64> hash;
    std::vector<u8> fate;
    std::vector<u32> held;  // numbers in the batch
};

struct Released {
    std::vector<u8> data;
    std::vector<u64> offset, frame;
    std::vector<u32> caplen, length;
    std::vector<i64> timestamp_ns;
    std::vector<u16> port, flags;
    Verdicts verdicts;
};

struct Tally {
    u64 packets = 0, bytes = 0;
    void add(u64 captured) {
        ++packets;
        bytes += captured;
    }
};

struct Counts {
    Tally fate[FATES];
    u64 copies_without_server = 0;
    u64 icmp_followed = 0;  // ICMP errors hashed by the flow they quote
    u64 cache_hits = 0, cache_misses = 0;
    std::vector<Tally> server;
};

struct ClassifierOptions {
    Layer layer = Layer::outer;
    HashMode mode = HashMode::flow;
    bool follow_icmp = true;  // errors that no rule matches take the rule of what they quote
    u32 workers = 1;
    u32 cache_entries = 65536;  // per worker, a power of two; 0: no cache
    FragmentLimits fragments;
};

class Classifier {
  public:
    Classifier(const std::vector<Rule>& rules, u64 memory_limit, const FlowHashKey& key,
               const ClassifierOptions& options);
    ~Classifier();

    // actions: per rule, with "no rule" in slot 0, an action; per action its groups, none: drop.
    void set_actions(std::vector<u32> action_of_rule, std::vector<u32> action_first,
                     std::vector<u16> action_group);
    // tables: [groups][2^bucket_bits], NO_SERVER or below `servers`.
    void set_servers(std::vector<u16> tables, u32 bucket_bits, u32 servers);

    void process(const Frames& frames, Verdicts& out);

    // For a batch that a device judges. finish() judges what needs the fragment table, `listed` of its
    // frames, in stream order, and moves the table's clock over all of them; held: of the frames listed.
    // The rest of the batch is then either added up by the device too, or done by share().
    void finish(const Frames& frames, const u32* listed, u64 count, Listed& out);
    // Servers of a batch whose rules and hashes are known. fate on entry: skipped, forwarded or held.
    void share(const u32* caplen, u64 count, const i32* rule, const u64* hash, const u8* fate, Verdicts& out);
    // What the device counted: DEVICE_COUNTS words, then packets and bytes of each server.
    void add_counts(const u64* words, u64 count);
    RuleTables export_tables(u64 base, std::vector<u8>& blob) const;
    const FlowHashKey& flow_hash_key() const { return key_; }
    const ClassifierOptions& options() const { return options_; }
    const std::vector<u32>& action_of_rule() const { return action_of_rule_; }
    const std::vector<u32>& action_first() const { return action_first_; }
    const std::vector<u16>& action_group() const { return action_group_; }
    const std::vector<u16>& server_tables() const { return tables_; }
    u32 bucket_bits() const { return bucket_bits_; }
    u32 servers() const { return servers_; }
    // Moves with each change of actions or servers.
    u64 generation() const { return generation_; }
    bool has_released() const { return !table_.released.empty(); }
    void take_released(Released& out);
    void release_due(i64 now_ns) { table_.advance(now_ns); }
    void flush() { table_.flush(); }

    const FragmentTable& fragments() const { return table_; }
    const CompiledRules& rules() const { return rules_; }
    Counts counts() const;
    u32 rule_count() const { return rule_count_; }

  private:
    struct Worker;
    void judge_slice(Worker& worker, const Frames& frames, u64 low, u64 high, Verdicts& out) const;
    void judge_misses(Worker& worker, u32 count) const;
    bool judge_plain(Worker& worker, const u8* frame, const Layers& layers, const FlowKey& key, Judged& out,
                     const FragmentTable* table) const;
    JudgeOptions judge_options() const { return {options_.mode, options_.follow_icmp}; }
    void follow_inside(const u8* frame, const Layers& layers, FlowKey& key);
    bool judge_listed(const Frames& frames, u64 i, Judged& out);
    void judge_fragments(const Frames& frames, Verdicts& out);
    u64 choose_servers(Counts& counts, const u32* caplen, u64 low, u64 high, Verdicts& out, u32* at_frame,
                       u16* at_server) const;
    void choose_slice(Worker& worker, const u32* caplen, u64 low, u64 high, Verdicts& out) const;
    void each_slice(u64 count, const auto& task);

    CompiledRules rules_;
    u32 rule_count_;
    FlowHashKey key_;
    ClassifierOptions options_;
    u64 cache_multiplier_[3];
    std::vector<u32> action_of_rule_, action_first_;
    std::vector<u16> action_group_;
    u32 most_copies_ = 1;
    std::vector<u16> tables_;
    u32 bucket_bits_ = 16, servers_ = 0;
    u64 generation_ = 0;
    std::vector<std::unique_ptr<Worker>> workers_;
    std::unique_ptr<Workers> pool_;  // made once: a thread that cannot be made is an error then
    FragmentTable table_;
};

}  // namespace twinstamp
