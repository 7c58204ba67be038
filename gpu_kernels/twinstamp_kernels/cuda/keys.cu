// SPDX-License-Identifier: Apache-2.0
// Keys of a chunk's frames, written where the window's search reads them (cuda/window.cu).
//
// Window columns are rings of mask + 1 slots; frame i of the chunk belongs to slot (first + i) & mask.
#include "twinstamp/frame_class.h"
#include "twinstamp/grid.h"
#include "twinstamp/key.h"

using namespace twinstamp;

// The profile exact. data: the bytes of offset `base` on; hash_key in global memory, where all threads of a
// warp read the same word. Moves 12 + frame bytes in and 16 out per frame.
extern "C" __global__ void __launch_bounds__(256)
    exact_keys(const u8* data, const u64* offset, const u32* caplen, u64 base, u64 count,
               const HashKey* hash_key, u64 ignore_bytes, Digest* ring_key, u64 first, u64 mask) {
    const u64 i = thread_number();
    if (i >= count) return;
    const u32 length = caplen[i];
    const bool whole = length <= ignore_bytes || ignore_bytes == 0;
    const u32 skip = whole ? 0 : static_cast<u32>(ignore_bytes);
    const u32 domain = detail::DOMAIN_EXACT + (whole ? detail::FORM_WHOLE : detail::FORM_IGNORING);
    const Digest digest =
        hash_message(*hash_key, domain, nullptr, 0, data + (offset[i] - base) + skip, length - skip);
    ring_key[(first + i) & mask] = digest;
}

// All other profiles. ring_second and ring_two: with nat only, else null. tags: TAGS words per slot.
extern "C" __global__ void __launch_bounds__(256)
    profile_keys(const u8* data, const u64* offset, const u32* caplen, const u16* port, const u16* linktypes,
                 u64 base, u64 count, const HashKey* hash_key, u64 profile, u64 layer, const TunnelEnds* ends,
                 Digest* ring_key, Digest* ring_second, u8* ring_two, u32* ring_tags, u64 first, u64 mask) {
    const u64 i = thread_number();
    if (i >= count) return;
    const KeyOptions options = {static_cast<Profile>(profile), static_cast<Layer>(layer), 0, ends};
    FrameKeys keys;
    frame_keys(*hash_key, options, data + (offset[i] - base), caplen[i], linktypes[port[i]], keys);
    const u64 slot = (first + i) & mask;
    ring_key[slot] = keys.key;
    for (u32 t = 0; t < TAGS; ++t) ring_tags[TAGS * slot + t] = keys.tag[t];
    if (ring_two != nullptr) {
        ring_two[slot] = keys.two;
        ring_second[slot] = keys.two ? keys.second : Digest{};
    }
}

// Stamps of the chunk's frames to their slots.
extern "C" __global__ void __launch_bounds__(256)
    store_stamps(const i64* time, u64 count, i64* ring_time, u64 first, u64 mask) {
    const u64 i = thread_number();
    if (i < count) ring_time[(first + i) & mask] = time[i];
}

// Keys computed elsewhere to their slots. second and two: with nat only, tags: with all but exact, else null.
extern "C" __global__ void __launch_bounds__(256)
    store_keys(const Digest* key, const Digest* second, const u8* two, const u32* tags, u64 count,
               Digest* ring_key, Digest* ring_second, u8* ring_two, u32* ring_tags, u64 first, u64 mask) {
    const u64 i = thread_number();
    if (i >= count) return;
    const u64 slot = (first + i) & mask;
    ring_key[slot] = key[i];
    if (tags != nullptr) {
        for (u32 t = 0; t < TAGS; ++t) ring_tags[TAGS * slot + t] = tags[TAGS * i + t];
    }
    if (two != nullptr) {
        ring_two[slot] = two[i] != 0;
        ring_second[slot] = two[i] != 0 ? second[i] : Digest{};
    }
}

// Class of each frame of the chunk, by the headers at `layer`.
extern "C" __global__ void __launch_bounds__(256)
    frame_classes(const u8* data, const u64* offset, const u32* caplen, const u16* port, const u16* linktypes,
                  u64 base, u64 count, u64 layer, const TunnelEnds* ends, u8* out) {
    const u64 i = thread_number();
    if (i >= count) return;
    out[i] = frame_class(data + (offset[i] - base), caplen[i], linktypes[port[i]], static_cast<Layer>(layer),
                         ends);
}
