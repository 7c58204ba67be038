// SPDX-License-Identifier: Apache-2.0
// The CPU build of the kernels as a Python extension. Each bind_ function lives beside its code.
#include "bindings.h"

NB_MODULE(_cpu, m) {
    // Objects that live until the interpreter ends (a signal handler holds one) are no leak worth a page of
    // text.
    nb::set_leak_warnings(false);
    m.doc() = "CPU build of Twinstamp's kernels: the same headers that run on the GPU.";
    twinstamp::bind_hash_key(m);
    twinstamp::bind_balance(m);
    twinstamp::bind_frame_bytes(m);
    twinstamp::bind_rules(m);
    twinstamp::bind_window(m);
    twinstamp::bind_histogram(m);
    twinstamp::bind_keys(m);
}
