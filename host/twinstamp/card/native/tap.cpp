// SPDX-License-Identifier: Apache-2.0
// Hands the frames of a card's batch to a TAP interface, each with its stamp behind it where wanted.
#include <errno.h>
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <sys/uio.h>

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <system_error>

namespace nb = nanobind;

namespace twinstamp {
namespace {

template <class T>
using Array = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

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
    if (failed) throw std::system_error(failed, std::generic_category(), "TAP interface");
    return nb::make_tuple(sent, refused);
}

}  // namespace

void bind_tap(nb::module_& m) {
    m.def("tap_write", &tap_write, nb::arg("fd"), nb::arg("data"), nb::arg("offset"), nb::arg("caplen"),
          nb::arg("port"), nb::arg("which_port"), nb::arg("trailer"));
}

}  // namespace twinstamp
