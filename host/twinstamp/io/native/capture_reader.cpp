// SPDX-License-Identifier: Apache-2.0
#include "capture_reader.h"

#include <fcntl.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <poll.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>

namespace nb = nanobind;

namespace twinstamp {

namespace {

constexpr i64 kPollNs = 100'000'000;         // how often a waiting reader looks at signals and cancel()
constexpr i64 kBatchPatienceNs = 2'000'000;  // how long a pipe's batch waits for more after its first frame
constexpr u64 kMaxSectionBytes = 64u << 20;  // interface descriptions of one section
constexpr u64 kMaxPorts = 65536;             // FrameBatch.port is u16

i64 now_ns() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<i64>(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
}

void check_signals() {
    nb::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
}

std::string hex(const u8* p, u64 n) {
    std::string text;
    for (u64 i = 0; i < n; ++i) text += twinstamp::format(i ? " %02x" : "%02x", p[i]);
    return text;
}

template <class T>
nb::object column(T* data, u64 n, nb::handle owner) {
    return nb::cast(nb::ndarray<nb::memview, T, nb::ndim<1>>(data, {static_cast<std::size_t>(n)}, owner));
}

}  // namespace

ByteSource::ByteSource(int fd, nb::object readinto) : fd_(fd), readinto_(std::move(readinto)) {
    struct stat st;
    if (fd_ >= 0 && fstat(fd_, &st) == 0) {
        regular_ = S_ISREG(st.st_mode);
        if (regular_) size_ = st.st_size;
#ifdef F_SETPIPE_SZ
        // Fewer wake-ups at high rates; refused beyond the user's limit, and that is fine.
        if (S_ISFIFO(st.st_mode)) (void)fcntl(fd_, F_SETPIPE_SZ, 1 << 20);
#endif
    }
}

bool ByteSource::ready(i64 wait_ns) const {
    if (fd_ < 0) return false;
    pollfd p{fd_, POLLIN, 0};
    timespec t{wait_ns / 1'000'000'000, wait_ns % 1'000'000'000};
    return ppoll(&p, 1, &t, nullptr) > 0;
}

i64 ByteSource::read(u8* to, u64 size, const std::atomic<bool>& stop) {
    if (fd_ < 0) {
        nb::gil_scoped_acquire gil;
        nb::object view = nb::steal(
            PyMemoryView_FromMemory(reinterpret_cast<char*>(to), static_cast<Py_ssize_t>(size), PyBUF_WRITE));
        if (!view.is_valid()) throw nb::python_error();
        nb::object got = readinto_(view);
        view.attr("release")();
        if (got.is_none())
            throw CaptureError("InputError", "the source is not blocking: it returned None", EAGAIN);
        const i64 n = nb::cast<i64>(got);
        if (n < 0 || static_cast<u64>(n) > size)
            throw CaptureError("InputError", "readinto() returned nonsense");
        return n;
    }
    while (true) {
        if (stop) return -1;
        if (!regular_ && !ready(kPollNs)) {
            check_signals();
            continue;
        }
        const ssize_t n = ::read(fd_, to, size);
        if (n >= 0) return n;
        if (errno == EINTR) {
            check_signals();
        } else if (errno == EAGAIN) {
            (void)ready(kPollNs);
        } else {
            throw CaptureError("InputError", std::string("cannot read: ") + std::strerror(errno), errno);
        }
    }
}

CaptureReader::CaptureReader(int fd, nb::object readinto, std::string name, nb::bytes head, u64 batch_frames,
                             u64 batch_bytes)
    : source_(fd, std::move(readinto)),
      name_(std::move(name)),
      head_(reinterpret_cast<const u8*>(head.data()), reinterpret_cast<const u8*>(head.data()) + head.size()),
      batch_frames_(batch_frames),
      batch_bytes_(std::max<u64>(batch_bytes, 64)) {
    nb::gil_scoped_release unlocked;
    detect();
}

const char* CaptureReader::format_name() const {
    switch (format_) {
        case CaptureFormat::pcap:
            return "pcap";
        case CaptureFormat::pcap_ns:
            return "pcap-ns";
        case CaptureFormat::pcap_modified:
            return "pcap-modified";
        default:
            return "pcapng";
    }
}

// Room for a record of need bytes at begin_, and for reading on behind end_.
void CaptureReader::make_room(u64 need) {
    // Everything walked and released: start again at the front, which is warm in the cache.
    if (block_ && begin_ == end_ && block_use_.use_count() == 1 && need <= block_->size) {
        std::atomic_thread_fence(std::memory_order_acquire);
        block_base_ += begin_;
        begin_ = end_ = 0;
        return;
    }
    if (!block_ || (end_ == block_->size && begin_ > 0) || begin_ + need > block_->size) {
        const u64 kept = end_ - begin_;
        const u64 size = std::max(batch_bytes_, need);
        // Nobody else looks at this block: move the rest of it to its front, which is warm in the cache.
        const bool alone = block_ && block_use_.use_count() == 1;
        std::atomic_thread_fence(std::memory_order_acquire);
        if (alone && block_->size >= size) {
            std::memmove(block_->data, block_->data + begin_, kept);
        } else {
            auto fresh = blocks_->get([&](const Block& b) { return b.size >= size; },
                                      [&] { return std::make_shared<Block>(size); });
            if (kept) std::memcpy(fresh->data, block_->data + begin_, kept);
            block_ = fresh;
            block_use_ = blocks_->use(fresh);
        }
        block_base_ += begin_;
        begin_ = 0;
        end_ = kept;
    }
}

bool CaptureReader::fill() {
    if (eof_ || stop_) return false;
    if (!head_.empty()) {
        const u64 n = std::min<u64>(head_.size(), block_->size - end_);
        std::memcpy(block_->data + end_, head_.data(), n);
        head_.erase(head_.begin(), head_.begin() + static_cast<std::ptrdiff_t>(n));
        end_ += n;
        return true;
    }
    try {
        const i64 n = source_.read(block_->data + end_, block_->size - end_, stop_);
        if (n < 0) return false;
        if (n == 0) eof_ = true;
        end_ += static_cast<u64>(n);
        return n > 0;
    } catch (const CaptureError& e) {
        throw CaptureError(e.kind,
                           format("%s: byte %llu: %s", name_.c_str(),
                                  static_cast<unsigned long long>(block_base_ + end_), e.what()),
                           e.code);
    }
}

std::string CaptureReader::where() const {
    return format("%s: byte %llu: ", name_.c_str(), static_cast<unsigned long long>(block_base_ + begin_));
}

CaptureReader::Walk CaptureReader::bad(std::string what) {
    error_ = where() + what;
    return Walk::bad;
}

void CaptureReader::detect() {
    make_room(batch_bytes_);
    while (end_ < 4 && fill()) {
    }
    if (end_ == 0)
        throw CaptureError("InputError", name_ + ": is empty; a pcap or pcapng capture is expected");
    if (end_ < 4) {
        throw CaptureError("InputError",
                           format("%s: ends after %llu bytes, inside the magic number of a capture; "
                                  "give a whole pcap or pcapng file",
                                  name_.c_str(), static_cast<unsigned long long>(end_)));
    }
    const u8* p = block_->data;
    const u32 magic = load32(p, false);
    if (magic == kSectionHeader) {
        format_ = CaptureFormat::pcapng;
        return;
    }
    swap_ = false;
    for (u32 m : {magic, swap32(magic)}) {
        if (m == kPcapMagic || m == kPcapMagicNs || m == kPcapMagicModified) {
            format_ = m == kPcapMagic     ? CaptureFormat::pcap
                      : m == kPcapMagicNs ? CaptureFormat::pcap_ns
                                          : CaptureFormat::pcap_modified;
            scale_ns_ = m == kPcapMagicNs ? 1 : 1000;
            start_pcap();
            return;
        }
        swap_ = true;
    }
    std::string what = "byte 0: this is no capture: it begins with " + hex(p, 4);
    std::string next = "give a pcap or pcapng capture (editcap converts others)";
    auto packed = [&](const char* kind, const char* command) {
        what = std::string("byte 0: compressed by ") + kind + " (it begins with " + hex(p, 4) + ")";
        next = std::string("decompress it first: ") + command + " < FILE | twinstamp … -";
    };
    if (p[0] == 0x1F && p[1] == 0x8B) packed("gzip", "gzip -dc");
    if (p[0] == 0x28 && p[1] == 0xB5 && p[2] == 0x2F && p[3] == 0xFD) packed("zstd", "zstd -dc");
    if (p[0] == 0xFD && p[1] == '7' && p[2] == 'z' && p[3] == 'X') packed("xz", "xz -dc");
    if (p[0] == 'B' && p[1] == 'Z' && p[2] == 'h') packed("bzip2", "bzip2 -dc");
    if (p[0] == 0x04 && p[1] == 0x22 && p[2] == 0x4D && p[3] == 0x18) packed("lz4", "lz4 -dc");
    if (magic == 0) {
        next =
            "a run that was killed while it overwrote this file leaves such a beginning: make the file again";
    }
    throw CaptureError("InputError", name_ + ": " + what + "; " + next);
}

void CaptureReader::start_pcap() {
    while (end_ < kPcapHeader && fill()) {
    }
    if (end_ < kPcapHeader) {
        throw CaptureError("InputError", format("%s: ends after %llu bytes, inside the 24-byte pcap header; "
                                                "give a whole capture",
                                                name_.c_str(), static_cast<unsigned long long>(end_)));
    }
    const u8* p = block_->data;
    const u32 major = load16(p + 4, swap_), minor = load16(p + 6, swap_);
    // Old writers kept captured and wire length the other way round (libpcap, sf-pcap.c).
    if (major == 543 || (major == 2 && minor < 3)) {
        length_order_ = LengthOrder::swapped;
    } else if (major == 2 && minor == 3) {
        length_order_ = LengthOrder::guess;
    } else if (major != 2 || minor > 4) {
        throw CaptureError("InputError",
                           format("%s: byte 4: pcap version %u.%u is not known (2.0 to 2.4 are); "
                                  "convert the file with its own tool",
                                  name_.c_str(), major, minor));
    }
    header_snaplen_ = load32(p + 16, swap_);
    header_network_ = load32(p + 20, swap_);
    Interface port;
    // Bits 28-31 FCS length in 16-bit words, 26 "F": present, rest reserved (draft-ietf-opsawg-pcap 4).
    port.linktype = header_network_ & 0xFFFF;
    port.snaplen = header_snaplen_;
    port.resolution = Resolution::from_option(scale_ns_ == 1 ? 9 : 6, 0);
    max_caplen_ = max_caplen(port.linktype);
    ports_.push_back(port);
    begin_ = kPcapHeader;
}

template <bool Swap>
CaptureReader::Walk CaptureReader::walk_pcap(Columns& columns, u64& n) {
    const u64 header = format_ == CaptureFormat::pcap_modified ? kRecordHeaderModified : kRecordHeader;
    const bool modified = format_ == CaptureFormat::pcap_modified;
    const u8* const base = block_->data;
    const u64 end = end_, limit = batch_frames_;
    const u64 max = max_caplen_, scale = scale_ns_;
    const u32 second = 1'000'000'000u / scale_ns_;
    u64 beyond = 0;
    const LengthOrder order = length_order_;
    u64 at = begin_, i = n;
    Walk result = Walk::full;
    while (i < limit) {
        const u8* h = base + at;
        if (end - at < header) {
            need_ = header;
            result = Walk::more;
            break;
        }
        u32 caplen = load32(h + 8, Swap), length = load32(h + 12, Swap);
        if (order != LengthOrder::normal && (order == LengthOrder::swapped || caplen > length)) {
            std::swap(caplen, length);
        }
        if (caplen > max) [[unlikely]] {
            begin_ = at;
            n = i;
            return bad(
                format("frame %llu: damaged: it claims %u captured bytes, more than the %llu possible; "
                       "the frames before it are good",
                       static_cast<unsigned long long>(frames_ + i + 1), caplen,
                       static_cast<unsigned long long>(max)));
        }
        if (end - at - header < caplen) {
            need_ = header + caplen;
            result = Walk::more;
            break;
        }
        columns.offset[i] = at + header;
        columns.caplen[i] = caplen;
        columns.length[i] = length;
        // A fraction of a second or more is carried over, as wiretap's readers do.
        const u32 fraction = load32(h + 4, Swap);
        beyond += fraction >= second;
        columns.timestamp_ns[i] = static_cast<i64>(static_cast<u64>(load32(h, Swap)) * 1'000'000'000u +
                                                   static_cast<u64>(fraction) * scale);
        columns.port[i] = 0;
        // Kuznetzov's record: u32 interface, u16 protocol, u8 packet type (4 = PACKET_OUTGOING), u8 padding.
        columns.flags[i] = modified && h[22] == 4 ? kFlagOutgoing : u16{0};
        ++i;
        at += header + caplen;
    }
    fractions_beyond_ += beyond;
    begin_ = at;
    n = i;
    return result;
}

// Section header block: type, total length, byte-order magic, major, minor, section length, options.
bool CaptureReader::start_section(const u8* block, u32 total) {
    if (total < 28) {
        bad(format("section header block of %u bytes, at least 28 are needed", total));
        return false;
    }
    const u32 major = load16(block + 12, swap_), minor = load16(block + 14, swap_);
    if (major != 1 || (minor != 0 && minor != 2)) {
        bad(format("pcapng version %u.%u is not known (1.0 and 1.2 are)", major, minor));
        return false;
    }
    section_base_ = static_cast<u32>(ports_.size());
    largest_block_ = max_block(1);
    in_section_ = true;
    return true;
}

// Interface description block: type, total length, u16 link type, u16 reserved, u32 snaplen, options.
bool CaptureReader::start_interface(const u8* block, u32 total) {
    if (total < 20) {
        bad(format("interface description block of %u bytes, at least 20 are needed", total));
        return false;
    }
    if (ports_.size() >= kMaxPorts) {
        bad("more than 65536 interfaces; split the capture by section");
        return false;
    }
    Interface port;
    port.linktype = load16(block + 8, swap_);
    port.snaplen = load32(block + 12, swap_);
    port.local = static_cast<u32>(ports_.size()) - section_base_;
    u8 tsresol = 6;
    i64 offset_s = 0;
    u64 at = 16;
    const u64 end = total - 4;
    while (at < end) {
        if (end - at < 4) {
            bad(format("an option of this interface description overruns the block (option at byte +%llu)",
                       static_cast<unsigned long long>(at)));
            return false;
        }
        const u16 code = load16(block + at, swap_), size = load16(block + at + 2, swap_);
        const u8* value = block + at + 4;
        if (code == kOptEnd) break;
        if (padded(size) > end - at - 4) {
            bad(format("option %u of this interface description claims %u bytes and overruns the block", code,
                       size));
            return false;
        }
        if (code == kOptIfName) port.name.assign(reinterpret_cast<const char*>(value), size);
        if ((code == kOptIfTsresol && size != 1) || (code == kOptIfTsoffset && size != 8)) {
            bad(format("option %s has %u bytes, %u are right",
                       code == kOptIfTsresol ? "if_tsresol" : "if_tsoffset", size,
                       code == kOptIfTsresol ? 1 : 8));
            return false;
        }
        if (code == kOptIfTsresol) tsresol = *value;
        if (code == kOptIfTsoffset) offset_s = static_cast<i64>(load64(value, swap_));
        at += 4 + padded(size);
    }
    port.resolution = Resolution::from_option(tsresol, offset_s);
    largest_block_ = std::max(largest_block_, max_block(port.linktype));
    ports_.push_back(std::move(port));
    return true;
}

// Checks the options of a packet block and reads epb_flags.
bool CaptureReader::packet_options(const u8* options, u64 size, u16& flags) {
    u64 at = 0;
    while (at < size) {
        if (size - at < 4) {
            bad("the options of this packet block overrun it");
            return false;
        }
        const u16 code = load16(options + at, swap_), length = load16(options + at + 2, swap_);
        if (code == kOptEnd) return true;
        if (padded(length) > size - at - 4) {
            bad(format("option %u of this packet block claims %u bytes and overruns the block", code,
                       length));
            return false;
        }
        if (code == kOptFlags && length == 4) {
            const u32 word = load32(options + at + 4, swap_);
            if ((word & 3) == kEpbOutbound) flags |= kFlagOutgoing;
            if (word & kEpbCrcError) flags |= kFlagBadFcs;
        }
        at += 4 + padded(length);
    }
    return true;
}

void CaptureReader::log_block(BlockKind kind, u32 type, const u8* block, u32 total, u64 position) {
    if (kind == BlockKind::other && !log_->wanted()) return;
    auto entry = std::make_shared<LoggedBlock>();
    entry->kind = kind;
    entry->big_endian = swap_ != kBigEndianHost;
    entry->type = type;
    entry->position = position;
    entry->raw.assign(block, block + total);
    if (kind == BlockKind::interface) {
        entry->port = static_cast<u32>(ports_.size()) - 1;
        entry->interface = ports_.back();
    }
    pending_log_bytes_ += total;
    log_->add(std::move(entry));
}

CaptureReader::Walk CaptureReader::walk_pcapng(Columns& columns, u64& n) {
    const u8* const base = block_->data;
    const u64 limit = batch_frames_;
    while (n < limit) {
        const u64 at = begin_, available = end_ - at;
        if (available < 12) {
            need_ = 12;
            return Walk::more;
        }
        const u8* const block = base + at;
        u32 type = load32(block, swap_);
        if (load32(block, false) == kSectionHeader) {  // a palindrome: tells no byte order
            if (n > 0) return Walk::cut;
            const u32 order = load32(block + 8, false);
            if (order != kByteOrderMagic && swap32(order) != kByteOrderMagic) {
                return bad("section header block without a byte-order magic: it has " + hex(block + 8, 4) +
                           "; the file is damaged here");
            }
            swap_ = order != kByteOrderMagic;
            type = kSectionHeader;
        } else if (!in_section_) {
            return bad("no section header block");
        }
        const u32 total = load32(block + 4, swap_);
        if (total < 12 || total % 4 != 0) {
            return bad(
                format("block type 0x%08x claims %u bytes; a length is a multiple of 4, at least 12; "
                       "the file is damaged here",
                       type, total));
        }
        if (total > largest_block_) {
            return bad(format(
                "block type 0x%08x claims %u bytes, more than the %llu accepted; the file is damaged here",
                type, total, static_cast<unsigned long long>(largest_block_)));
        }
        if (available < total) {
            need_ = total;
            return Walk::more;
        }
        const u32 trailer = load32(block + total - 4, swap_);
        if (trailer != total) {
            return bad(
                format("block type 0x%08x says %u bytes at its start and %u at its end; "
                       "the file is damaged here",
                       type, total, trailer));
        }
        const u64 position = frames_ + n;
        if (type == kEnhancedPacket || type == kObsoletePacket) {
            if (total < 32) return bad(format("packet block of %u bytes, at least 32 are needed", total));
            const u32 local = type == kEnhancedPacket ? load32(block + 8, swap_) : load16(block + 8, swap_);
            if (local >= ports_.size() - section_base_) {
                return bad(format("frame %llu names interface %u, %u are described so far in this section",
                                  static_cast<unsigned long long>(position + 1), local,
                                  static_cast<u32>(ports_.size()) - section_base_));
            }
            const u32 number = section_base_ + local;
            const Interface& port = ports_[number];
            const u64 ticks = static_cast<u64>(load32(block + 12, swap_)) << 32 | load32(block + 16, swap_);
            const u32 caplen = load32(block + 20, swap_);
            if (caplen > max_caplen(port.linktype) || padded(caplen) > total - 32) {
                return bad(
                    format("frame %llu claims %u captured bytes in a block of %u; the file is damaged here",
                           static_cast<unsigned long long>(position + 1), caplen, total));
            }
            if (!port.resolution.to_ns(ticks, columns.timestamp_ns[n])) {
                return bad(format(
                    "frame %llu: its time, %llu ticks of %s%u s and an offset of %lld s, lies outside "
                    "the years 1678 to 2262; mend if_tsresol or if_tsoffset of interface %u",
                    static_cast<unsigned long long>(position + 1), static_cast<unsigned long long>(ticks),
                    port.resolution.binary ? "2^-" : "10^-", port.resolution.exponent,
                    static_cast<long long>(port.resolution.offset_s), local));
            }
            const u64 options = at + kPacketBlockHeader + padded(caplen);
            const u64 options_size = at + total - 4 - options;
            u16 flags = 0;
            if (options_size && !packet_options(base + options, options_size, flags)) return Walk::bad;
            columns.offset[n] = at + kPacketBlockHeader;
            columns.caplen[n] = caplen;
            columns.length[n] = load32(block + 24, swap_);
            columns.port[n] = static_cast<u16>(number);
            columns.flags[n] = flags;
            columns.option_offset[n] = options;
            columns.option_length[n] = static_cast<u32>(options_size);
            ++n;
        } else if (type == kSimplePacket) {
            if (total < 16)
                return bad(format("simple packet block of %u bytes, at least 16 are needed", total));
            if (ports_.size() == section_base_) {
                return bad("simple packet block before the section's first interface description");
            }
            const Interface& port = ports_[section_base_];
            const u32 length = load32(block + 8, swap_);
            const u32 caplen = port.snaplen && port.snaplen < length ? port.snaplen : length;
            if (caplen > max_caplen(port.linktype) || padded(caplen) > total - 16) {
                return bad(format(
                    "frame %llu has %u captured bytes by its length of %u and the interface's limit of %u, "
                    "but its block is only %u bytes; the file is damaged here",
                    static_cast<unsigned long long>(position + 1), caplen, length, port.snaplen, total));
            }
            columns.offset[n] = at + kSimpleBlockHeader;
            columns.caplen[n] = caplen;
            columns.length[n] = length;
            columns.timestamp_ns[n] = 0;
            columns.port[n] = static_cast<u16>(section_base_);
            columns.flags[n] = kFlagNoTimestamp;
            columns.option_offset[n] = at + kSimpleBlockHeader + padded(caplen);
            columns.option_length[n] = 0;
            ++n;
        } else if (type == kSectionHeader) {
            if (!start_section(block, total)) return Walk::bad;
            log_block(BlockKind::section, type, block, total, position);
        } else if (type == kInterfaceDescription) {
            if (log_->section_bytes() + total > kMaxSectionBytes) {
                return bad("the interface descriptions of this section exceed 64 MiB");
            }
            if (!start_interface(block, total)) return Walk::bad;
            log_block(BlockKind::interface, type, block, total, position);
        } else {
            log_block(BlockKind::other, type, block, total, position);
        }
        begin_ += total;
        // Blocks kept for writers wait in memory until the next batch is written: deliver what there is.
        if (pending_log_bytes_ > kMaxBlock) return Walk::cut;
    }
    return Walk::full;
}

CaptureReader::Walk CaptureReader::walk(Columns& columns, u64& n) {
    if (format_ == CaptureFormat::pcapng) return walk_pcapng(columns, n);
    return swap_ ? walk_pcap<true>(columns, n) : walk_pcap<false>(columns, n);
}

std::string CaptureReader::cut_message() const {
    const u64 there = end_ - begin_;
    return format(
        "%s: cut short at byte %llu: the record after frame %llu wants %llu bytes%s, %llu are there; "
        "everything before it was read",
        name_.c_str(), static_cast<unsigned long long>(block_base_ + end_),
        static_cast<unsigned long long>(frames_), static_cast<unsigned long long>(need_),
        need_ <= kRecordHeaderModified ? " or more" : "", static_cast<unsigned long long>(there));
}

nb::object CaptureReader::read() {
    std::shared_ptr<Columns> columns;
    std::shared_ptr<void> columns_use;
    u64 n = 0;
    bool deliver_empty = false;
    {
        nb::gil_scoped_release unlocked;
        if (error_) throw CaptureError("InputError", *error_);
        if (truncated_) return nb::none();
        columns = columns_->get(
            [](const Columns&) { return true; },
            [&] { return std::make_shared<Columns>(batch_frames_, format_ == CaptureFormat::pcapng); });
        columns_use = columns_->use(columns);
        need_ = 0;
        pending_log_bytes_ = 0;
        i64 deadline = 0;
        while (true) {
            const Walk result = walk(*columns, n);
            if (result == Walk::full) break;
            if (result == Walk::cut) {
                deliver_empty = n == 0;
                break;
            }
            if (result == Walk::bad) {
                if (n == 0) throw CaptureError("InputError", *error_);
                break;
            }
            if (n > 0) {
                // A whole batch where the bytes are at hand; from a pipe, what has come by now.
                if (end_ == block_->size || begin_ + need_ > block_->size || eof_) break;
                if (!source_.is_file() && head_.empty()) {
                    const i64 now = now_ns();
                    if (deadline == 0) deadline = now + kBatchPatienceNs;
                    if (now >= deadline || !source_.ready(deadline - now)) break;
                }
            } else {
                make_room(need_);
            }
            if (!fill()) {
                if (stop_ || n > 0) break;
                if (begin_ < end_) truncated_ = cut_message();
                break;
            }
        }
        frames_ += n;
        for (u64 i = 0; i < n; ++i) captured_ += columns->caplen[i];
    }
    if (n == 0 && !deliver_empty) return nb::none();
    auto* lease = new Lease(block_, block_use_, columns, std::move(columns_use));
    nb::object owner = nb::cast(lease, nb::rv_policy::take_ownership);
    Columns& c = *columns;
    nb::object options = nb::none();
    if (c.option_offset) {
        options =
            nb::make_tuple(column(c.option_offset.get(), n, owner), column(c.option_length.get(), n, owner));
    }
    return nb::make_tuple(nb::make_tuple(column(block_->data, end_, owner), column(c.offset.get(), n, owner),
                                         column(c.caplen.get(), n, owner), column(c.length.get(), n, owner),
                                         column(c.timestamp_ns.get(), n, owner),
                                         column(c.port.get(), n, owner), column(c.flags.get(), n, owner)),
                          owner, frames_ - n, options, swap_ != kBigEndianHost);
}

nb::list CaptureReader::interfaces(u32 first) const {
    nb::list out;
    for (u32 i = first; i < ports_.size(); ++i) {
        const Interface& p = ports_[i];
        out.append(nb::make_tuple(nb::bytes(p.name.data(), p.name.size()), p.linktype, p.snaplen,
                                  p.resolution.binary, static_cast<u32>(p.resolution.exponent)));
    }
    return out;
}

void bind_capture_reader(nb::module_& m) {
    nb::register_exception_translator([](const std::exception_ptr& p, void*) {
        try {
            std::rethrow_exception(p);
        } catch (const CaptureError& e) {
            nb::object kind = nb::module_::import_("twinstamp.errors").attr(e.kind);
            nb::object error = kind(e.what());
            error.attr("errno") = e.code;
            PyErr_SetObject(kind.ptr(), error.ptr());
        }
    });
    nb::class_<Lease>(m, "Lease").def("release", &Lease::release);
    nb::class_<CaptureReader>(m, "CaptureReader")
        .def(nb::init<int, nb::object, std::string, nb::bytes, u64, u64>(), nb::arg("fd"),
             nb::arg("readinto").none(), nb::arg("name"), nb::arg("head"), nb::arg("batch_frames"),
             nb::arg("batch_bytes"))
        .def("read", &CaptureReader::read)
        .def("cancel", &CaptureReader::cancel)
        .def("interfaces", &CaptureReader::interfaces)
        .def_prop_ro("format", &CaptureReader::format_name)
        .def_prop_ro("frames", &CaptureReader::frames)
        .def_prop_ro("captured", &CaptureReader::captured)
        .def_prop_ro("bytes_read", &CaptureReader::bytes_read)
        .def_prop_ro("truncated", &CaptureReader::truncated)
        .def_prop_ro("fractions_beyond", &CaptureReader::fractions_beyond)
        .def_prop_ro("size", &CaptureReader::size)
        .def_prop_ro("port_count", &CaptureReader::port_count)
        .def_prop_ro("header_snaplen", &CaptureReader::header_snaplen)
        .def_prop_ro("header_network", &CaptureReader::header_network);
}

}  // namespace twinstamp
