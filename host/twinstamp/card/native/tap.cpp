// SPDX-License-Identifier: Apache-2.0
// Frames between a card's batches and a TAP interface, both ways; those that come in with their stamp behind
// them where wanted.
#include <errno.h>
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <stdexcept>

#include "os_error.h"

namespace nb = nanobind;

namespace twinstamp {
namespace {

template <class T>
using Array = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

template <class T>
using Room = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

constexpr std::uint64_t kRecordHeader = 32;

// Big-endian, as on a wire: magic, stamp 32.32, sequence, port, zeros; docs/card.md.
struct Trailer {
    std::uint8_t magic[4] = {'T', 'W', 'N', 'S'};
    std::uint8_t stamp[8];
    std::uint8_t sequence[4];
    std::uint8_t port;
    std::uint8_t reserved[3] = {};
};
static_assert(sizeof(Trailer) == 20);

template <class T>
void big(std::uint8_t* to, T value) {
    for (std::size_t i = 0; i < sizeof value; ++i) {
        to[i] = static_cast<std::uint8_t>(value >> (8 * (sizeof value - 1 - i)));
    }
}

// Frames of which_port that went, and that the interface refused (down, or its queue full).
nb::tuple tap_write(int fd, Array<std::uint8_t> data, Array<std::uint64_t> offset,
                    Array<std::uint32_t> caplen, Array<std::uint16_t> port, std::uint32_t which_port,
                    bool trailer) {
    const std::size_t n = caplen.shape(0);
    if (offset.shape(0) != n || port.shape(0) != n)
        throw std::invalid_argument("columns of different length");
    std::uint64_t sent = 0, refused = 0;
    int failed = 0;
    {
        nb::gil_scoped_release unlocked;
        for (std::size_t i = 0; i < n && !failed; ++i) {
            if (port.data()[i] != which_port) continue;
            const std::uint64_t at = offset.data()[i], size = caplen.data()[i];
            if (at > data.shape(0) || size > data.shape(0) - at || (trailer && at < kRecordHeader)) {
                failed = EINVAL;
                break;
            }
            const std::uint8_t* frame = data.data() + at;
            Trailer end;
            if (trailer) {
                std::uint64_t stamp;
                std::uint32_t sequence;
                std::memcpy(&stamp, frame - kRecordHeader + 8, 8);
                std::memcpy(&sequence, frame - kRecordHeader + 16, 4);
                big(end.stamp, stamp);
                big(end.sequence, sequence);
                end.port = static_cast<std::uint8_t>(which_port);
            }
            iovec parts[2] = {{const_cast<std::uint8_t*>(frame), size}, {&end, sizeof end}};
            ssize_t got;
            do {
                got = ::writev(fd, parts, trailer ? 2 : 1);
            } while (got < 0 && errno == EINTR);
            if (got >= 0) {
                ++sent;
            } else if (errno == EIO || errno == EAGAIN || errno == ENOBUFS || errno == EINVAL) {
                ++refused;  // EIO: the interface is down; EINVAL: shorter than an Ethernet header
            } else {
                failed = errno;
            }
        }
    }
    if (failed) throw OsError("TAP interface", failed);
    return nb::make_tuple(sent, refused);
}

// Reads frames that wait in the interface into `data`, one behind the other, until it is empty (or down), all
// rows are used, or no frame of `longest` bytes fits any more. Returns (frames, refused): refused are longer
// or shorter than a card takes, and gone.
nb::tuple tap_read(int fd, Room<std::uint8_t> data, Room<std::uint64_t> offset, Room<std::uint32_t> length,
                   std::uint32_t shortest, std::uint32_t longest) {
    const std::size_t rows = offset.shape(0), room = data.shape(0);
    if (length.shape(0) != rows) throw std::invalid_argument("columns of different length");
    std::uint64_t n = 0, refused = 0, at = 0;
    int failed = 0;
    {
        nb::gil_scoped_release unlocked;
        while (n < rows && room - at > longest) {
            // One byte more than the longest: the interface cuts what does not fit, without a word.
            const ssize_t got = ::read(fd, data.data() + at, std::size_t{longest} + 1);
            if (got < 0) {
                if (errno == EINTR) continue;
                if (errno != EAGAIN && errno != EIO) failed = errno;
                break;
            }
            if (got < shortest || got > longest) {
                ++refused;
                continue;
            }
            offset.data()[n] = at;
            length.data()[n++] = static_cast<std::uint32_t>(got);
            at += static_cast<std::uint64_t>(got);
        }
    }
    if (failed) throw OsError("TAP interface", failed);
    return nb::make_tuple(n, refused);
}

}  // namespace

void bind_tap(nb::module_& m) {
    m.def("tap_write", &tap_write, nb::arg("fd"), nb::arg("data"), nb::arg("offset"), nb::arg("caplen"),
          nb::arg("port"), nb::arg("which_port"), nb::arg("trailer"));
    m.def("tap_read", &tap_read, nb::arg("fd"), nb::arg("data").noconvert(), nb::arg("offset").noconvert(),
          nb::arg("length").noconvert(), nb::arg("shortest"), nb::arg("longest"));
}

}  // namespace twinstamp
