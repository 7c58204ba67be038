// SPDX-License-Identifier: Apache-2.0
// Frames out of an ordinary interface at given times, and when they really left (kernel:
// Documentation/networking/timestamping.rst; SO_TXTIME in net/core/sock.c, packet(7)).
//
// Who makes a frame wait: the queueing discipline where it takes SO_TXTIME, else this thread, asleep until
// shortly before and then looking at the clock. Departures come back on the socket's error queue.
// clang-format off: errqueue.h needs timespec
#include <time.h>
#include <linux/errqueue.h>
// clang-format on
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/net_tstamp.h>
#include <linux/sockios.h>
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <net/if.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "os_error.h"

namespace nb = nanobind;

namespace twinstamp {
namespace {

template <class T>
using Array = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T>
using Out = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

constexpr std::int64_t second_ns = 1'000'000'000;
constexpr std::uint64_t ntp_minus_unix_s = 2'208'988'800u;  // RFC 5905, figure 4
constexpr std::size_t longest_frame = 65'536 + 64;
constexpr std::uint32_t most_waiting = 1u << 16;  // frames whose stamps are waited for; a lost one has none
constexpr std::size_t most_before = std::size_t{1} << 20;
constexpr std::uint64_t unknown = UINT64_MAX;

std::int64_t now_ns(clockid_t clock) {
    timespec t{};
    ::clock_gettime(clock, &t);
    return t.tv_sec * second_ns + t.tv_nsec;
}

void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// How a stamp is written into a frame just before it goes.
struct StampPlace {
    std::uint32_t at;        // of the 8 bytes of the stamp in the frame
    std::uint32_t checksum;  // of the UDP checksum, which lacks the stamp; 0: none to mend
    bool ptp;                // seconds and nanoseconds, in place of NTP's 32.32
    std::int64_t offset_ns;  // from CLOCK_REALTIME to the stamp's timescale
};

std::uint64_t stamp_of(std::int64_t ns, bool ptp) {
    const auto seconds = static_cast<std::uint64_t>(ns / second_ns);
    const auto rest = static_cast<std::uint64_t>(ns % second_ns);
    if (ptp) return (seconds & 0xFFFFFFFFu) << 32 | rest;
    const std::uint64_t fraction =
        ((rest << 32) + second_ns / 2) / second_ns;  // below 2^32: rest < 10^9 - 1/2
    return ((seconds + ntp_minus_unix_s) << 32) + fraction;
}

// RFC 1071: the words of the stamp into a sum that was made with zeros in their place.
void write_stamp(std::uint8_t* frame, const StampPlace& place, std::uint64_t stamp) {
    std::uint32_t sum = 0;
    for (unsigned i = 0; i < 8; ++i) {
        const auto byte = static_cast<std::uint8_t>(stamp >> (56 - 8 * i));
        frame[place.at + i] = byte;
        sum += (i & 1) != 0 ? byte : std::uint32_t{byte} << 8;
    }
    if (place.checksum == 0) return;
    std::uint8_t* checksum = frame + place.checksum;
    sum += static_cast<std::uint16_t>(~(checksum[0] << 8 | checksum[1]));
    while ((sum >> 16) != 0) sum = (sum & 0xFFFF) + (sum >> 16);
    auto value = static_cast<std::uint16_t>(~sum);
    if (value == 0) value = 0xFFFF;  // RFC 768
    checksum[0] = static_cast<std::uint8_t>(value >> 8);
    checksum[1] = static_cast<std::uint8_t>(value);
}

// From the kernel's keys of departure stamps to the numbers of frames, through sends that fail: as
// twinstamp/owd/departures.py (docs/decisions/0141). A frame may have two stamps, of software and of
// hardware: one of these for each.
class DepartureNumbers {
  public:
    // Before the send: another thread may take the stamp before it returns.
    void sending(std::uint64_t number) {
        waiting_.erase(key_ - most_waiting);
        waiting_[key_++] = number;
    }
    void failed() { waiting_.erase(--key_); }

    // The kernel begins with key 0 again.
    void anew() {
        if (before_.size() > most_before) before_.clear();
        for (const auto& [key, number] : waiting_) before_[key].push_back(number);
        waiting_.clear();
        key_ = 0;
    }

    std::uint64_t number(std::uint32_t key) {
        std::vector<std::uint64_t> candidates;
        if (const auto old = before_.find(key); old != before_.end()) {
            candidates = std::move(old->second);
            before_.erase(old);
        }
        if (const auto fresh = waiting_.find(key); fresh != waiting_.end()) {
            candidates.push_back(fresh->second);
            waiting_.erase(fresh);
        }
        if (candidates.size() <= 1) return candidates.empty() ? unknown : candidates.front();
        // Stamps of the others may still come, and then belong to any of them.
        before_[key].assign(candidates.size() - 1, unknown);
        return unknown;
    }

  private:
    std::uint32_t key_ = 0;
    std::unordered_map<std::uint32_t, std::uint64_t> waiting_;
    std::unordered_map<std::uint32_t, std::vector<std::uint64_t>> before_;
};

class StampedSender {
  public:
    StampedSender(const std::string& interface, bool hardware, int txtime_clock)
        : hardware_(hardware), txtime_clock_(txtime_clock) {
        fd_ = ::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
        if (fd_ < 0) throw OsError("opening a packet socket", errno);
        try {
            ifreq request = interface_request(interface);
            if (::ioctl(fd_, SIOCGIFINDEX, &request) < 0) throw OsError("looking up the interface", errno);
            sockaddr_ll address{};
            address.sll_family = AF_PACKET;
            address.sll_ifindex = request.ifr_ifindex;
            if (::bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) < 0)
                throw OsError("binding to the interface", errno);
            if (txtime_clock >= 0) {
                sock_txtime txtime{txtime_clock, 0};
                if (::setsockopt(fd_, SOL_SOCKET, SO_TXTIME, &txtime, sizeof txtime) < 0)
                    throw OsError("asking for SO_TXTIME", errno);
            }
            int room = 4 << 20;  // the error queue lives in it, too
            ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
            ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
            number_anew();
        } catch (...) {
            ::close(fd_);
            throw;
        }
    }
    StampedSender(const StampedSender&) = delete;
    StampedSender& operator=(const StampedSender&) = delete;
    ~StampedSender() { close(); }

    void close() {
        if (fd_ >= 0) ::close(fd_);
        fd_ = -1;
    }

    // Frames in order. launch_ns: CLOCK_REALTIME, i64 min: at once. stamp_at, checksum_at: 0: none. Written:
    // before_ns, CLOCK_REALTIME just before the call that sent it, and error, an errno. Returns the number
    // of the first frame, as departures() tells it.
    std::uint64_t send(Array<std::uint8_t> data, Array<std::uint64_t> offset, Array<std::uint32_t> caplen,
                       Array<std::int64_t> launch_ns, Array<std::uint32_t> stamp_at,
                       Array<std::uint32_t> checksum_at, bool ptp, std::int64_t stamp_offset_ns,
                       std::int64_t lead_ns, std::int64_t spin_ns, Out<std::int64_t> before_ns,
                       Out<std::int32_t> error) {
        const std::size_t n = caplen.shape(0);
        if (offset.shape(0) != n || launch_ns.shape(0) != n || stamp_at.shape(0) != n ||
            checksum_at.shape(0) != n || before_ns.shape(0) != n || error.shape(0) != n)
            throw std::invalid_argument("columns of different length");
        for (std::size_t i = 0; i < n; ++i) {
            const std::uint64_t at = offset.data()[i], size = caplen.data()[i];
            if (at > data.shape(0) || size > data.shape(0) - at || size > longest_frame)
                throw std::invalid_argument("a frame lies outside the data");
            const std::uint64_t stamp = stamp_at.data()[i], checksum = checksum_at.data()[i];
            if ((stamp != 0 && stamp + 8 > size) || (checksum != 0 && checksum + 2 > size))
                throw std::invalid_argument("a stamp lies outside its frame");
        }
        nb::gil_scoped_release unlocked;
        const std::uint64_t first = sent_;
        std::vector<std::uint8_t> frame(longest_frame);
        for (std::size_t i = 0; i < n; ++i) {
            const std::size_t size = caplen.data()[i];
            std::memcpy(frame.data(), data.data() + offset.data()[i], size);
            const StampPlace place{stamp_at.data()[i], checksum_at.data()[i], ptp, stamp_offset_ns};
            send_one(frame.data(), size, launch_ns.data()[i], place, lead_ns, spin_ns, before_ns.data()[i],
                     error.data()[i]);
            // Whether the kernel had counted it cannot be told: the count starts again behind it.
            if (error.data()[i] != 0) number_anew();
            ++sent_;
            if (sent_ % 256 == 0) take_departures(0);  // before their queue is full
        }
        return first;
    }

    // What has come back: (number u64, software ns i64, hardware ns i64) per frame; 0: no such stamp.
    nb::tuple departures(double timeout_s) {
        {
            nb::gil_scoped_release unlocked;
            take_departures(static_cast<int>(std::clamp(timeout_s, 0.0, 3600.0) * 1e3));
        }
        std::vector<Departure> done;
        {
            std::lock_guard<std::mutex> lock(departures_lock_);
            done.swap(departures_);
        }
        const std::size_t n = done.size();
        auto* number = new std::uint64_t[n + 1];
        auto* software = new std::int64_t[n + 1];
        auto* hardware = new std::int64_t[n + 1];
        for (std::size_t i = 0; i < n; ++i) {
            number[i] = done[i].number;
            software[i] = done[i].software_ns;
            hardware[i] = done[i].hardware_ns;
        }
        return nb::make_tuple(own(number, n), own(software, n), own(hardware, n));
    }

    int fileno() const { return fd_; }

  private:
    struct Departure {
        std::uint64_t number;
        std::int64_t software_ns, hardware_ns;
    };

    template <class T>
    static nb::object own(T* data, std::size_t n) {
        nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
        return nb::cast(nb::ndarray<nb::numpy, T, nb::ndim<1>>(data, {n}, owner));
    }

    // The kernel numbers stamps from 0 whenever OPT_ID goes from off to on.
    void number_anew() {
        const unsigned report = SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_RAW_HARDWARE |
                                SOF_TIMESTAMPING_OPT_TSONLY | SOF_TIMESTAMPING_OPT_CMSG |
                                SOF_TIMESTAMPING_OPT_TX_SWHW;
        const unsigned make =
            SOF_TIMESTAMPING_TX_SOFTWARE | (hardware_ ? unsigned{SOF_TIMESTAMPING_TX_HARDWARE} : 0u);
        std::lock_guard<std::mutex> lock(departures_lock_);
        while (take_one(false)) {
        }
        for (unsigned flags : {report, report | make | SOF_TIMESTAMPING_OPT_ID}) {
            if (::setsockopt(fd_, SOL_SOCKET, SO_TIMESTAMPING, &flags, sizeof flags) < 0)
                throw OsError("asking for departure stamps", errno);
        }
        while (take_one(true)) {
        }
        by_software_.anew();
        by_hardware_.anew();
    }

    void send_one(std::uint8_t* frame, std::size_t size, std::int64_t launch, const StampPlace& place,
                  std::int64_t lead_ns, std::int64_t spin_ns, std::int64_t& before, std::int32_t& error) {
        const bool timed = launch != INT64_MIN;
        msghdr message{};
        iovec part{frame, size};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        alignas(cmsghdr) char control[CMSG_SPACE(sizeof(std::uint64_t))] = {};
        if (timed && txtime_clock_ >= 0) {
            message.msg_control = control;
            message.msg_controllen = sizeof control;
            cmsghdr* c = CMSG_FIRSTHDR(&message);
            c->cmsg_level = SOL_SOCKET;
            c->cmsg_type = SCM_TXTIME;
            c->cmsg_len = CMSG_LEN(sizeof(std::uint64_t));
            const std::int64_t there = launch + now_ns(txtime_clock_) - now_ns(CLOCK_REALTIME);
            const auto value = static_cast<std::uint64_t>(there);
            std::memcpy(CMSG_DATA(c), &value, sizeof value);
        } else if (timed) {
            wait_until(launch - lead_ns, spin_ns);
        }
        before = now_ns(CLOCK_REALTIME);
        if (place.at != 0) {
            const std::int64_t leaves = timed && txtime_clock_ >= 0 ? launch : before;
            write_stamp(frame, place, stamp_of(leaves + place.offset_ns, place.ptp));
        }
        ssize_t got;
        {
            std::lock_guard<std::mutex> lock(departures_lock_);
            by_software_.sending(sent_);
            by_hardware_.sending(sent_);
        }
        do {
            got = ::sendmsg(fd_, &message, 0);
        } while (got < 0 && errno == EINTR);
        error = got < 0 ? errno : 0;
        if (got < 0) {
            std::lock_guard<std::mutex> lock(departures_lock_);
            by_software_.failed();
            by_hardware_.failed();
        }
    }

    static void wait_until(std::int64_t ns, std::int64_t spin_ns) {
        const std::int64_t asleep_until = ns - spin_ns;
        if (now_ns(CLOCK_REALTIME) < asleep_until) {
            const timespec t{asleep_until / second_ns, asleep_until % second_ns};
            while (::clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &t, nullptr) == EINTR) {
            }
        }
        while (now_ns(CLOCK_REALTIME) < ns) relax();
    }

    // All there are; where there are none, those that come first within the time.
    void take_departures(int timeout_ms) {
        take_all();
        if (timeout_ms == 0 || waiting()) return;
        pollfd p{fd_, 0, 0};  // POLLERR tells of the error queue
        if (::poll(&p, 1, timeout_ms) <= 0) return;
        take_all();
    }

    void take_all() {
        std::lock_guard<std::mutex> lock(departures_lock_);
        while (take_one(false)) {
        }
    }

    bool waiting() {
        std::lock_guard<std::mutex> lock(departures_lock_);
        return !departures_.empty();
    }

    // With the lock. between: OPT_ID was off a moment ago; what was stamped then has key 0, whatever it is.
    bool take_one(bool between) {
        alignas(cmsghdr) char control[512];
        char data[64];
        iovec part{data, sizeof data};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        if (::recvmsg(fd_, &message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0) return false;
        timespec stamps[3] = {};
        bool numbered = false;
        std::uint32_t key = 0;
        for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
            if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPING) {
                std::memcpy(stamps, CMSG_DATA(c), sizeof stamps);
            } else if (c->cmsg_level == SOL_PACKET && c->cmsg_type == PACKET_TX_TIMESTAMP) {
                sock_extended_err error{};
                std::memcpy(&error, CMSG_DATA(c), sizeof error);
                if (error.ee_origin == SO_EE_ORIGIN_TIMESTAMPING) {
                    key = error.ee_data;
                    numbered = true;
                }
            }
        }
        if (!numbered || (between && key == 0)) return true;
        const auto ns = [](const timespec& t) { return t.tv_sec * second_ns + t.tv_nsec; };
        const std::int64_t software = ns(stamps[0]), hardware = ns(stamps[2]);
        std::uint64_t number = unknown;
        if (software != 0) number = by_software_.number(key);
        if (hardware != 0) number = by_hardware_.number(key);
        if (number != unknown) departures_.push_back({number, software, hardware});
        return true;
    }

    int fd_ = -1;
    bool hardware_;
    int txtime_clock_;
    std::atomic<std::uint64_t> sent_ = 0;  // frames handed to send()
    // One thread may send while another takes departures.
    std::mutex departures_lock_;
    DepartureNumbers by_software_, by_hardware_;
    std::vector<Departure> departures_;
};

}  // namespace

void bind_stamped_sender(nb::module_& m) {
    nb::class_<StampedSender>(m, "StampedSender", "Timed, stamped sending; see twinstamp.card.linux.")
        .def(nb::init<const std::string&, bool, int>(), nb::arg("interface"), nb::kw_only(),
             nb::arg("hardware"), nb::arg("txtime_clock"))
        .def("send", &StampedSender::send, nb::arg("data"), nb::arg("offset"), nb::arg("caplen"),
             nb::arg("launch_ns"), nb::arg("stamp_at"), nb::arg("checksum_at"), nb::kw_only(), nb::arg("ptp"),
             nb::arg("stamp_offset_ns"), nb::arg("lead_ns"), nb::arg("spin_ns"), nb::arg("before_ns"),
             nb::arg("error"))
        .def("departures", &StampedSender::departures, nb::arg("timeout_s"))
        .def("fileno", &StampedSender::fileno)
        .def("close", &StampedSender::close);
}

}  // namespace twinstamp
