// SPDX-License-Identifier: Apache-2.0
// Keys and classes of frames as arrays, for the Python API and for tests.
#include <nanobind/stl/optional.h>

#include <algorithm>
#include <optional>
#include <string>
#include <unordered_map>

#include "bindings.h"
#include "twinstamp/frame_class.h"
#include "twinstamp/key.h"
#include "twinstamp/not_understood.h"
#include "workers.h"

namespace twinstamp {
namespace {

// Frames as columns of a FrameBatch, every offset checked before anything is read.
struct Columns {
    const u8* data;
    const u64* offset;
    const u32* caplen;
    const u16* port;
    const u16* linktypes;
    size_t count;

    Columns(const In<u8>& bytes, const In<u64>& offsets, const In<u32>& caplens, const In<u16>& ports,
            const In<u16>& types)
        : data(bytes.data()),
          offset(offsets.data()),
          caplen(caplens.data()),
          port(ports.data()),
          linktypes(types.data()),
          count(caplens.shape(0)) {
        if (offsets.shape(0) != count || ports.shape(0) != count) {
            throw nb::value_error("frames: offset, caplen and port differ in length");
        }
        for (size_t i = 0; i < count; ++i) {
            const auto where = [&] { return "frame at index " + std::to_string(i) + ": "; };
            if (caplen[i] > MAX_CAPLEN) {
                throw nb::value_error((where() + "caplen " + std::to_string(caplen[i]) +
                                       " B is over the limit of " + std::to_string(MAX_CAPLEN) + " B")
                                          .c_str());
            }
            if (offset[i] > bytes.shape(0) || bytes.shape(0) - offset[i] < caplen[i]) {
                throw nb::value_error((where() + "lies outside the data").c_str());
            }
            if (port[i] >= types.shape(0)) {
                throw nb::value_error(
                    (where() + "port " + std::to_string(port[i]) + " has no link type").c_str());
            }
        }
    }
    const u8* frame(size_t i) const { return data + offset[i]; }
    u16 linktype(size_t i) const { return linktypes[port[i]]; }
};

Layer layer_of(int layer) {
    if (layer != 0 && layer != 1) throw nb::value_error("layer: 0 (outer) or 1 (inner)");
    return static_cast<Layer>(layer);
}

template <bool portable>
void keys_of(const Columns& frames, const HashKey& key, const KeyOptions& options, u64* digests, u8* two,
             u32* tags) {
    for (size_t i = 0; i < frames.count; ++i) {
        FrameKeys keys;
        keys.second = {{0, 0}};
        frame_keys<portable>(key, options, frames.frame(i), frames.caplen[i], frames.linktype(i), keys);
        digests[4 * i] = keys.key.half[0];
        digests[4 * i + 1] = keys.key.half[1];
        digests[4 * i + 2] = keys.second.half[0];
        digests[4 * i + 3] = keys.second.half[1];
        two[i] = keys.two;
        for (size_t p = 0; p < TAGS; ++p) tags[TAGS * i + p] = keys.tag[p];
    }
}

KeyOptions options_of(int profile, int layer, u32 ignore_bytes, const TunnelEnds& ends) {
    if (profile < 1 || profile > 4) throw nb::value_error("profile: 1 to 4");
    if (ignore_bytes != 0 && profile != static_cast<int>(Profile::exact)) {
        throw nb::value_error("ignore_bytes goes with the exact profile only");
    }
    return {static_cast<Profile>(profile), layer_of(layer), ignore_bytes, &ends};
}

nb::tuple frame_keys_of(const HashKey& key, In<u8> data, In<u64> offset, In<u32> caplen, In<u16> port,
                        In<u16> linktypes, int profile, int layer, u32 ignore_bytes, bool portable,
                        nb::bytes ends) {
    const TunnelEnds named = tunnel_ends(ends);
    const KeyOptions options = options_of(profile, layer, ignore_bytes, named);
    const Columns frames(data, offset, caplen, port, linktypes);
    std::vector<u64> digests(4 * frames.count);
    std::vector<u8> two(frames.count);
    std::vector<u32> tags(TAGS * frames.count);
    {
        nb::gil_scoped_release release;
        if (portable) {
            keys_of<true>(frames, key, options, digests.data(), two.data(), tags.data());
        } else {
            keys_of<false>(frames, key, options, digests.data(), two.data(), tags.data());
        }
    }
    return nb::make_tuple(to_view(std::move(digests)), to_view(std::move(two)), to_view(std::move(tags)));
}

// Keys in the columns that a window takes (Window::process_keys), on several threads; None for a column that
// the profile does not have.
nb::tuple frame_digests_of(const HashKey& key, In<u8> data, In<u64> offset, In<u32> caplen, In<u16> port,
                           In<u16> linktypes, int profile, int layer, u32 ignore_bytes, bool classes,
                           unsigned workers, nb::bytes ends) {
    constexpr size_t WORTH_A_THREAD = 2048;  // frames
    const TunnelEnds named = tunnel_ends(ends);
    const KeyOptions options = options_of(profile, layer, ignore_bytes, named);
    if (workers < 1 || workers > 256) throw nb::value_error("workers: 1 to 256");
    const Columns frames(data, offset, caplen, port, linktypes);
    const size_t n = frames.count;
    const bool tagged = options.profile != Profile::exact, nat = options.profile == Profile::nat;
    std::vector<u64> digests(2 * n), seconds(nat ? 2 * n : 0);
    std::vector<u8> twos(nat ? n : 0), classed(classes ? n : 0);
    std::vector<u32> tags(tagged ? TAGS * n : 0);
    {
        nb::gil_scoped_release release;
        Workers threads(static_cast<unsigned>(std::clamp<size_t>(n / WORTH_A_THREAD, 1, workers)));
        threads.run([&](unsigned worker) {
            const size_t end = n * (worker + 1) / threads.count();
            FrameKeys keys;
            for (size_t i = n * worker / threads.count(); i < end; ++i) {
                const u8* frame = frames.frame(i);
                const u32 length = frames.caplen[i];
                keys.second = {{0, 0}};
                frame_keys(key, options, frame, length, frames.linktype(i), keys);
                std::copy_n(keys.key.half, 2, &digests[2 * i]);
                if (tagged) std::copy_n(keys.tag, TAGS, &tags[TAGS * i]);
                if (nat) {
                    std::copy_n(keys.second.half, 2, &seconds[2 * i]);
                    twos[i] = keys.two;
                }
                if (classes)
                    classed[i] = frame_class(frame, length, frames.linktype(i), options.layer, &named);
            }
        });
    }
    const auto wanted = [](bool is, auto&& values) -> nb::object {
        return is ? nb::cast(to_view(std::move(values))) : nb::none();
    };
    return nb::make_tuple(to_view(std::move(digests)), wanted(nat, std::move(seconds)),
                          wanted(nat, std::move(twos)), wanted(tagged, std::move(tags)),
                          wanted(classes, std::move(classed)));
}

auto frame_classes_of(In<u8> data, In<u64> offset, In<u32> caplen, In<u16> port, In<u16> linktypes, int layer,
                      nb::bytes ends) {
    const Layer which = layer_of(layer);
    const TunnelEnds named = tunnel_ends(ends);
    const Columns frames(data, offset, caplen, port, linktypes);
    std::vector<u8> classes(frames.count);
    {
        nb::gil_scoped_release release;
        for (size_t i = 0; i < frames.count; ++i) {
            classes[i] = frame_class(frames.frame(i), frames.caplen[i], frames.linktype(i), which, &named);
        }
    }
    return to_view(std::move(classes));
}

auto frames_identified(In<u8> data, In<u64> offset, In<u32> caplen, In<u16> port, In<u16> linktypes,
                       int layer, nb::bytes ends) {
    const Layer which = layer_of(layer);
    const TunnelEnds named = tunnel_ends(ends);
    const Columns frames(data, offset, caplen, port, linktypes);
    std::vector<u8> identified(frames.count);
    {
        nb::gil_scoped_release release;
        for (size_t i = 0; i < frames.count; ++i) {
            Layers l;
            parse_frame(frames.frame(i), frames.caplen[i], frames.linktype(i), which, l, &named);
            identified[i] = is_identified(frames.frame(i), l);
        }
    }
    return to_view(std::move(identified));
}

// What most frames are, without the parser: Ethernet and IPv4 with a whole header, not a tunnel.
bool surely_understood(const u8* frame, u32 caplen, u16 linktype, Layer layer) {
    if (linktype != LINK_ETHERNET || caplen < 14 + 20 + 4 || read_be16(frame + 12) != ETHER_IPV4 ||
        frame[14] != 0x45 || (read_be16(frame + 16) < 24 && read_be16(frame + 16) != 0))
        return false;
    if (layer == Layer::outer || frame[23] == IP_TCP) return true;
    return frame[23] == IP_UDP && !detail::is_tunnel_port(read_be16(frame + 36));
}

using Reasons = std::unordered_map<u32, u64>;

nb::list count_not_understood(In<u8> data, In<u64> offset, In<u32> caplen, In<u16> port, In<u16> linktypes,
                              std::optional<In<u8>> keep, int layer, nb::bytes ends, bool refused,
                              unsigned workers) {
    constexpr size_t WORTH_A_THREAD = 16384;  // frames
    const Layer which = layer_of(layer);
    const TunnelEnds named = tunnel_ends(ends);
    if (workers < 1 || workers > 256) throw nb::value_error("workers: 1 to 256");
    const Columns frames(data, offset, caplen, port, linktypes);
    const size_t n = frames.count;
    if (keep && keep->shape(0) != n) throw nb::value_error("keep: not an entry for each frame");
    Reasons sum;
    {
        nb::gil_scoped_release release;
        const unsigned threads = static_cast<unsigned>(std::clamp<size_t>(n / WORTH_A_THREAD, 1, workers));
        std::vector<Reasons> found(threads);
        const auto part = [&](unsigned worker) {
            Reasons& reasons = found[worker];
            const size_t end = n * (worker + 1) / threads;
            Layers l;
            for (size_t i = n * worker / threads; i < end; ++i) {
                if (i + 16 < end) __builtin_prefetch(frames.data + frames.offset[i + 16]);
                const u8* frame = frames.frame(i);
                const u32 length = frames.caplen[i];
                const u16 type = frames.linktype(i);
                if (keep && keep->data()[i] == 0) continue;
                if (surely_understood(frame, length, type, which)) {
                    if (refused && (frame[22] == 0 || !sums_up(word_sum(frame + 14, 20))))
                        ++reasons[NOT_TAKEN];
                } else if (!parse_frame(frame, length, type, which, l, &named)) {
                    ++reasons[why_not_understood(type, l)];
                } else if (refused && !parse_sound_frame(frame, length, type, which, l, &named)) {
                    ++reasons[NOT_TAKEN];
                }
            }
        };
        if (threads == 1) {
            part(0);
        } else {
            Workers(threads).run(part);
        }
        for (const Reasons& reasons : found)
            for (const auto& [reason, count] : reasons) sum[reason] += count;
    }
    nb::list out;
    for (const auto& [reason, count] : sum) out.append(nb::make_tuple(reason, count));
    return out;
}

nb::tuple digest_of(const HashKey& key, u32 domain, In<u8> head, In<u8> tail, bool portable) {
    const size_t n = head.shape(0), m = tail.shape(0);
    if (domain > 255) throw nb::value_error("domain: 0 to 255");
    if (n % 8 != 0 || n > MAX_HEAD_BYTES) throw nb::value_error("head: a multiple of 8, at most 1024 bytes");
    if (m > MAX_CAPLEN) throw nb::value_error("tail: at most 262144 bytes");
    const auto a = static_cast<u32>(n), b = static_cast<u32>(m);
    const Digest digest = portable ? hash_message<true>(key, domain, head.data(), a, tail.data(), b)
                                   : hash_message<false>(key, domain, head.data(), a, tail.data(), b);
    return nb::make_tuple(digest.half[0], digest.half[1]);
}

}  // namespace

void bind_keys(nb::module_& m) {
    nb::dict profiles;
    profiles["exact"] = static_cast<int>(Profile::exact);
    profiles["vlan"] = static_cast<int>(Profile::vlan);
    profiles["routing"] = static_cast<int>(Profile::routing);
    profiles["nat"] = static_cast<int>(Profile::nat);
    m.attr("PROFILES") = profiles;
    nb::dict layers;
    layers["outer"] = static_cast<int>(Layer::outer);
    layers["inner"] = static_cast<int>(Layer::inner);
    m.attr("LAYERS") = layers;
    const char* const names[] = {"other", "arp",   "nd",    "mld", "igmp", "llc", "lldp",
                                 "slow",  "eapol", "pause", "cfm", "loop", "vrrp"};
    static_assert(sizeof names / sizeof names[0] == CLASS_COUNT);
    nb::dict classes;
    for (int i = 0; i < CLASS_COUNT; ++i) classes[names[i]] = i;
    m.attr("CLASSES") = classes;
    nb::dict guards;
    guards["ttl"] = static_cast<int>(GUARD_TTL);
    guards["tunnel"] = static_cast<int>(GUARD_TUNNEL);
    m.attr("GUARDS") = guards;
    m.attr("TAGS") = TAGS;
    m.attr("MOST_TUNNEL_ENDS") = MOST_ENDS;
    m.attr("MAX_CAPLEN") = MAX_CAPLEN;
    m.def("frame_keys", &frame_keys_of, nb::arg("hash_key"), nb::arg("data"), nb::arg("offset"),
          nb::arg("caplen"), nb::arg("port"), nb::arg("linktypes"), nb::arg("profile"), nb::arg("layer"),
          nb::arg("ignore_bytes") = 0, nb::arg("portable") = false, nb::arg("ends") = nb::bytes(""),
          "(digests u64[4n]: key, second; two u8[n]; tags u32[4n]) of n frames.");
    m.def("frame_digests", &frame_digests_of, nb::arg("hash_key"), nb::arg("data"), nb::arg("offset"),
          nb::arg("caplen"), nb::arg("port"), nb::arg("linktypes"), nb::arg("profile"), nb::arg("layer"),
          nb::arg("ignore_bytes"), nb::arg("classes"), nb::arg("workers"), nb::arg("ends") = nb::bytes(""),
          "(key u64[2n], second u64[2n], two u8[n], tags u32[4n], frame_class u8[n]); None: not of the "
          "profile, or not asked for.");
    m.def("frame_classes", &frame_classes_of, nb::arg("data"), nb::arg("offset"), nb::arg("caplen"),
          nb::arg("port"), nb::arg("linktypes"), nb::arg("layer") = 0, nb::arg("ends") = nb::bytes(""),
          "Class codes u8[n] of n frames.");
    m.def("frames_identified", &frames_identified, nb::arg("data"), nb::arg("offset"), nb::arg("caplen"),
          nb::arg("port"), nb::arg("linktypes"), nb::arg("layer") = 0, nb::arg("ends") = nb::bytes(""),
          "u8[n]: 1 where something in the packet tells two sendings of the same content apart.");
    m.def("count_not_understood", &count_not_understood, nb::arg("data"), nb::arg("offset"),
          nb::arg("caplen"), nb::arg("port"), nb::arg("linktypes"), nb::arg("keep").none(), nb::arg("layer"),
          nb::arg("ends"), nb::arg("refused"), nb::arg("workers"),
          "[(reason, frames)] of those that are not understood (twinstamp/not_understood.h).");
    m.def("digest", &digest_of, nb::arg("hash_key"), nb::arg("domain"), nb::arg("head"), nb::arg("tail"),
          nb::arg("portable") = false, "The two 64-bit halves of the digest of head ++ tail in a domain.");
}

}  // namespace twinstamp
