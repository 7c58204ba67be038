// SPDX-License-Identifier: Apache-2.0
// Batched send: sendmmsg with a header built per frame in front of the frame's own bytes, which stay where
// they are. Two kinds of socket: AF_PACKET on one interface (frames as they are, MAC rewriting, VLAN tags)
// and raw IP with the outer header included (VXLAN, GRE), where the kernel routes and resolves next hops.
#include <arpa/inet.h>
#include <errno.h>
#include <linux/errqueue.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "batch_columns.h"
#include "os_error.h"

namespace nb = nanobind;

namespace twinstamp {
namespace {

using Bytes = nb::bytes;

constexpr std::size_t messages_per_call = 256;
constexpr std::size_t header_room = 128;  // outer IPv6 40 + UDP 8 + VXLAN 8 (or GRE 8) + Ethernet 18
constexpr std::uint16_t linktype_ethernet = 1;

std::uint16_t get16(const std::uint8_t* p) {
    return static_cast<std::uint16_t>(p[0] << 8 | p[1]);
}
void put16(std::uint8_t* p, std::size_t v) {
    p[0] = static_cast<std::uint8_t>(v >> 8);
    p[1] = static_cast<std::uint8_t>(v);
}
bool is_raw_ip(std::uint16_t linktype) {
    return linktype == 101 || linktype == 228 || linktype == 229;
}
bool is_vlan(std::uint16_t ethertype) {
    return ethertype == 0x8100 || ethertype == 0x88A8 || ethertype == 0x9100;
}

// One's complement sum (RFC 1071) of the 16-bit words in memory order; fold() brings it to 16 bits. An odd
// last byte counts as the first byte of a word, so only the last piece may have an odd length.
std::uint64_t sum_words(const std::uint8_t* p, std::size_t n, std::uint64_t sum) {
    for (; n >= 4; n -= 4, p += 4) {
        std::uint32_t word;
        std::memcpy(&word, p, 4);
        sum += word;
    }
    if (n >= 2) {
        std::uint16_t word;
        std::memcpy(&word, p, 2);
        sum += word;
        p += 2;
        n -= 2;
    }
    if (n != 0) {
        std::uint16_t word = 0;
        std::memcpy(&word, p, 1);
        sum += word;
    }
    return sum;
}
std::uint16_t fold(std::uint64_t sum) {
    while (sum >> 16) sum = (sum & 0xFFFF) + (sum >> 16);
    return static_cast<std::uint16_t>(sum);
}

std::uint64_t mix(std::uint64_t h, const std::uint8_t* p, std::size_t n) {
    while (n != 0) {
        std::uint64_t word = 0;
        std::size_t take = std::min<std::size_t>(n, 8);
        std::memcpy(&word, p, take);
        h = (h ^ word) * 0x9E3779B97F4A7C15ULL;
        h ^= h >> 29;
        p += take;
        n -= take;
    }
    return h;
}

// Entropy for the outer UDP source port (RFC 7348 section 5): equal for every frame of a flow and for both
// of its directions, so that a receiver that spreads load by the outer header keeps flows whole. Fragments
// carry no ports after the first, so all fragments go by addresses and protocol.
// raw_type: EtherType of a packet without a link header, or 0.
std::uint64_t flow_entropy(const std::uint8_t* frame, std::size_t n, std::uint16_t raw_type) {
    auto both_ways = [](std::uint64_t h, const std::uint8_t* a, const std::uint8_t* b, std::size_t size) {
        return h + mix(0x243F6A8885A308D3ULL, a, size) + mix(0x243F6A8885A308D3ULL, b, size);
    };
    std::size_t at = 0;
    std::uint16_t type = raw_type;
    if (raw_type == 0) {  // a whole Ethernet header is there (prepare)
        type = get16(frame + (at = 12));
        for (int tags = 0; tags < 4 && is_vlan(type) && n >= at + 6; ++tags) type = get16(frame + (at += 4));
        at += 2;
    }
    const std::uint8_t* ports = nullptr;
    std::uint64_t h;
    if (type == ETH_P_IP && n >= at + 20) {
        const std::uint8_t* ip = frame + at;
        const std::size_t l4 = at + (ip[0] & 0xFU) * 4U;
        h = both_ways(ip[9], ip + 12, ip + 16, 4);
        const bool fragment = (get16(ip + 6) & 0x3FFF) != 0;
        if (!fragment && (ip[9] == IPPROTO_TCP || ip[9] == IPPROTO_UDP) && n >= l4 + 4) ports = frame + l4;
    } else if (type == ETH_P_IPV6 && n >= at + 40) {
        const std::uint8_t* ip = frame + at;
        h = both_ways(ip[6], ip + 8, ip + 24, 16);
        if ((ip[6] == IPPROTO_TCP || ip[6] == IPPROTO_UDP) && n >= at + 44) ports = frame + at + 40;
    } else {
        h = both_ways(type, frame, frame + 6, 6);
    }
    if (ports != nullptr) {
        // An endpoint is address and port together; the sum over sorted ports alone is enough for spreading.
        h = both_ways(h, ports, ports + 2, 2);
    }
    h *= 0xFF51AFD7ED558CCDULL;
    return h ^ (h >> 33);
}

enum class Tunnel { none, vxlan, gre };

class PacketOutput {
  public:
    // outer: complete outer header (IP, UDP, VXLAN or IP, GRE) with zero lengths, or empty for AF_PACKET.
    PacketOutput(const std::string& interface, Bytes mac_dst, Bytes mac_src, Bytes add_tag, bool strip_tag,
                 Bytes outer, int tunnel, bool udp_checksum, bool qdisc_bypass, double retry_ms,
                 int send_buffer)
        : interface_(interface),
          strip_tag_(strip_tag),
          tunnel_(static_cast<Tunnel>(tunnel)),
          udp_checksum_(udp_checksum),
          retry_ns_(static_cast<std::int64_t>(retry_ms * 1e6)) {
        take(mac_dst, mac_dst_, 6, "destination MAC");
        take(mac_src, mac_src_, 6, "source MAC");
        take(add_tag, add_tag_, 4, "VLAN tag");
        outer_.assign(outer.c_str(), outer.c_str() + outer.size());
        if (outer_.size() > header_room - 18) throw std::invalid_argument("outer header too long");
        if ((tunnel_ == Tunnel::none) != outer_.empty())
            throw std::invalid_argument("tunnel without outer header");
        if (!outer_.empty()) {
            v6_ = outer_[0] >> 4 == 6;
            const std::size_t ip = v6_ ? 40U : 20U;
            if (outer_.size() < ip + (tunnel_ == Tunnel::vxlan ? 16U : 4U))
                throw std::invalid_argument("outer header too short");
        }
        try {
            outer_.empty() ? open_packet(qdisc_bypass) : open_raw();
            if (send_buffer > 0) {
                if (::setsockopt(fd_, SOL_SOCKET, SO_SNDBUFFORCE, &send_buffer, sizeof send_buffer) < 0)
                    ::setsockopt(fd_, SOL_SOCKET, SO_SNDBUF, &send_buffer, sizeof send_buffer);
            }
        } catch (...) {
            close();
            throw;
        }
        headers_.resize(messages_per_call * header_room);
        messages_.resize(messages_per_call);
        pieces_.resize(messages_per_call * 2);
        frame_of_.resize(messages_per_call);
    }
    PacketOutput(const PacketOutput&) = delete;
    PacketOutput& operator=(const PacketOutput&) = delete;
    ~PacketOutput() { close(); }

    void close() {
        if (fd_ >= 0) ::close(fd_);
        fd_ = -1;
    }
    int fileno() const { return fd_; }
    unsigned mtu() const { return mtu_; }

    // Sends frames index[0..k) in order. Returns (sent, bytes, wire_bytes, cut, too_big, unsendable, errors,
    // errno of the last error, retries, ns waited). Every frame is in exactly one of sent, too_big,
    // unsendable, errors. retry_ns: the most to wait for full queues; None: what the constructor was given.
    nb::tuple send(Column<std::uint8_t> data, Column<std::uint64_t> offset, Column<std::uint32_t> caplen,
                   Column<std::uint32_t> length, Column<std::uint16_t> port, Column<std::uint16_t> linktypes,
                   std::optional<Column<std::uint32_t>> index, std::optional<std::int64_t> retry_ns) {
        if (fd_ < 0) throw std::runtime_error("the output is closed");
        const std::size_t n = offset.size();
        if (caplen.size() != n || length.size() != n || port.size() != n)
            throw std::invalid_argument("columns of different lengths");
        const std::size_t k = index ? index->size() : n;
        Totals totals;
        {
            nb::gil_scoped_release unlocked;
            // All of it before the first frame goes: an error here leaves nothing half sent.
            for (std::size_t j = 0; j < k; ++j) {
                const std::size_t i = index ? index->data()[j] : j;
                if (i >= n)
                    throw std::invalid_argument("frame index " + std::to_string(i) + " of a batch of " +
                                                std::to_string(n));
                if (offset.data()[i] > data.size() || caplen.data()[i] > data.size() - offset.data()[i])
                    throw std::invalid_argument("frame " + std::to_string(i) + " lies outside its buffer");
                if (port.data()[i] >= linktypes.size())
                    throw std::invalid_argument("frame " + std::to_string(i) +
                                                " has a port outside the batch's table");
            }
            refresh_mtu(totals);
            budget_ns_ = retry_ns.value_or(retry_ns_);
            std::size_t filled = 0;
            for (std::size_t j = 0; j < k; ++j) {
                const std::size_t i = index ? index->data()[j] : j;
                const std::uint8_t* frame = data.data() + offset.data()[i];
                const std::uint32_t bytes = caplen.data()[i];
                if (!prepare(filled, frame, bytes, linktypes.data()[port.data()[i]], totals)) continue;
                frame_of_[filled] = {bytes, length.data()[i]};
                if (++filled == messages_per_call) {
                    flush(filled, totals);
                    filled = 0;
                }
            }
            flush(filled, totals);
        }
        return nb::make_tuple(totals.sent, totals.bytes, totals.wire_bytes, totals.cut, totals.too_big,
                              totals.unsendable, totals.errors, totals.last_error, totals.retries,
                              totals.waited_ns);
    }

  private:
    struct Totals {
        std::uint64_t sent = 0, bytes = 0, wire_bytes = 0, cut = 0, too_big = 0, unsendable = 0, errors = 0;
        std::uint64_t retries = 0;
        std::int64_t waited_ns = 0;
        int last_error = 0;
    };
    struct Frame {
        std::uint32_t caplen, length;
    };

    static void take(const Bytes& from, std::vector<std::uint8_t>& to, std::size_t size, const char* what) {
        if (from.size() != 0 && from.size() != size)
            throw std::invalid_argument(std::string(what) + " has " + std::to_string(from.size()) + " bytes");
        to.assign(from.c_str(), from.c_str() + from.size());
    }

    void open_packet(bool qdisc_bypass) {
        fd_ = ::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
        if (fd_ < 0) throw OsError("opening a packet socket", errno);
        ifreq request = interface_request(interface_);
        if (::ioctl(fd_, SIOCGIFINDEX, &request) < 0) throw OsError("looking up the interface", errno);
        sockaddr_ll address{};
        address.sll_family = AF_PACKET;
        address.sll_protocol = 0;  // send only
        address.sll_ifindex = request.ifr_ifindex;
        if (::ioctl(fd_, SIOCGIFFLAGS, &request) < 0) throw OsError("reading the interface's flags", errno);
        if ((request.ifr_flags & IFF_UP) == 0) throw OsError("opening the interface", ENETDOWN);
        if (::ioctl(fd_, SIOCGIFHWADDR, &request) < 0) throw OsError("reading the link type", errno);
        const unsigned hardware = request.ifr_hwaddr.sa_family;
        if (hardware != 1 && hardware != 772)  // ARPHRD_ETHER, ARPHRD_LOOPBACK
            throw std::invalid_argument("output of link hardware type " + std::to_string(hardware) +
                                        " (ARPHRD_*) is not Ethernet");
        if (::bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) < 0)
            throw OsError("binding to the interface", errno);
        int yes = qdisc_bypass ? 1 : 0;
        if (::setsockopt(fd_, SOL_PACKET, PACKET_QDISC_BYPASS, &yes, sizeof yes) < 0)
            throw OsError("bypassing the queueing discipline", errno);
    }

    void open_raw() {
        fd_ = ::socket(v6_ ? AF_INET6 : AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
        if (fd_ < 0) throw OsError("opening a raw IP socket", errno);
        int yes = 1;
        if (!interface_.empty()) {
            ifreq request = interface_request(interface_);
            if (::ioctl(fd_, SIOCGIFINDEX, &request) < 0) throw OsError("looking up the interface", errno);
            if (::setsockopt(fd_, SOL_SOCKET, SO_BINDTODEVICE, interface_.c_str(),
                             static_cast<socklen_t>(interface_.size())) < 0)
                throw OsError("binding to the interface", errno);
        }
        // An unreachable next hop comes back as an error of a later send instead of vanishing.
        if (v6_) {
            // With IPV6_HDRINCL (implied by IPPROTO_RAW) the header goes out as we wrote it.
            ::setsockopt(fd_, IPPROTO_IPV6, IPV6_RECVERR, &yes, sizeof yes);
            destination6_.sin6_family = AF_INET6;
            std::memcpy(&destination6_.sin6_addr, outer_.data() + 24, 16);
            if (IN6_IS_ADDR_LINKLOCAL(&destination6_.sin6_addr))
                destination6_.sin6_scope_id = ::if_nametoindex(interface_.c_str());
        } else {
            ::setsockopt(fd_, IPPROTO_IP, IP_RECVERR, &yes, sizeof yes);
            destination4_.sin_family = AF_INET;
            std::memcpy(&destination4_.sin_addr, outer_.data() + 16, 4);
        }
    }

    // The MTU may be changed while we run.
    void refresh_mtu(Totals& totals) {
        if (interface_.empty()) {
            mtu_ = 65535;  // the route decides: EMSGSIZE from the kernel
            return;
        }
        ifreq request = interface_request(interface_);
        if (::ioctl(fd_, SIOCGIFMTU, &request) == 0)
            mtu_ = static_cast<unsigned>(request.ifr_mtu);
        else
            totals.last_error = errno;  // interface gone: the sends say so too
    }

    // Fills message `slot`; false where the frame cannot go out (counted).
    bool prepare(std::size_t slot, const std::uint8_t* frame, std::size_t n, std::uint16_t linktype,
                 Totals& totals) {
        iovec* piece = &pieces_[slot * 2];
        msghdr& message = messages_[slot].msg_hdr;
        message = msghdr{};
        message.msg_iov = piece;
        std::uint16_t made_type = 0;  // EtherType of the header that a raw IP packet is given
        if (is_raw_ip(linktype) && !mac_dst_.empty() && !mac_src_.empty() && n >= 20) {
            if (frame[0] >> 4 == 4) made_type = ETH_P_IP;
            if (frame[0] >> 4 == 6) made_type = ETH_P_IPV6;
        }
        if (made_type == 0 && (linktype != linktype_ethernet || n < 14)) {
            ++totals.unsendable;
            return false;
        }
        const bool edit = strip_tag_ || !mac_dst_.empty() || !mac_src_.empty() || !add_tag_.empty();
        std::uint8_t* header = &headers_[slot * header_room];
        std::size_t header_bytes = 0;
        std::size_t skip = 0;  // bytes of the frame that the new header replaces
        if (!outer_.empty()) {
            std::memcpy(header, outer_.data(), outer_.size());
            header_bytes = outer_.size();
        }
        const std::uint8_t* l2 = frame;
        if (edit) {
            std::uint8_t* l2_out = header + header_bytes;
            // Both addresses are given where the frame has none (made_type).
            std::memcpy(l2_out, mac_dst_.empty() ? frame : mac_dst_.data(), 6);
            std::memcpy(l2_out + 6, mac_src_.empty() ? frame + 6 : mac_src_.data(), 6);
            skip = made_type == 0 ? 12 : 0;
            std::size_t l2_bytes = 12;
            if (made_type == 0 && strip_tag_ && is_vlan(get16(frame + 12))) {
                if (n < 18) {
                    ++totals.unsendable;
                    return false;
                }
                skip = 16;
            }
            if (!add_tag_.empty()) {
                std::memcpy(l2_out + 12, add_tag_.data(), 4);
                l2_bytes += 4;
            }
            // The type field travels in the header too: the kernel looks at the first 14 bytes at once.
            if (made_type != 0) {
                put16(l2_out + l2_bytes, made_type);
            } else {
                std::memcpy(l2_out + l2_bytes, frame + skip, 2);
                skip += 2;
            }
            l2_bytes += 2;
            header_bytes += l2_bytes;
            l2 = l2_out;
        }
        const std::size_t total = header_bytes + n - skip;
        if (outer_.empty()) {
            // As the kernel counts it: a first 802.1Q tag comes on top of the MTU (af_packet.c, packet_snd).
            const std::size_t l2_header = get16(l2 + 12) == ETH_P_8021Q ? 18U : 14U;
            if (total > mtu_ + l2_header) {
                ++totals.too_big;
                return false;
            }
        } else {
            if (total > mtu_ || total > 65535) {
                ++totals.too_big;
                return false;
            }
            finish_outer(header, header_bytes, frame, n, skip, total, made_type);
            message.msg_name = v6_ ? static_cast<void*>(&destination6_) : static_cast<void*>(&destination4_);
            message.msg_namelen = v6_ ? sizeof destination6_ : sizeof destination4_;
        }
        if (header_bytes != 0) {
            piece[0] = {header, header_bytes};
            piece[1] = {const_cast<std::uint8_t*>(frame + skip), n - skip};
            message.msg_iovlen = 2;
        } else {
            piece[0] = {const_cast<std::uint8_t*>(frame), n};
            message.msg_iovlen = 1;
        }
        messages_[slot].msg_len = static_cast<unsigned>(total);
        return true;
    }

    // Lengths, IPv4 identification and checksum, UDP source port and checksum.
    void finish_outer(std::uint8_t* header, std::size_t header_bytes, const std::uint8_t* frame,
                      std::size_t n, std::size_t skip, std::size_t total, std::uint16_t made_type) {
        const std::size_t ip = v6_ ? 40 : 20;
        if (v6_) {
            put16(header + 4, total - 40);
        } else {
            put16(header + 2, total);
            put16(header + 4, ++identification_);
            put16(header + 10, 0);
            const std::uint16_t checksum = static_cast<std::uint16_t>(~fold(sum_words(header, 20, 0)));
            std::memcpy(header + 10, &checksum, 2);  // raw sockets write the same value again
        }
        if (tunnel_ != Tunnel::vxlan) return;
        std::uint8_t* udp = header + ip;
        put16(udp, 49152 + (flow_entropy(frame, n, made_type) &
                            0x3FFF));  // RFC 7348 section 5, RFC 6335 dynamic ports
        put16(udp + 4, total - ip);
        put16(udp + 6, 0);
        if (!udp_checksum_) return;
        std::uint64_t sum =
            v6_ ? sum_words(header + 8, 32, 0) : sum_words(header + 12, 8, 0);  // pseudo header
        sum += htons(static_cast<std::uint16_t>(total - ip));
        sum += htons(IPPROTO_UDP);
        sum = sum_words(udp, header_bytes - ip, sum);  // 16 bytes, or 30 or 34 with an Ethernet header: even
        sum = sum_words(frame + skip, n - skip, sum);
        std::uint16_t checksum = static_cast<std::uint16_t>(~fold(sum));
        if (checksum == 0) checksum = 0xFFFF;  // RFC 768: 0 means none
        std::memcpy(udp + 6, &checksum, 2);
    }

    void flush(std::size_t n, Totals& totals) {
        std::size_t at = 0;
        while (at < n) {
            // msg_len is our own until the kernel overwrites it with what it sent.
            int done = ::sendmmsg(fd_, &messages_[at], static_cast<unsigned>(n - at), MSG_DONTWAIT);
            if (done > 0) {
                for (std::size_t end = at + static_cast<std::size_t>(done); at < end; ++at) {
                    ++totals.sent;
                    totals.bytes += frame_of_[at].caplen;
                    totals.wire_bytes += messages_[at].msg_len;
                    totals.cut += frame_of_[at].caplen < frame_of_[at].length;
                }
                continue;
            }
            const int error = errno;
            if (error == EINTR) continue;
            const bool passing =
                error == EAGAIN || error == EWOULDBLOCK || error == ENOBUFS || error == ENOMEM;
            if (passing && budget_ns_ > 0) {
                totals.waited_ns += pause(error);
                ++totals.retries;
                continue;
            }
            totals.last_error = error;
            if (error == EMSGSIZE) {
                ++totals.too_big;
                ++at;
            } else if (error == ENETDOWN || error == ENODEV || error == ENXIO) {
                totals.errors += n - at;  // nothing behind it can go either
                return;
            } else {
                ++totals.errors;
                ++at;
            }
        }
    }

    // A full queue somewhere below us: wait a little, out of this call's budget. Returns the ns that it took.
    std::int64_t pause(int error) {
        timespec before{}, after{};
        ::clock_gettime(CLOCK_MONOTONIC, &before);
        if (error == EAGAIN || error == EWOULDBLOCK) {
            pollfd p{fd_, POLLOUT, 0};
            const std::int64_t limit = std::min<std::int64_t>(budget_ns_, 1'000'000);
            timespec t{0, limit};
            ::ppoll(&p, 1, &t, nullptr);
        } else {
            timespec t{0, 20'000};
            ::nanosleep(&t, nullptr);
        }
        ::clock_gettime(CLOCK_MONOTONIC, &after);
        const std::int64_t spent =
            (after.tv_sec - before.tv_sec) * 1'000'000'000LL + after.tv_nsec - before.tv_nsec;
        budget_ns_ -= std::max<std::int64_t>(spent, 1'000);
        return spent;
    }

    std::string interface_;
    int fd_ = -1;
    std::vector<std::uint8_t> mac_dst_, mac_src_, add_tag_, outer_;
    bool strip_tag_;
    Tunnel tunnel_;
    bool udp_checksum_;
    bool v6_ = false;
    unsigned mtu_ = 0;
    std::uint16_t identification_ = 0;
    std::int64_t retry_ns_, budget_ns_ = 0;
    sockaddr_in destination4_{};
    sockaddr_in6 destination6_{};
    std::vector<std::uint8_t> headers_;
    std::vector<mmsghdr> messages_;
    std::vector<iovec> pieces_;
    std::vector<Frame> frame_of_;
};

}  // namespace

void bind_packet_output(nb::module_& m) {
    nb::class_<PacketOutput>(m, "PacketOutput", "Batched send; see twinstamp.io.live.LiveOutput.")
        .def(nb::init<const std::string&, Bytes, Bytes, Bytes, bool, Bytes, int, bool, bool, double, int>(),
             nb::arg("interface"), nb::kw_only(), nb::arg("mac_dst"), nb::arg("mac_src"), nb::arg("add_tag"),
             nb::arg("strip_tag"), nb::arg("outer"), nb::arg("tunnel"), nb::arg("udp_checksum"),
             nb::arg("qdisc_bypass"), nb::arg("retry_ms"), nb::arg("send_buffer"))
        .def("send", &PacketOutput::send, nb::arg("data"), nb::arg("offset"), nb::arg("caplen"),
             nb::arg("length"), nb::arg("port"), nb::arg("linktypes"), nb::arg("index").none(),
             nb::arg("retry_ns") = nb::none())
        .def("fileno", &PacketOutput::fileno)
        .def("close", &PacketOutput::close)
        .def_prop_ro("mtu", &PacketOutput::mtu);
}

}  // namespace twinstamp
