// SPDX-License-Identifier: Apache-2.0
// Why the parser does not understand a frame, for counts that a person reads (docs/duplicates.md).
#pragma once

#include "twinstamp/parse.h"

namespace twinstamp {

// A reason is one of these and, in the low 16 bits, the number.
constexpr u32 NOT_LINKTYPE = 0u << 16;   // the link type is unknown, or what it carries has no ethertype
constexpr u32 NOT_ETHERTYPE = 1u << 16;  // the ethertype is unknown, or opened at the layer inner only
constexpr u32 NOT_WHOLE =
    2u << 16;  // a header is cut short or damaged; 0 in place of an ethertype: in a tunnel
constexpr u32 NOT_TAKEN = 3u << 16;  // understood, but no host takes it (sound.h)

// Of a frame whose parse ended with Network::none.
TS_HD u32 why_not_understood(u16 linktype, const Layers& l) {
    const u16 type = l.ethertype;
    if (type == ETHER_IPV4 || type == ETHER_IPV6 || type == ETHER_ARP || detail::is_tag(type))
        return NOT_WHOLE | type;
    if (type != 0) return NOT_ETHERTYPE | type;
    if (l.tunnels != 0 || linktype == LINK_ETHERNET) return NOT_WHOLE;
    return NOT_LINKTYPE | linktype;
}

}  // namespace twinstamp
