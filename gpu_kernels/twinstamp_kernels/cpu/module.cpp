// SPDX-License-Identifier: Apache-2.0
// The CPU build of the kernels as a Python extension. Each bind_ function lives beside its code.
#include "bindings.h"

NB_MODULE(_cpu, m) {
    m.doc() = "CPU build of Twinstamp's kernels: the same headers that run on the GPU.";
    twinstamp::bind_hash_key(m);
    twinstamp::bind_balance(m);
    twinstamp::bind_rules(m);
    twinstamp::bind_window(m);
    twinstamp::bind_histogram(m);
    twinstamp::bind_keys(m);
}
