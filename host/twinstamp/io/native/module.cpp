// SPDX-License-Identifier: Apache-2.0
// Compiled record walks of the host. Each bind_ function lives beside its code.
#include <nanobind/nanobind.h>

namespace nb = nanobind;

NB_MODULE(_native, m) {
    m.doc() = "Twinstamp's compiled record walks: capture files, packet sockets, merging.";
}
