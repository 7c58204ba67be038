// SPDX-License-Identifier: Apache-2.0
// Lays frames as transmit records into a port's ring of 64-bit words, from where the card fetches them
// (docs/card.md, "Sending").
//
// The card reads up to the producer index only, which is written to its register after the words are there:
// one fence between the two is all the order that is needed.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>

#include "batch_columns.h"

namespace nb = nanobind;

namespace twinstamp {
namespace {

using Memory = nb::ndarray<std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Times = std::optional<Column<std::uint64_t>>;

struct TransmitHeader {
    std::uint16_t length, zeros[2], flags;
    std::uint64_t launch_q32, cookie, reserved;
};
static_assert(sizeof(TransmitHeader) == 32);

class TransmitRing {
  public:
    explicit TransmitRing(Memory memory) : memory_(std::move(memory)) {
        const std::size_t words = memory_.size() / 8;
        if (!words || memory_.size() % 8 || (words & (words - 1)) || words > (1u << 20)) {
            throw std::invalid_argument("a transmit ring is a power of two of words, 2^20 at most");
        }
        words_ = static_cast<std::uint32_t>(words);
    }

    // Puts frames from `first` on into the ring while it has room, the card having fetched `consumer` words;
    // returns the first frame that was not put. first_bad() has looked at the columns.
    std::uint64_t put(Column<std::uint8_t> data, Column<std::uint64_t> offset, Column<std::uint32_t> length,
                      const Times& launch_q32, const Times& cookie, std::uint16_t flags, std::uint64_t first,
                      std::uint32_t consumer) {
        const std::uint64_t n = length.shape(0);
        if (offset.shape(0) != n || (launch_q32 && launch_q32->shape(0) != n) ||
            (cookie && cookie->shape(0) != n) || first > n) {
            throw std::invalid_argument("columns of different length");
        }
        if (consumer - consumer_ > producer_ - consumer_) {
            throw std::runtime_error("the card's consumer index is " + std::to_string(consumer) +
                                     ", which is not from " + std::to_string(consumer_) + " to " +
                                     std::to_string(producer_));
        }
        consumer_ = consumer;
        std::uint32_t used = producer_ - consumer;
        nb::gil_scoped_release unlocked;
        std::uint64_t i = first;
        for (; i < n; ++i) {
            const std::uint32_t bytes = length.data()[i];
            const std::uint32_t size = 4 + (bytes + 7) / 8;
            if (size > words_ - used) break;
            TransmitHeader header{};
            header.length = static_cast<std::uint16_t>(bytes);
            header.flags = flags;
            header.launch_q32 = launch_q32 ? launch_q32->data()[i] : 0;
            header.cookie = cookie ? cookie->data()[i] : 0;
            write(producer_, &header, sizeof header);
            write(producer_ + 4, data.data() + offset.data()[i], bytes);
            producer_ += size;
            used += size;
        }
        std::atomic_thread_fence(std::memory_order_release);
        return i;
    }
    std::uint32_t producer() const { return producer_; }

  private:
    void write(std::uint32_t word, const void* from, std::size_t bytes) {
        const std::size_t at = std::size_t{word & (words_ - 1)} * 8;
        const std::size_t whole = std::min(bytes, memory_.size() - at);
        std::memcpy(memory_.data() + at, from, whole);
        std::memcpy(memory_.data(), static_cast<const std::uint8_t*>(from) + whole, bytes - whole);
    }

    Memory memory_;
    std::uint32_t words_;
    std::uint32_t producer_ = 0, consumer_ = 0;  // words put, and fetched as last told; running free
};

// The first frame from `first` on that is not of shortest to longest bytes, lies outside the data or, where
// `whole` gives lengths on the wire, is not there with all its bytes; their number where all are fine.
std::uint64_t first_bad(std::uint64_t data_bytes, Column<std::uint64_t> offset, Column<std::uint32_t> length,
                        const std::optional<Column<std::uint32_t>>& whole, std::uint64_t first,
                        std::uint32_t shortest, std::uint32_t longest) {
    const std::uint64_t n = length.shape(0);
    if (offset.shape(0) != n || (whole && whole->shape(0) != n)) {
        throw std::invalid_argument("columns of different length");
    }
    nb::gil_scoped_release unlocked;
    std::uint64_t i = first;
    for (; i < n; ++i) {
        const std::uint32_t bytes = length.data()[i];
        const std::uint64_t at = offset.data()[i];
        if (bytes < shortest || bytes > longest || at > data_bytes || bytes > data_bytes - at ||
            (whole && whole->data()[i] != bytes)) {
            break;
        }
    }
    return i;
}

}  // namespace

void bind_transmit(nb::module_& m) {
    m.def("first_bad", &first_bad, nb::arg("data_bytes"), nb::arg("offset").noconvert(),
          nb::arg("length").noconvert(), nb::arg("whole").none().noconvert(), nb::arg("first"),
          nb::arg("shortest"), nb::arg("longest"));
    nb::class_<TransmitRing>(m, "TransmitRing")
        .def(nb::init<Memory>(), nb::arg("memory"))
        .def("put", &TransmitRing::put, nb::arg("data").noconvert(), nb::arg("offset").noconvert(),
             nb::arg("length").noconvert(), nb::arg("launch_q32").none().noconvert(),
             nb::arg("cookie").none().noconvert(), nb::arg("flags"), nb::arg("first"), nb::arg("consumer"))
        .def_prop_ro("producer", &TransmitRing::producer);
}

}  // namespace twinstamp
