// SPDX-License-Identifier: Apache-2.0
// Encodes frame batches as pcap or pcapng records and writes them out.
#include <errno.h>
#include <fcntl.h>
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <exception>
#include <optional>
#include <string>
#include <vector>

#include "block_log.h"
#include "capture_format.h"
#include "capture_reader.h"

namespace nb = nanobind;

namespace twinstamp {

namespace {

template <class T>
using Array = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

constexpr u64 kBuffer = 1u << 20;
constexpr u64 kDirectSpan = 64u << 10;  // a run at least this long is written from where it lies
constexpr u32 kPcapMaxSeconds = 0xFFFFFFFFu;

struct Frames {
    const u8* data;
    u64 size;
    const u64* offset;
    const u32* caplen;
    const u32* length;
    const i64* timestamp_ns;
    const u16* port;
    const u16* flags;
    const u8* keep;  // or nullptr: all
    u64 n;
    u64 first;
    const u64* option_offset = nullptr;
    const u32* option_length = nullptr;
    bool options_big_endian = false;
    u32 table = 0;
    const u8* which_comment = nullptr;

    bool kept(u64 i) const { return !keep || keep[i]; }
    bool inside(u64 i) const { return offset[i] <= size && caplen[i] <= size - offset[i]; }
};

void outside(u64 i) {
    throw std::out_of_range(
        format("frame %llu of the batch lies outside its data", static_cast<unsigned long long>(i)));
}

}  // namespace

class CaptureWriter {
  public:
    // overwrite: fd is an old file to be written over: its magic number is wiped now and set by finish().
    // flush_always: somebody waits at the other end of a pipe. stall_ms: of a descriptor that does not block,
    // the longest that nothing is taken before that is an error; -1: for ever.
    CaptureWriter(int fd, std::string name, bool overwrite, bool flush_always, int stall_ms)
        : fd_(fd),
          name_(std::move(name)),
          overwrite_(overwrite),
          flush_always_(flush_always),
          stall_ms_(stall_ms) {
        struct stat st;
        regular_ = fstat(fd_, &st) == 0 && S_ISREG(st.st_mode);
        buffer_.resize(kBuffer);
        if (overwrite_) {
            const u8 zeros[4] = {};
            if (pwrite(fd_, zeros, 4, 0) != 4) fail_now("byte 0", errno);
        }
    }

    void start_pcap(bool ns, bool exact, u32 snaplen, u32 network) {
        pcap_ = true;
        ns_ = ns;
        exact_ = exact;
        u8* h = room(kPcapHeader);
        store32(h, ns ? kPcapMagicNs : kPcapMagic, false);
        store16(h + 4, 2, false);
        store16(h + 6, 4, false);
        std::memset(h + 8, 0, 8);
        store32(h + 16, snaplen, false);
        store32(h + 20, network, false);
        used_ += kPcapHeader;
        started_ = true;
        if (flush_always_) flush();
    }

    void start_pcapng(CaptureReader* like) {
        pcap_ = false;
        if (like) queue_ = like->log()->subscribe();
        started_ = true;
    }

    u64 write(Array<u8> data, Array<u64> offset, Array<u32> caplen, Array<u32> length,
              Array<i64> timestamp_ns, Array<u16> port, Array<u16> flags, std::optional<Array<u8>> keep,
              u64 first, std::optional<Array<u8>> port_ok, std::optional<Array<u64>> option_offset,
              std::optional<Array<u32>> option_length, bool options_big_endian, u32 table,
              std::optional<Array<u8>> which_comment, std::vector<std::string> comments) {
        if (failed_) throw CaptureError("DeviceError", *failed_);
        if (!started_) throw std::runtime_error("write before start");
        const u64 n = caplen.shape(0);
        if (offset.shape(0) != n || length.shape(0) != n || timestamp_ns.shape(0) != n ||
            port.shape(0) != n || flags.shape(0) != n || (keep && keep->shape(0) != n) ||
            (option_offset && option_offset->shape(0) != n) ||
            (option_length && option_length->shape(0) != n) ||
            (which_comment && which_comment->shape(0) != n)) {
            throw std::out_of_range("the columns of a batch, keep and comments must be equally long");
        }
        Frames f{data.data(),
                 data.shape(0),
                 offset.data(),
                 caplen.data(),
                 length.data(),
                 timestamp_ns.data(),
                 port.data(),
                 flags.data(),
                 keep ? keep->data() : nullptr,
                 n,
                 first};
        f.table = table;
        if (option_offset && option_length) {
            f.option_offset = option_offset->data();
            f.option_length = option_length->data();
            f.options_big_endian = options_big_endian;
        }
        if (which_comment) f.which_comment = which_comment->data();
        const u64 before = taken_.frames;
        nb::gil_scoped_release unlocked;
        if (pcap_) {
            write_pcap(f, port_ok ? port_ok->data() : nullptr, port_ok ? port_ok->shape(0) : 0);
        } else {
            write_pcapng(f, comments);
        }
        if (flush_always_) flush();
        return taken_.frames - before;
    }

    // Describes port number `port` of a table of ports; pcapng only.
    void add_port(u32 table, u32 port, std::string name, u32 linktype, u32 snaplen) {
        Known& known = this->known(table, port);
        known.described = true;
        known.interface.name = std::move(name);
        known.interface.linktype = linktype;
        known.interface.snaplen = snaplen;
        known.interface.resolution = Resolution::from_option(9, 0);
    }

    // Describes a port in the file if no frame has done so yet; pcapng only.
    void describe(u32 table, u32 port) {
        if (failed_) throw CaptureError("DeviceError", *failed_);
        Known& known = this->known(table, port);
        if (pcap_ || !known.described) throw std::invalid_argument("no such port in this pcapng capture");
        if (here(known)) return;
        if (!in_section_) start_section();
        start_interface(known);
    }

    // An interface statistics block: what a port has received and dropped up to timestamp_ns.
    void statistics(u32 table, u32 port, i64 timestamp_ns, u64 received, u64 dropped, std::string comment) {
        describe(table, port);
        const Known& known = this->known(table, port);
        u64 ticks = 0;
        if (!known.interface.resolution.from_ns(timestamp_ns, ticks) || comment.size() > 65535) {
            throw std::out_of_range("a time or comment that no statistics block can hold");
        }
        u8* b = room(20 + 12 + 12 + 4 + padded(comment.size()) + 4 + 4);
        store32(b, kInterfaceStatistics, swap_);
        store32(b + 8, static_cast<u32>(known.local), swap_);
        store32(b + 12, static_cast<u32>(ticks >> 32), swap_);
        store32(b + 16, static_cast<u32>(ticks), swap_);
        u64 at = 20;
        if (!comment.empty()) at += put_option(b + at, kOptComment, comment.data(), comment.size());
        u8 count[8];
        store64(count, received, swap_);
        at += put_option(b + at, kOptIsbIfrecv, count, 8);
        store64(count, dropped, swap_);
        at += put_option(b + at, kOptIsbIfdrop, count, 8);
        std::memset(b + at, 0, 4);  // opt_endofopt
        const u32 total = static_cast<u32>(at + 8);
        store32(b + 4, total, swap_);
        store32(b + total - 4, total, swap_);
        used_ += total;
        if (flush_always_) flush();
    }

    void flush() {
        if (used_) {
            const u64 n = used_;
            used_ = 0;
            write_out(buffer_.data(), n);
        }
        flushed_ = taken_;
    }

    // Writes what is left, cuts an old file's rest off and puts its magic number in. Once.
    void finish() {
        if (finished_) return;
        finished_ = true;
        std::exception_ptr error;
        try {
            nb::gil_scoped_release unlocked;
            if (!failed_ && started_) {
                if (!pcap_) {
                    take_logged();
                    while (!pending_.empty()) emit_logged();
                    if (!in_section_) start_section();
                }
                flush();
            }
        } catch (...) {
            error = std::current_exception();
        }
        queue_.reset();
        if (overwrite_) {
            // Whatever happened, what was written is whole records: make it a capture again.
            const char* failure = nullptr;
            if (ftruncate(fd_, static_cast<off_t>(bytes_)) != 0) failure = "cannot be cut to its new length";
            if (!failure && have_magic_ && bytes_ && pwrite(fd_, magic_, 4, 0) != 4) {
                failure = "its magic number cannot be written";
            }
            if (failure && !error) {
                throw CaptureError("DeviceError",
                                   format("%s: %s: %s", name_.c_str(), failure, std::strerror(errno)), errno);
            }
        }
        if (error) std::rethrow_exception(error);
    }

    u64 frames() const { return taken_.frames; }
    u64 captured() const { return taken_.captured; }
    u64 comments() const { return taken_.comments; }
    u64 bytes() const { return bytes_ + used_; }

  private:
    // What was written: frames, their captured bytes, comments that we added to them.
    struct Taken {
        u64 frames = 0, captured = 0, comments = 0;
        void add(u64 count, u64 bytes) {
            frames += count;
            captured += bytes;
        }
    };

    struct Known {
        bool described = false;
        i64 local = -1;   // number in the section `section`
        u64 section = 0;  // section in which it was last described
        Interface interface;
    };

    u8* room(u64 n) {
        if (buffer_.size() - used_ < n) {
            flush();
            if (buffer_.size() < n) buffer_.resize(n);
        }
        return buffer_.data() + used_;
    }

    [[noreturn]] void fail_now(const char* where, int code) {
        const char* next = code == ENOSPC || code == EDQUOT ? "free space or choose another place"
                           : code == EPIPE                  ? "the reader of this pipe has gone"
                           : code == EAGAIN                 ? "the reader of this pipe does not read"
                           : code == EFBIG                  ? "the limit of file sizes is reached (ulimit -f)"
                                                            : "check the device";
        failed_ = format("%s: %s: cannot write: %s; %llu frames are written; %s", name_.c_str(), where,
                         std::strerror(code), static_cast<unsigned long long>(taken_.frames), next);
        throw CaptureError("DeviceError", *failed_, code);
    }

    // Writes whole records, or cuts the file back to the last whole ones and throws.
    void write_out(const u8* p, u64 n) {
        u64 done = 0;
        if (overwrite_ && bytes_ == 0 && n >= 4) {
            // The magic number comes last: a run killed before then leaves no file that looks like a capture.
            std::memcpy(magic_, p, 4);
            have_magic_ = true;
            std::memset(const_cast<u8*>(p), 0, 4);  // p is buffer_ here: the header comes first
        }
        int waited_ms = 0;  // since the last byte that was taken
        while (done < n) {
            const ssize_t got = ::write(fd_, p + done, n - done);
            if (got > 0) {
                done += static_cast<u64>(got);
                waited_ms = 0;
                continue;
            }
            const int code = got == 0 ? EIO : errno;
            if (code == EINTR || (code == EAGAIN && wait_for_reader(waited_ms))) {
                nb::gil_scoped_acquire gil;
                if (PyErr_CheckSignals() == 0) continue;
                cut(done);
                throw nb::python_error();
            }
            cut(done);
            fail_now(format("byte %llu", static_cast<unsigned long long>(bytes_ + done)).c_str(), code);
        }
        bytes_ += n;
    }

    // A pipe that does not block, and is full: until it takes something, a signal comes or a little time has
    // gone by. False: for so long that its reader has stalled.
    bool wait_for_reader(int& waited_ms) {
        if (stall_ms_ >= 0 && waited_ms >= stall_ms_) return false;
        constexpr int kStep = 20;
        pollfd room{fd_, POLLOUT, 0};
        if (::poll(&room, 1, kStep) == 0) waited_ms += kStep;
        return true;
    }

    void cut(u64 partial) {
        taken_ = flushed_;
        used_ = 0;
        if (!failed_) failed_ = name_ + ": writing was interrupted";
        if (regular_ && partial) {
            const off_t at = lseek(fd_, 0, SEEK_CUR);
            if (at >= static_cast<off_t>(partial) && ftruncate(fd_, at - static_cast<off_t>(partial)) == 0) {
                (void)lseek(fd_, at - static_cast<off_t>(partial), SEEK_SET);
            }
        }
    }

    // A run of whole records as they lie in the source.
    void copy_span(const u8* p, u64 n, u64 count) {
        if (n >= kDirectSpan) {
            flush();
            write_out(p, n);
            taken_.add(count, n - count * kRecordHeader);
            flushed_ = taken_;
            return;
        }
        std::memcpy(room(n), p, n);
        used_ += n;
        taken_.add(count, n - count * kRecordHeader);
    }

    // Is what lies before frame i in the source a record header of this file's kind that says what the
    // columns say? Then the record may be copied as it is (a fraction of more than a second included, which
    // editcap copies too).
    bool same_record(const Frames& f, u64 i) const {
        const u64 offset = f.offset[i];
        if (offset < kRecordHeader) return false;
        const u8* h = f.data + offset - kRecordHeader;
        const u64 seconds = load32(h, false), fraction = load32(h + 4, false);
        const u64 scale = ns_ ? 1 : 1000;
        return load32(h + 8, false) == f.caplen[i] && load32(h + 12, false) == f.length[i] &&
               static_cast<i64>(seconds * 1'000'000'000u + fraction * scale) == f.timestamp_ns[i];
    }

    void write_pcap(const Frames& f, const u8* port_ok, u64 ports) {
        u64 i = 0;
        while (i < f.n) {
            if (!f.kept(i)) {
                ++i;
                continue;
            }
            if (!f.inside(i)) outside(i);
            if (port_ok && (f.port[i] >= ports || !port_ok[f.port[i]])) {
                throw CaptureError(
                    "InputError",
                    format("%s: frame %llu comes from an interface of another link type, and a pcap file "
                           "has only one; write pcapng instead (name it .pcapng or use --format pcapng)",
                           name_.c_str(), static_cast<unsigned long long>(f.first + i + 1)));
            }
            if (same_record(f, i)) {
                // The longest run of kept records that lie one behind the other.
                const u64 begin = f.offset[i] - kRecordHeader;
                u64 end = f.offset[i] + f.caplen[i];
                const u64 start = i++;
                while (i < f.n && f.kept(i) && f.offset[i] == end + kRecordHeader && f.inside(i) &&
                       same_record(f, i) && (!port_ok || (f.port[i] < ports && port_ok[f.port[i]]))) {
                    end = f.offset[i] + f.caplen[i];
                    ++i;
                }
                copy_span(f.data + begin, end - begin, i - start);
                continue;
            }
            const i64 ns = f.timestamp_ns[i];
            if (ns < 0 || ns / 1'000'000'000 > kPcapMaxSeconds) {
                throw CaptureError(
                    "InputError",
                    format("%s: frame %llu: its time of %lld ns does not fit a pcap record (1970 to 2106); "
                           "write pcapng instead",
                           name_.c_str(), static_cast<unsigned long long>(f.first + i + 1),
                           static_cast<long long>(ns)));
            }
            u32 fraction = static_cast<u32>(ns % 1'000'000'000);
            if (!ns_) {
                if (exact_ && fraction % 1000) {
                    throw CaptureError(
                        "InputError",
                        format("%s: frame %llu has a time finer than a microsecond (%lld ns), which this "
                               "file cannot hold; use --format pcap-ns or pcapng, or --format pcap to cut "
                               "it to microseconds",
                               name_.c_str(), static_cast<unsigned long long>(f.first + i + 1),
                               static_cast<long long>(ns)));
                }
                fraction /= 1000;
            }
            const u64 record = u64{kRecordHeader} + f.caplen[i];
            u8* h = room(record);
            store32(h, static_cast<u32>(ns / 1'000'000'000), false);
            store32(h + 4, fraction, false);
            store32(h + 8, f.caplen[i], false);
            store32(h + 12, f.length[i], false);
            if (f.caplen[i]) std::memcpy(h + kRecordHeader, f.data + f.offset[i], f.caplen[i]);
            used_ += record;
            taken_.add(1, f.caplen[i]);
            ++i;
        }
    }

    Known& known(u32 table, u32 port) {
        if (known_.size() <= table) known_.resize(table + 1);
        auto& ports = known_[table];
        if (ports.size() <= port) ports.resize(port + 1);
        return ports[port];
    }

    void begin_section(bool big_endian) {
        section_big_endian_ = big_endian;
        swap_ = big_endian != kBigEndianHost;
        local_count_ = 0;
        in_section_ = true;
        ++section_;  // no port is described in it yet
    }

    // Our own section header, in this machine's byte order.
    void start_section() {
        begin_section(kBigEndianHost);
        static const char kApplication[] = "Twinstamp";
        const u32 size = sizeof kApplication - 1;
        const u32 total = 28 + 4 + static_cast<u32>(padded(size)) + 4;
        u8* b = room(total);
        std::memset(b, 0, total);
        store32(b, kSectionHeader, false);
        store32(b + 4, total, false);
        store32(b + 8, kByteOrderMagic, false);
        store16(b + 12, 1, false);
        store64(b + 16, ~u64{0}, false);
        store16(b + 24, 4, false);  // shb_userappl
        store16(b + 26, static_cast<u16>(size), false);
        std::memcpy(b + 28, kApplication, size);
        store32(b + total - 4, total, false);
        used_ += total;
    }

    // Describes an interface anew, with the resolution its packets are written in.
    void start_interface(Known& port) {
        const Interface& it = port.interface;
        const u64 name = std::min<u64>(it.name.size(), 65535);
        u8* b = room(16 + 4 + padded(name) + 8 + 12 + 4 + 4);
        std::memset(b, 0, 16);
        store32(b, kInterfaceDescription, swap_);
        store16(b + 8, static_cast<u16>(it.linktype), swap_);
        store32(b + 12, it.snaplen, swap_);
        u64 at = 16;
        if (name) at += put_option(b + at, kOptIfName, it.name.data(), name);
        const u8 tsresol = static_cast<u8>(it.resolution.exponent | (it.resolution.binary ? 0x80 : 0));
        at += put_option(b + at, kOptIfTsresol, &tsresol, 1);
        if (it.resolution.offset_s) {
            u8 offset[8];
            store64(offset, static_cast<u64>(it.resolution.offset_s), swap_);
            at += put_option(b + at, kOptIfTsoffset, offset, 8);
        }
        std::memset(b + at, 0, 4);  // opt_endofopt
        const u32 total = static_cast<u32>(at + 8);
        store32(b + 4, total, swap_);
        store32(b + total - 4, total, swap_);
        used_ += total;
        number(port);
    }

    // Whether a port is described in the section being written.
    bool here(const Known& port) const { return port.section == section_ && port.local >= 0; }

    void number(Known& port) {
        port.section = section_;
        port.local = local_count_++;
    }

    void take_logged() {
        if (!queue_) return;
        std::lock_guard lock(queue_->mutex);
        for (auto& block : queue_->blocks) pending_.push_back(std::move(block));
        queue_->blocks.clear();
    }

    void emit_logged() {
        const LoggedBlockPtr block = std::move(pending_.front());
        pending_.pop_front();
        const u64 size = block->raw.size();
        if (block->kind == BlockKind::section) {
            begin_section(block->big_endian);
        } else if (!in_section_ || block->big_endian != section_big_endian_) {
            return;  // only after a writer was made in the middle of a capture; its section was never seen
        }
        u8* b = room(size);
        std::memcpy(b, block->raw.data(), size);
        used_ += size;
        if (block->kind == BlockKind::section) {
            store64(b + 16, ~u64{0}, swap_);  // its length changes: not specified
        } else if (block->kind == BlockKind::interface) {
            Known& port = known(0, block->port);
            port.described = true;
            port.interface = block->interface;
            number(port);
            if (block->interface.local == 0) section_base_ = block->port;
        } else if (block->type == kInterfaceStatistics && size >= 24) {
            const u32 local = load32(b + 8, swap_);
            if (known_.size() > 0 && section_base_ + u64{local} < known_[0].size()) {
                const Known& port = known_[0][section_base_ + local];
                if (here(port)) store32(b + 8, static_cast<u32>(port.local), swap_);
            }
        }
    }

    // The block of frame i as it lies in the source, if it is a block of this very content: nothing of it
    // (options, drop counts, digits finer than 1 ns) is lost then.
    const u8* same_block(const Frames& f, u64 i, const Known& port, u64& total) const {
        if (f.options_big_endian != section_big_endian_) return nullptr;
        const u64 offset = f.offset[i], data_end = offset + padded(f.caplen[i]);
        const bool simple = (f.flags[i] & kFlagNoTimestamp) != 0;
        const u64 header = simple ? kSimpleBlockHeader : kPacketBlockHeader;
        const u64 options = f.option_length[i];
        total = header + padded(f.caplen[i]) + options + 4;
        // data_end may lie below offset only by overflow; inside() has ruled that out.
        if (offset < header || f.size < data_end || f.size - data_end < options + 4) return nullptr;
        if (options && f.option_offset[i] != data_end) return nullptr;
        const u8* b = f.data + offset - header;
        if (load32(b + 4, swap_) != total || load32(b + total - 4, swap_) != total) return nullptr;
        const u32 type = load32(b, swap_);
        if (simple) {
            return type == kSimplePacket && port.local == 0 && options == 0 &&
                           load32(b + 8, swap_) == f.length[i]
                       ? b
                       : nullptr;
        }
        const i64 local = type == kEnhancedPacket   ? i64{load32(b + 8, swap_)}
                          : type == kObsoletePacket ? i64{load16(b + 8, swap_)}
                                                    : -1;
        if (local < 0 || local != port.local || load32(b + 20, swap_) != f.caplen[i] ||
            load32(b + 24, swap_) != f.length[i]) {
            return nullptr;
        }
        const u64 ticks = static_cast<u64>(load32(b + 12, swap_)) << 32 | load32(b + 16, swap_);
        i64 ns;
        return port.interface.resolution.to_ns(ticks, ns) && ns == f.timestamp_ns[i] ? b : nullptr;
    }

    // Appends one option, in this section's byte order.
    u64 put_option(u8* at, u16 code, const void* value, u64 size) const {
        store16(at, code, swap_);
        store16(at + 2, static_cast<u16>(size), swap_);
        std::memcpy(at + 4, value, size);
        std::memset(at + 4 + size, 0, padded(size) - size);
        return 4 + padded(size);
    }

    // Copies raw options up to opt_endofopt; turns the numbers of known ones where the byte order differs.
    u64 copy_options(u8* to, const u8* from, u64 size, bool big_endian) const {
        const bool source_swap = big_endian != kBigEndianHost;
        u64 at = 0;
        while (size - at >= 4) {
            const u16 code = load16(from + at, source_swap);
            const u64 length = load16(from + at + 2, source_swap);
            if (code == kOptEnd || padded(length) > size - at - 4) break;
            put_option(to + at, code, from + at + 4, length);
            if (source_swap != swap_) {
                u8* value = to + at + 4;
                const bool custom = code == 2988 || code == 2989 || code == 19372 || code == 19373;
                if ((code == kOptFlags && length == 4) || (code == 6 && length == 4) ||
                    (custom && length >= 4)) {
                    store32(value, load32(value, true), false);  // epb_flags, epb_queue, enterprise number
                } else if ((code == 4 || code == 5) && length == 8) {
                    store64(value, load64(value, true), false);  // epb_dropcount, epb_packetid
                }
            }
            at += 4 + padded(length);
        }
        return at;
    }

    void write_pcapng(const Frames& f, const std::vector<std::string>& comments) {
        take_logged();
        // Frames of somebody else say nothing about where the reader's blocks belong: do not let them pile
        // up.
        while (f.table != 0 && !pending_.empty()) emit_logged();
        for (u64 i = 0; i < f.n; ++i) {
            const u64 number = f.first + i;
            if (f.table == 0) {
                while (!pending_.empty() && pending_.front()->position <= number) emit_logged();
            }
            if (!f.kept(i)) continue;
            if (!f.inside(i)) outside(i);
            Known& port = interface(f, i);
            const std::string* comment = nullptr;
            if (f.which_comment) {
                if (f.which_comment[i] >= comments.size())
                    throw std::out_of_range("comments: a number without a text");
                if (!comments[f.which_comment[i]].empty()) comment = &comments[f.which_comment[i]];
            }
            if (f.option_offset && !comment) {
                u64 total = 0;
                if (const u8* b = same_block(f, i, port, total)) {
                    std::memcpy(room(total), b, total);
                    used_ += total;
                    taken_.add(1, f.caplen[i]);
                    continue;
                }
            }
            encode_block(f, i, port, comment);
        }
        if (f.table == 0) {
            while (!pending_.empty() && pending_.front()->position <= f.first + f.n) emit_logged();
        }
    }

    Known& interface(const Frames& f, u64 i) {
        const u32 number = f.port[i];
        Known* port = &known(f.table, number);
        if (here(*port)) return *port;
        if (f.table == 0) {
            while (!pending_.empty() && !here(*port)) {
                emit_logged();
                port = &known(f.table, number);
            }
            if (here(*port)) return *port;
        }
        if (!port->described) {
            throw std::out_of_range(
                format("frame %llu of the batch names port %u, which its table does not have",
                       static_cast<unsigned long long>(i), number));
        }
        if (!in_section_) start_section();
        start_interface(*port);
        return *port;
    }

    void encode_block(const Frames& f, u64 i, const Known& port, const std::string* comment) {
        const u32 caplen = f.caplen[i];
        const u8* options = nullptr;
        u64 options_size = 0;
        if (f.option_offset && f.option_length[i]) {
            if (f.option_offset[i] > f.size || f.option_length[i] > f.size - f.option_offset[i]) outside(i);
            options = f.data + f.option_offset[i];
            options_size = f.option_length[i];
        }
        u32 word = 0;
        if (!options) {
            if (f.flags[i] & kFlagOutgoing) word |= kEpbOutbound;
            if (f.flags[i] & kFlagBadFcs) word |= kEpbCrcError;
        }
        const u32 snaplen = port.interface.snaplen;
        const bool no_time = (f.flags[i] & kFlagNoTimestamp) != 0;
        if (no_time && port.local == 0 && !options && !comment && !word &&
            caplen == (snaplen && snaplen < f.length[i] ? snaplen : f.length[i])) {
            const u64 total = kSimpleBlockHeader + padded(caplen) + 4;
            u8* b = room(total);
            store32(b, kSimplePacket, swap_);
            store32(b + 8, f.length[i], swap_);
            finish_block(b, kSimpleBlockHeader, f, i, total);
            return;
        }
        u64 ticks = 0;
        if (!port.interface.resolution.from_ns(f.timestamp_ns[i], ticks) && !no_time) {
            throw CaptureError(
                "InputError",
                format("%s: frame %llu: its time of %lld ns cannot be told in the ticks of its interface "
                       "(%s%u s, offset %lld s); write without the source's interfaces (another format)",
                       name_.c_str(), static_cast<unsigned long long>(f.first + i + 1),
                       static_cast<long long>(f.timestamp_ns[i]),
                       port.interface.resolution.binary ? "2^-" : "10^-", port.interface.resolution.exponent,
                       static_cast<long long>(port.interface.resolution.offset_s)));
        }
        const u64 comment_size = comment ? 4 + padded(comment->size()) : 0;
        const u64 most = kPacketBlockHeader + padded(caplen) + options_size + 8 + comment_size + 4 + 4;
        u8* b = room(most);
        u64 at = kPacketBlockHeader + padded(caplen);
        const u64 options_begin = at;
        if (options) at += copy_options(b + at, options, options_size, f.options_big_endian);
        if (word) {
            u8 value[4];
            store32(value, word, swap_);
            at += put_option(b + at, kOptFlags, value, 4);
        }
        if (comment) {
            at += put_option(b + at, kOptComment, comment->data(), comment->size());
            ++taken_.comments;
        }
        if (at != options_begin) {
            std::memset(b + at, 0, 4);  // opt_endofopt
            at += 4;
        }
        store32(b, kEnhancedPacket, swap_);
        store32(b + 8, static_cast<u32>(port.local), swap_);
        store32(b + 12, static_cast<u32>(ticks >> 32), swap_);
        store32(b + 16, static_cast<u32>(ticks), swap_);
        store32(b + 20, caplen, swap_);
        store32(b + 24, f.length[i], swap_);
        finish_block(b, kPacketBlockHeader, f, i, at + 4);
    }

    void finish_block(u8* b, u64 header, const Frames& f, u64 i, u64 total) {
        const u64 caplen = f.caplen[i];
        if (caplen) std::memcpy(b + header, f.data + f.offset[i], caplen);
        std::memset(b + header + caplen, 0, padded(caplen) - caplen);
        store32(b + 4, static_cast<u32>(total), swap_);
        store32(b + total - 4, static_cast<u32>(total), swap_);
        used_ += total;
        taken_.add(1, caplen);
    }

    int fd_;
    std::string name_;
    bool overwrite_, flush_always_, regular_ = false;
    int stall_ms_;
    bool started_ = false, finished_ = false;
    std::optional<std::string> failed_;
    std::vector<u8> buffer_;
    u64 used_ = 0;
    u64 bytes_ = 0;  // handed to the system
    Taken taken_, flushed_;
    u8 magic_[4] = {};
    bool have_magic_ = false;

    bool pcap_ = true, ns_ = false, exact_ = false;

    bool in_section_ = false, section_big_endian_ = kBigEndianHost, swap_ = false;
    i64 local_count_ = 0;
    u64 section_ = 0;
    u32 section_base_ = 0;
    std::vector<std::vector<Known>> known_;  // by table (0: the reader this writer was made like), port
    std::shared_ptr<BlockQueue> queue_;
    std::deque<LoggedBlockPtr> pending_;
};

void bind_capture_writer(nb::module_& m) {
    nb::class_<CaptureWriter>(m, "CaptureWriter")
        .def(nb::init<int, std::string, bool, bool, int>(), nb::arg("fd"), nb::arg("name"),
             nb::arg("overwrite"), nb::arg("flush_always"), nb::arg("stall_ms") = -1)
        .def("start_pcap", &CaptureWriter::start_pcap, nb::arg("ns"), nb::arg("exact"), nb::arg("snaplen"),
             nb::arg("network"))
        .def("start_pcapng", &CaptureWriter::start_pcapng, nb::arg("like").none())
        .def("add_port", &CaptureWriter::add_port)
        .def("describe", &CaptureWriter::describe)
        .def("statistics", &CaptureWriter::statistics)
        .def("write", &CaptureWriter::write, nb::arg("data"), nb::arg("offset"), nb::arg("caplen"),
             nb::arg("length"), nb::arg("timestamp_ns"), nb::arg("port"), nb::arg("flags"),
             nb::arg("keep").none(), nb::arg("first"), nb::arg("port_ok").none(),
             nb::arg("option_offset").none(), nb::arg("option_length").none(), nb::arg("options_big_endian"),
             nb::arg("table"), nb::arg("which_comment").none(), nb::arg("comments"))
        .def("flush", &CaptureWriter::flush)
        .def("finish", &CaptureWriter::finish)
        .def_prop_ro("frames", &CaptureWriter::frames)
        .def_prop_ro("captured", &CaptureWriter::captured)
        .def_prop_ro("comments", &CaptureWriter::comments)
        .def_prop_ro("bytes", &CaptureWriter::bytes);
}

}  // namespace twinstamp
