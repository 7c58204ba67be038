// SPDX-License-Identifier: Apache-2.0
// AF_PACKET receive ring, TPACKET_V3 (kernel: Documentation/networking/packet_mmap.rst,
// net/packet/af_packet.c).
//
// Frames stay where the kernel put them: a batch's offsets point into the ring's mapping. A block goes back
// to the kernel when its lease ends, never before; while blocks are held the kernel may run out of them and
// then drops, and counts, whole frames.
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/net_tstamp.h>
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "batch_columns.h"
#include "os_error.h"

#ifndef PACKET_IGNORE_OUTGOING  // Linux 4.20, missing from older headers
#define PACKET_IGNORE_OUTGOING 23
#endif

namespace nb = nanobind;

namespace twinstamp {
namespace {

constexpr unsigned vlan_tag_bytes = 4;
constexpr unsigned mac_addresses_bytes = 12;
constexpr std::uint16_t flag_outgoing = 0x0001;  // frames.py FLAG_*
constexpr std::uint16_t flag_vlan_restored = 0x0008;
constexpr std::uint16_t flag_csum_not_ready = 0x0010;
constexpr std::uint16_t flag_kernel_stamp = 0x0040;
constexpr int linktype_ethernet = 1;
constexpr int linktype_raw = 101;

std::int64_t monotonic_ns() {
    timespec t{};
    ::clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1'000'000'000LL + t.tv_nsec;
}

// The mapping outlives the socket's owner: batches that are still held keep reading valid memory.
struct RingMemory {
    RingMemory(int fd, unsigned block_bytes_, unsigned blocks_)
        : block_bytes(block_bytes_),
          blocks(blocks_),
          bytes(std::size_t{block_bytes_} * blocks_),
          held(blocks_) {
        void* p = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED) throw OsError("mapping the packet ring", errno);
        base = static_cast<std::uint8_t*>(p);
        for (auto& h : held) h.store(0, std::memory_order_relaxed);
    }
    RingMemory(const RingMemory&) = delete;
    RingMemory& operator=(const RingMemory&) = delete;
    ~RingMemory() { ::munmap(base, bytes); }

    tpacket_block_desc* block(unsigned i) const {
        return reinterpret_cast<tpacket_block_desc*>(base + std::size_t{i} * block_bytes);
    }
    // The kernel owns the block until it sets TP_STATUS_USER; what it wrote before that is then visible.
    bool closed(unsigned i) const {
        auto* status = &block(i)->hdr.bh1.block_status;
        return (__atomic_load_n(status, __ATOMIC_ACQUIRE) & TP_STATUS_USER) != 0 &&
               held[i].load(std::memory_order_acquire) == 0;
    }
    void give_back(unsigned i) {
        held[i].store(0, std::memory_order_release);
        held_blocks.fetch_sub(1, std::memory_order_relaxed);
        __atomic_store_n(&block(i)->hdr.bh1.block_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
    }

    unsigned block_bytes;
    unsigned blocks;
    std::size_t bytes;
    std::uint8_t* base = nullptr;
    std::vector<std::atomic<std::uint8_t>> held;  // handed out in a batch and not yet given back
    std::atomic<unsigned> held_blocks{0};
};

// Blocks of one batch. Ends at release() or, if nobody calls it, when the batch's last view is gone.
class BlockLease {
  public:
    BlockLease(std::shared_ptr<RingMemory> memory, unsigned first, unsigned count)
        : memory_(std::move(memory)), first_(first), count_(count) {}
    BlockLease(const BlockLease&) = delete;
    BlockLease& operator=(const BlockLease&) = delete;
    ~BlockLease() { release(); }
    void release() {
        if (done_.exchange(true)) return;
        for (unsigned i = 0; i < count_; ++i) memory_->give_back((first_ + i) % memory_->blocks);
    }

  private:
    std::shared_ptr<RingMemory> memory_;  // kept after release: a stale view must still point at memory
    unsigned first_, count_;
    std::atomic<bool> done_{false};
};

class PacketRing {
  public:
    PacketRing(const std::string& interface, unsigned block_bytes, unsigned blocks, unsigned block_timeout_ms,
               bool promiscuous, bool ignore_outgoing, nb::bytes filter, int fanout_group, int fanout_mode,
               bool hardware_stamps)
        : timeout_ms_(block_timeout_ms), hardware_stamps_(hardware_stamps) {
        // Protocol 0: nothing is queued before the filter, the ring and the interface are in place.
        fd_ = ::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
        if (fd_ < 0) throw OsError("opening a packet socket", errno);
        try {
            open(interface, block_bytes, blocks, promiscuous, ignore_outgoing, filter, fanout_group,
                 fanout_mode);
        } catch (...) {
            ::close(fd_);
            throw;
        }
    }
    PacketRing(const PacketRing&) = delete;
    PacketRing& operator=(const PacketRing&) = delete;
    ~PacketRing() { close(); }

    void close() {
        if (fd_ < 0) return;
        if (memory_) {
            // A held batch keeps the mapping, and the mapping keeps the kernel's socket: stop it by hand.
            sock_filter nothing{BPF_RET | BPF_K, 0, 0, 0};
            sock_fprog program{1, &nothing};
            ::setsockopt(fd_, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
            if (promiscuous_) membership(PACKET_DROP_MEMBERSHIP);
            read_statistics();
        }
        ::close(fd_);
        fd_ = -1;
        memory_.reset();
    }

    // Frames of one or more closed blocks, or None at the time limit, on a signal, or while every block is
    // held. Returns (columns, lease).
    nb::object poll(double timeout_s, std::size_t max_frames) {
        if (fd_ < 0) throw std::runtime_error("the packet ring is closed");
        std::shared_ptr<RingMemory> ring = memory_;
        unsigned first = next_;
        int error = 0;
        {
            nb::gil_scoped_release unlocked;
            if (!ring->closed(first)) error = wait(*ring, first, timeout_s);
        }
        if (!ring->closed(first)) {
            if (error != 0) throw OsError("receiving", error);
            return nb::none();
        }
        if (error != 0) pending_error_ = error;  // the frames first, the bad news at the next call

        unsigned count = 0;
        std::size_t frames = 0;
        while (count < ring->blocks && ring->closed((first + count) % ring->blocks)) {
            std::size_t in_block = ring->block((first + count) % ring->blocks)->hdr.bh1.num_pkts;
            if (count != 0 && frames + in_block > max_frames) break;
            frames += in_block;
            ++count;
        }
        BatchColumns columns(frames);
        std::size_t n = 0;
        {
            nb::gil_scoped_release unlocked;
            for (unsigned i = 0; i < count; ++i) {
                unsigned at = (first + i) % ring->blocks;
                ring->held[at].store(1, std::memory_order_release);
                ring->held_blocks.fetch_add(1, std::memory_order_relaxed);
                n = walk(*ring, at, columns, n);
            }
        }
        next_ = (first + count) % ring->blocks;
        nb::object lease = nb::cast(new BlockLease(ring, first, count), nb::rv_policy::take_ownership);
        if (n == 0) {  // a block that closed empty (kernels before 4.0 do that)
            nb::cast<BlockLease*>(lease)->release();
            return nb::none();
        }
        return nb::make_tuple(columns.hand_out(ring->base, ring->bytes, lease, n), lease);
    }

    int fileno() const {
        if (fd_ < 0) throw std::runtime_error("the packet ring is closed");
        return fd_;
    }

    // (frames put into the ring, frames dropped for want of a block, times the ring froze), since the start
    nb::tuple statistics() {
        read_statistics();
        return nb::make_tuple(frames_, drops_, freezes_);
    }

    int linktype() const { return linktype_; }
    int ifindex() const { return ifindex_; }
    unsigned held_blocks() const { return memory_ ? memory_->held_blocks.load() : 0; }

  private:
    void open(const std::string& interface, unsigned block_bytes, unsigned blocks, bool promiscuous,
              bool ignore_outgoing, nb::bytes& filter, int fanout_group, int fanout_mode) {
        ifreq request = interface_request(interface);
        if (::ioctl(fd_, SIOCGIFINDEX, &request) < 0) throw OsError("looking up the interface", errno);
        ifindex_ = request.ifr_ifindex;
        if (::ioctl(fd_, SIOCGIFHWADDR, &request) < 0) throw OsError("reading the link type", errno);
        linktype_ = linktype_of(request.ifr_hwaddr.sa_family);
        if (::ioctl(fd_, SIOCGIFFLAGS, &request) < 0) throw OsError("reading the interface's flags", errno);
        if ((request.ifr_flags & IFF_UP) == 0) throw OsError("opening the interface", ENETDOWN);

        if (filter.size() != 0) {
            std::vector<sock_filter> code(filter.size() / sizeof(sock_filter));
            std::memcpy(code.data(), filter.c_str(), code.size() * sizeof(sock_filter));
            sock_fprog program{static_cast<unsigned short>(code.size()), code.data()};
            if (::setsockopt(fd_, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) < 0)
                throw OsError("attaching the filter", errno);
        }
        set(PACKET_VERSION, int{TPACKET_V3}, "asking for TPACKET_V3");
        // Room in front of each frame to move the MAC addresses down and put a VLAN tag back.
        set(PACKET_RESERVE, vlan_tag_bytes, "reserving room for VLAN tags");
        if (ignore_outgoing) {
            // Linux 4.20; without it outgoing frames are left out in the walk.
            int yes = 1;
            skip_outgoing_ = ::setsockopt(fd_, SOL_PACKET, PACKET_IGNORE_OUTGOING, &yes, sizeof yes) < 0;
        }
        if (hardware_stamps_)
            set(PACKET_TIMESTAMP, int{SOF_TIMESTAMPING_RAW_HARDWARE}, "asking for the interface's stamps");
        tpacket_req3 ring{};
        ring.tp_block_size = block_bytes;
        ring.tp_block_nr = blocks;
        ring.tp_frame_size = 2048;  // only checked for consistency: V3 packs frames by their size
        ring.tp_frame_nr = static_cast<unsigned>(std::size_t{block_bytes} / ring.tp_frame_size * blocks);
        ring.tp_retire_blk_tov = timeout_ms_;
        set(PACKET_RX_RING, ring, "making the packet ring");
        memory_ = std::make_shared<RingMemory>(fd_, block_bytes, blocks);

        sockaddr_ll address{};
        address.sll_family = AF_PACKET;
        address.sll_protocol = htons(ETH_P_ALL);
        address.sll_ifindex = ifindex_;
        if (::bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) < 0)
            throw OsError("binding to the interface", errno);
        if (promiscuous) {
            if (!membership(PACKET_ADD_MEMBERSHIP)) throw OsError("asking for promiscuous mode", errno);
            promiscuous_ = true;
        }
        if (fanout_group >= 0)
            set(PACKET_FANOUT, (fanout_group & 0xFFFF) | (fanout_mode << 16), "joining the fanout group");
    }

    template <typename T>
    void set(int option, const T& value, const char* doing) {
        if (::setsockopt(fd_, SOL_PACKET, option, &value, sizeof value) < 0) throw OsError(doing, errno);
    }

    // The kernel counts memberships and takes ours back when the socket goes, however we end.
    bool membership(int option) {
        packet_mreq request{};
        request.mr_ifindex = ifindex_;
        request.mr_type = PACKET_MR_PROMISC;
        return ::setsockopt(fd_, SOL_PACKET, option, &request, sizeof request) == 0;
    }

    static int linktype_of(unsigned hardware) {
        switch (hardware) {
            case ARPHRD_ETHER:
            case ARPHRD_LOOPBACK:
                return linktype_ethernet;
            case ARPHRD_NONE:  // tun
            case ARPHRD_RAWIP:
            case ARPHRD_PPP:  // the driver has cut the PPP header off before a packet socket sees the frame
            case ARPHRD_TUNNEL:
            case ARPHRD_TUNNEL6:
            case ARPHRD_SIT:
                return linktype_raw;
            default:
                throw std::invalid_argument("link hardware type " + std::to_string(hardware) +
                                            " (ARPHRD_*) is not Ethernet, loopback, raw IP or PPP");
        }
    }

    int wait(const RingMemory& ring, unsigned first, double timeout_s) {
        if (pending_error_ != 0) return std::exchange(pending_error_, 0);
        const std::int64_t limit =
            monotonic_ns() + static_cast<std::int64_t>(std::clamp(timeout_s, 0.0, 86400.0 * 365) * 1e9);
        for (;;) {
            std::int64_t left = std::max<std::int64_t>(0, limit - monotonic_ns());
            pollfd p{fd_, POLLIN, 0};
            timespec t{left / 1'000'000'000, left % 1'000'000'000};
            int ready = ::ppoll(&p, 1, &t, nullptr);
            if (ring.closed(first)) return 0;
            if (ready < 0) return errno == EINTR ? 0 : errno;  // the caller looks at signals
            if (ready == 0) return 0;
            if ((p.revents & (POLLERR | POLLHUP | POLLNVAL)) != 0) {
                int error = 0;
                socklen_t size = sizeof error;
                ::getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size);
                if (error != 0) {
                    // The open block still closes by its timer: its frames were received and must come out.
                    sleep_ns(2'000'000LL * timeout_ms_ + 20'000'000);
                    return error;
                }
            }
            if (left == 0) return 0;
            // Readable, yet our next block is not closed: the newest closed block is one that we hold, and
            // poll() does not tell that from new frames. Wait by time instead of spinning.
            sleep_ns(std::min<std::int64_t>(200'000, left));
        }
    }

    static void sleep_ns(std::int64_t ns) {
        timespec t{ns / 1'000'000'000, ns % 1'000'000'000};
        ::clock_nanosleep(CLOCK_MONOTONIC, 0, &t, nullptr);
    }

    std::size_t walk(RingMemory& ring, unsigned at, BatchColumns& columns, std::size_t n) const {
        const tpacket_hdr_v1& block = ring.block(at)->hdr.bh1;
        std::uint8_t* p = reinterpret_cast<std::uint8_t*>(ring.block(at)) + block.offset_to_first_pkt;
        for (unsigned left = block.num_pkts; left != 0; --left) {
            const auto* header = reinterpret_cast<const tpacket3_hdr*>(p);
            const auto* address =
                reinterpret_cast<const sockaddr_ll*>(p + TPACKET_ALIGN(sizeof(tpacket3_hdr)));
            std::uint8_t* frame = p + header->tp_mac;
            __builtin_prefetch(p + header->tp_next_offset);
            p += header->tp_next_offset;
            const bool outgoing = address->sll_pkttype == PACKET_OUTGOING;
            if (outgoing && skip_outgoing_) continue;
            std::uint32_t caplen = header->tp_snaplen;
            std::uint32_t length = header->tp_len;
            std::uint16_t flags = outgoing ? flag_outgoing : std::uint16_t{0};
            if ((header->tp_status & TP_STATUS_CSUMNOTREADY) != 0) flags |= flag_csum_not_ready;
            if ((header->tp_status & TP_STATUS_VLAN_VALID) != 0 && linktype_ == linktype_ethernet &&
                caplen >= mac_addresses_bytes) {
                // Kernels before 3.14 give no TPID.
                const bool has_tpid = (header->tp_status & TP_STATUS_VLAN_TPID_VALID) != 0;
                const std::uint16_t tpid = has_tpid ? header->hv1.tp_vlan_tpid : std::uint16_t{ETH_P_8021Q};
                const auto tci = static_cast<std::uint16_t>(header->hv1.tp_vlan_tci);
                std::memmove(frame - vlan_tag_bytes, frame, mac_addresses_bytes);
                frame -= vlan_tag_bytes;
                frame[12] = static_cast<std::uint8_t>(tpid >> 8);
                frame[13] = static_cast<std::uint8_t>(tpid & 0xFF);
                frame[14] = static_cast<std::uint8_t>(tci >> 8);
                frame[15] = static_cast<std::uint8_t>(tci & 0xFF);
                caplen += vlan_tag_bytes;
                length += vlan_tag_bytes;
                flags |= flag_vlan_restored;
            }
            if (hardware_stamps_ && (header->tp_status & TP_STATUS_TS_RAW_HARDWARE) == 0)
                flags |= flag_kernel_stamp;
            columns.offset[n] = static_cast<std::uint64_t>(frame - ring.base);
            columns.caplen[n] = caplen;
            columns.length[n] = length;
            columns.timestamp_ns[n] = header->tp_sec * std::int64_t{1'000'000'000} + header->tp_nsec;
            columns.port[n] = 0;
            columns.flags[n] = flags;
            ++n;
        }
        return n;
    }

    // The kernel sets its counters to zero at each read, and counts a dropped frame in both.
    void read_statistics() {
        std::lock_guard<std::mutex> lock(statistics_lock_);
        if (fd_ < 0) return;
        tpacket_stats_v3 now{};
        socklen_t size = sizeof now;
        if (::getsockopt(fd_, SOL_PACKET, PACKET_STATISTICS, &now, &size) < 0) return;
        frames_ += now.tp_packets - now.tp_drops;
        drops_ += now.tp_drops;
        freezes_ += now.tp_freeze_q_cnt;
    }

    int fd_ = -1;
    int ifindex_ = 0;
    int linktype_ = linktype_ethernet;
    unsigned timeout_ms_;
    unsigned next_ = 0;
    bool promiscuous_ = false;
    bool skip_outgoing_ = false;
    bool hardware_stamps_;
    int pending_error_ = 0;
    std::shared_ptr<RingMemory> memory_;
    std::mutex statistics_lock_;
    std::uint64_t frames_ = 0, drops_ = 0, freezes_ = 0;
};

}  // namespace

void bind_packet_socket(nb::module_& m) {
    nb::register_exception_translator([](const std::exception_ptr& p, void*) {
        try {
            std::rethrow_exception(p);
        } catch (const OsError& e) {
            PyErr_SetObject(PyExc_OSError, nb::make_tuple(e.code(), e.what()).ptr());
        }
    });
    nb::class_<BlockLease>(m, "BlockLease").def("release", &BlockLease::release);
    nb::class_<PacketRing>(m, "PacketRing",
                           "AF_PACKET TPACKET_V3 receive ring; see twinstamp.io.live.LiveSource.")
        .def(nb::init<const std::string&, unsigned, unsigned, unsigned, bool, bool, nb::bytes, int, int,
                      bool>(),
             nb::arg("interface"), nb::kw_only(), nb::arg("block_bytes"), nb::arg("blocks"),
             nb::arg("block_timeout_ms"), nb::arg("promiscuous"), nb::arg("ignore_outgoing"),
             nb::arg("filter"), nb::arg("fanout_group") = -1, nb::arg("fanout_mode") = 0,
             nb::arg("hardware_stamps") = false)
        .def("poll", &PacketRing::poll, nb::arg("timeout_s"), nb::arg("max_frames"))
        .def("fileno", &PacketRing::fileno)
        .def("statistics", &PacketRing::statistics)
        .def("close", &PacketRing::close)
        .def_prop_ro("linktype", &PacketRing::linktype)
        .def_prop_ro("ifindex", &PacketRing::ifindex)
        .def_prop_ro("held_blocks", &PacketRing::held_blocks);
}

}  // namespace twinstamp
