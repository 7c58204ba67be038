// SPDX-License-Identifier: Apache-2.0
// Walks the blocks that a card wrote into its ring (docs/card.md) and hands their records to Python as the
// columns of a FrameBatch, without copying frames.
//
// The card never overwrites a block that was not given back, so a walk needs no lock against it; everything
// in a block is checked before it is used all the same, because a card may be damaged or be another one.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "batch_columns.h"

namespace nb = nanobind;

namespace twinstamp {
namespace {

using Memory = nb::ndarray<std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

constexpr std::uint32_t kMagic = 0x31425354;  // "TSB1"
constexpr std::uint32_t kBlockHeader = 64, kRecordHeader = 32;
constexpr int kPorts = 4, kSlots = 4;

struct BlockHeader {
    std::uint32_t magic;
    std::uint16_t version, header_bytes;
    std::uint64_t index;
    std::uint32_t used, records;
    std::uint64_t closed_q32;
    std::uint32_t bound_ns;
    std::int16_t utc_offset_s;
    std::uint16_t state;
    std::uint32_t epoch, leap_tai_s;  // from that second on another offset counts (state)
    std::uint32_t drops[kPorts];
};
static_assert(sizeof(BlockHeader) == kBlockHeader);

struct RecordHeader {
    std::uint16_t caplen, length;
    std::uint8_t port, epoch;
    std::uint8_t flags, link_epoch;
    std::uint64_t stamp_q32;
    std::uint32_t sequence, flow_hash;
    std::uint64_t digest;
};
static_assert(sizeof(RecordHeader) == kRecordHeader);

enum : std::uint8_t { kBadFcs = 1, kRxEr = 2, kDeparture = 64, kLate = 128, kDuplicate = 128 };
// FLAG_BAD_FCS, FLAG_DUPLICATE of twinstamp.frames
enum : std::uint16_t { kFrameBadFcs = 0x0002, kFrameDuplicate = 0x0020 };

// 32.32 seconds to the nearest nanosecond; ties go up.
std::int64_t q32_to_ns(std::uint64_t q32) {
    const std::uint64_t fraction = ((q32 & 0xFFFFFFFFu) * 1'000'000'000u + 0x80000000u) >> 32;
    return static_cast<std::int64_t>((q32 >> 32) * 1'000'000'000u + fraction);
}

// When a frame that the host sent left the card. Layout shared with DEPARTURE in card.py.
struct Departure {
    std::uint64_t stamp_q32, cookie;
    std::uint8_t port, late, reserved[6];
};
static_assert(sizeof(Departure) == 24);

// A train's packet that left; laid out as TRAIN_DEPARTURE in host/twinstamp/card/trains.py.
struct TrainDeparture {
    std::uint64_t stamp_q32, delay_q32;
    std::uint32_t sequence;
    std::uint8_t port, slot, late, reserved;
};
static_assert(sizeof(TrainDeparture) == 24);
constexpr std::uint64_t kOfTrain = std::uint64_t{1} << 63;  // in a departure's last word

// TAI - UTC: s, and s + leap_s from second leap_tai_s of TAI on.
struct Utc {
    std::int32_t s, leap_s;
    std::uint32_t leap_tai_s;
};
// -1, 0 or 1, in two bits of a block's state.
std::int32_t leap_of(std::uint16_t state) {
    const std::int32_t bits = state >> 4 & 3;
    return bits == 3 ? -1 : bits == 1 ? 1 : 0;
}

// Which blocks are given back: a consumer index that moves over all that are, in order. Leases share it.
class Consumer {
  public:
    explicit Consumer(std::uint32_t blocks) : back_(blocks) {}
    void give_back(std::uint32_t first, std::uint32_t n) {
        std::lock_guard lock(mutex_);
        const std::uint32_t mask = static_cast<std::uint32_t>(back_.size()) - 1;
        for (std::uint32_t i = first; i != first + n; ++i) back_[i & mask] = true;
        std::uint32_t at = index_.load(std::memory_order_relaxed);
        while (back_[at & mask]) back_[at++ & mask] = false;
        index_.store(at, std::memory_order_release);
    }
    std::uint32_t index() const { return index_.load(std::memory_order_acquire); }

  private:
    std::mutex mutex_;
    std::vector<bool> back_;
    std::atomic<std::uint32_t> index_{0};
};

// A batch's blocks. Given back by release(), or when nobody can see the batch any more.
// Keeps the ring's memory alive for arrays that outlive it.
class CardLease {
  public:
    CardLease(Memory memory, std::shared_ptr<Consumer> consumer, std::uint32_t first, std::uint32_t n)
        : memory_(std::move(memory)), consumer_(std::move(consumer)), first_(first), n_(n) {}
    CardLease(const CardLease&) = delete;
    CardLease& operator=(const CardLease&) = delete;
    ~CardLease() { release(); }
    void release() {
        if (n_ && consumer_) consumer_->give_back(first_, n_);
        n_ = 0;
    }

  private:
    Memory memory_;
    std::shared_ptr<Consumer> consumer_;
    std::uint32_t first_, n_;
};

class CardRing {
  public:
    CardRing(Memory memory, std::uint32_t size_log2, std::uint32_t count_log2)
        : memory_(std::move(memory)),
          size_(1u << size_log2),
          blocks_(1u << count_log2),
          consumer_(std::make_shared<Consumer>(blocks_)) {
        if (memory_.size() < std::uint64_t{size_} * blocks_) throw std::invalid_argument("memory too small");
    }

    // Blocks up to `producer` as one batch of at most about max_frames records (whole blocks; one at least)
    // that share their clock's epoch, lock and UTC offset with its leap second. Each record's time takes the
    // offset that counts then; what is said of the batch is the offset at its first record. None where there
    // is nothing new. Departure stamps are put aside for departures(), so a batch may be empty.
    nb::object read(std::uint32_t producer, std::uint64_t max_frames, bool utc,
                    const std::vector<std::uint32_t>& constants) {
        if (producer == next_) return nb::none();
        if (producer - next_ > blocks_ || producer - consumer_->index() > blocks_) {
            throw std::runtime_error("producer index " + std::to_string(producer) +
                                     " is more than the ring's " + std::to_string(blocks_) +
                                     " blocks ahead of " + std::to_string(next_));
        }
        if (constants.empty() || constants.size() > kPorts)
            throw std::invalid_argument("a constant per port");
        ports_ = constants.size();
        std::uint64_t n = 0;
        std::uint32_t last = next_, bound = 0;
        BlockHeader first{};
        for (; last != producer; ++last) {
            const BlockHeader header = checked(last);
            if (last == next_) {
                first = header;
            } else if (n + header.records > max_frames || header.epoch != first.epoch ||
                       header.state != first.state || header.utc_offset_s != first.utc_offset_s ||
                       header.leap_tai_s != first.leap_tai_s) {
                break;
            }
            if (header.bound_ns > bound) bound = header.bound_ns;
            n += header.records;
            std::memcpy(drops_, header.drops, sizeof drops_);
        }
        BatchColumns columns(n);
        Utc offset{first.utc_offset_s, leap_of(first.state), first.leap_tai_s};
        {
            nb::gil_scoped_release unlocked;
            std::uint64_t i = 0;
            bool before = false;
            for (std::uint32_t b = next_; b != last; ++b)
                i = walk(b, i, columns, utc, offset, before, constants.data());
            n = i;
            // A leap second that lies behind all of it is over.
            if (!before && offset.leap_s != 0 && (n > 0 || first.closed_q32 >> 32 >= offset.leap_tai_s))
                offset = {offset.s + offset.leap_s, 0, 0};
            if (offset.leap_s == 0) offset.leap_tai_s = 0;
        }
        auto lease =
            nb::cast(new CardLease(memory_, consumer_, next_, last - next_), nb::rv_policy::take_ownership);
        nb::tuple arrays = columns.hand_out(memory_.data(), memory_.size(), lease, n);
        next_ = last;
        return nb::make_tuple(arrays, lease, first.epoch, (first.state & 3) == 3, bound, first.state,
                              offset.s, offset.leap_s, offset.leap_tai_s);
    }

    std::uint32_t consumer() const { return consumer_->index(); }
    std::uint32_t next() const { return next_; }
    nb::tuple drops() const { return nb::make_tuple(drops_[0], drops_[1], drops_[2], drops_[3]); }

    // The departures met since the last call, as bytes.
    nb::object departures() {
        auto owned = std::make_unique<std::vector<Departure>>(std::move(departures_));
        departures_ = {};
        const auto* bytes = reinterpret_cast<const std::uint8_t*>(owned->data());
        const std::size_t size = owned->size() * sizeof(Departure);
        nb::capsule owner(owned.get(),
                          [](void* p) noexcept { delete static_cast<std::vector<Departure>*>(p); });
        owned.release();
        return nb::ndarray<nb::memview, const std::uint8_t, nb::ndim<1>, nb::c_contig>(bytes, {size}, owner)
            .cast();
    }

    // TrainDeparture of a port's slot met since the last call, as bytes.
    nb::bytes train_departures(std::uint32_t port, std::uint32_t slot) {
        if (port >= kPorts || slot >= kSlots) throw std::invalid_argument("no such train");
        auto& all = train_departures_[port][slot];
        nb::bytes out(reinterpret_cast<const char*>(all.data()), all.size() * sizeof(TrainDeparture));
        all.clear();
        return out;
    }

  private:
    const std::uint8_t* block(std::uint32_t index) const {
        return memory_.data() + std::uint64_t{index & (blocks_ - 1)} * size_;
    }
    BlockHeader checked(std::uint32_t index) const {
        BlockHeader header;
        std::memcpy(&header, block(index), sizeof header);
        if (header.magic != kMagic || header.version != 1 || header.header_bytes != kBlockHeader) {
            throw std::runtime_error("block " + std::to_string(index) + " has no block header of version 1");
        }
        if (static_cast<std::uint32_t>(header.index) != index) {
            throw std::runtime_error("block " + std::to_string(index) + " says it is block " +
                                     std::to_string(header.index));
        }
        if (header.used < kBlockHeader || header.used > size_ || header.used % 8 ||
            header.records > (header.used - kBlockHeader) / kRecordHeader) {
            throw std::runtime_error("block " + std::to_string(index) + " says it uses " +
                                     std::to_string(header.used) + " bytes for " +
                                     std::to_string(header.records) + " records");
        }
        return header;
    }
    // before: set where a record is of a time before the leap second.
    std::uint64_t walk(std::uint32_t index, std::uint64_t i, BatchColumns& columns, bool utc,
                       const Utc& offset, bool& before, const std::uint32_t* constants) {
        const std::int64_t shift = utc ? std::int64_t{offset.s} * 1'000'000'000 : 0;
        const std::int64_t leap = utc ? std::int64_t{offset.leap_s} * 1'000'000'000 : 0;
        // Without one, none is after it.
        const std::uint64_t leap_q32 =
            offset.leap_s != 0 ? std::uint64_t{offset.leap_tai_s} << 32 : ~std::uint64_t{0};
        const std::uint8_t* start = block(index);
        BlockHeader header;
        std::memcpy(&header, start, sizeof header);
        std::uint64_t at = kBlockHeader;
        const std::uint64_t base = static_cast<std::uint64_t>(start - memory_.data());
        for (std::uint32_t r = 0; r < header.records; ++r) {
            RecordHeader record;
            if (at + sizeof record > header.used) overrun(index, r);
            std::memcpy(&record, start + at, sizeof record);
            __builtin_prefetch(start + at + 1024);
            const std::uint64_t next = at + sizeof record + ((record.caplen + 7u) & ~7u);
            if (next > header.used || record.port >= ports_) overrun(index, r);
            if (record.flags & kDeparture) [[unlikely]] {
                const std::uint64_t cookie = std::uint64_t{record.flow_hash} << 32 | record.sequence;
                if (record.digest & kOfTrain) {
                    const std::uint8_t slot = cookie >> 32 & (kSlots - 1);
                    train_departures_[record.port][slot].push_back(
                        {record.stamp_q32, record.digest & ~kOfTrain, record.sequence, record.port, slot,
                         (record.flags & kLate) != 0, 0});
                    at = next;
                    continue;
                }
                departures_.push_back(
                    {record.stamp_q32, cookie, record.port, (record.flags & kLate) != 0, {}});
                at = next;
                continue;
            }
            columns.offset[i] = base + at + sizeof record;
            columns.caplen[i] = record.caplen;
            columns.length[i] = record.length;
            const std::uint64_t stamp_q32 = record.stamp_q32 - constants[record.port];
            const bool after = stamp_q32 >= leap_q32;
            before |= !after;
            columns.timestamp_ns[i] = q32_to_ns(stamp_q32) - shift - (after ? leap : 0);
            columns.port[i] = record.port;
            columns.flags[i] =
                static_cast<std::uint16_t>((record.flags & (kBadFcs | kRxEr) ? kFrameBadFcs : 0) |
                                           (record.flags & kDuplicate ? kFrameDuplicate : 0));
            at = next;
            ++i;
        }
        if (at != header.used) overrun(index, header.records);
        return i;
    }
    [[noreturn]] static void overrun(std::uint32_t index, std::uint32_t record) {
        throw std::runtime_error("block " + std::to_string(index) + ", record " + std::to_string(record) +
                                 ": lengths do not add up");
    }

    Memory memory_;
    std::uint32_t size_, blocks_;
    std::uint32_t next_ = 0;
    std::shared_ptr<Consumer> consumer_;
    std::uint32_t drops_[kPorts] = {};
    std::size_t ports_ = kPorts;  // of this card
    std::vector<Departure> departures_;
    std::vector<TrainDeparture> train_departures_[kPorts][kSlots];
};

}  // namespace

void bind_card_ring(nb::module_& m) {
    nb::class_<CardLease>(m, "CardLease").def("release", &CardLease::release);
    nb::class_<CardRing>(m, "CardRing")
        .def(nb::init<Memory, std::uint32_t, std::uint32_t>(), nb::arg("memory"), nb::arg("size_log2"),
             nb::arg("count_log2"))
        .def("read", &CardRing::read, nb::arg("producer"), nb::arg("max_frames"), nb::arg("utc"),
             nb::arg("constants"))
        .def("departures", &CardRing::departures)
        .def("train_departures", &CardRing::train_departures, nb::arg("port"), nb::arg("slot"))
        .def_prop_ro("consumer", &CardRing::consumer)
        .def_prop_ro("next", &CardRing::next)
        .def_prop_ro("drops", &CardRing::drops);
}

}  // namespace twinstamp
