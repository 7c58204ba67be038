// SPDX-License-Identifier: Apache-2.0
// Rule and flow hash of one frame whose fields are known.
#pragma once

#include "twinstamp/rules.h"

namespace twinstamp {

struct JudgeOptions {
    HashMode mode;
    bool follow_icmp;  // ICMP errors that no rule matches take the rule of what they quote
};

struct Judged {
    i32 rule;
    u64 hash;
    bool followed;  // hashed by the flow that an ICMP error quotes
};

// False: the frame quotes a later fragment, and peek() says that the fragment table must be asked first.
// peek(layers, key): fills in ports and flags of the quoted datagram where its first fragment is known.
template <typename Peek>
TS_HD bool judge(const RuleTables& tables, const FlowHashKey& secret, const JudgeOptions& options,
                 const u8* frame, const Layers& layers, const FlowKey& key, Judged& out, Peek peek) {
    out.followed = is_icmp_error(key);
    if (out.followed) {
        FlowKey quoted;
        Layers inner;
        out.followed = quoted_key(frame, layers, inner, quoted);
        if (out.followed) {
            if (quoted.fragment == Fragment::later && options.mode == HashMode::flow && !peek(inner, quoted))
                return false;
            out.rule = match_rules(tables, key);
            // An error that no rule speaks of goes to the group of the flow it is about.
            if (out.rule == NO_RULE && options.follow_icmp) out.rule = match_rules(tables, quoted);
            out.hash = flow_hash(secret, quoted, options.mode);
            return true;
        }
    }
    out.rule = match_rules(tables, key);
    out.hash = flow_hash(secret, key, options.mode);
    return true;
}

}  // namespace twinstamp
