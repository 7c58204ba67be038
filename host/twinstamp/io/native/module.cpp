// SPDX-License-Identifier: Apache-2.0
// Compiled record walks of the host. Each bind_ function lives beside its code.
#include <nanobind/nanobind.h>

namespace nb = nanobind;

namespace twinstamp {
void bind_card_ring(nb::module_& m);
void bind_shared_record(nb::module_& m);
void bind_stamped_sender(nb::module_& m);
void bind_tap(nb::module_& m);
void bind_transmit(nb::module_& m);
void bind_capture_reader(nb::module_& m);
void bind_capture_writer(nb::module_& m);
void bind_frame_store(nb::module_& m);
void bind_merge(nb::module_& m);
void bind_order(nb::module_& m);
void bind_packet_output(nb::module_& m);
void bind_packet_socket(nb::module_& m);
}  // namespace twinstamp

NB_MODULE(_native, m) {
    // As in the kernels: an object that lives until the interpreter ends is no leak.
    nb::set_leak_warnings(false);
    m.doc() = "Twinstamp's compiled record walks: capture files, packet sockets, merging.";
    twinstamp::bind_card_ring(m);
    twinstamp::bind_shared_record(m);
    twinstamp::bind_stamped_sender(m);
    twinstamp::bind_tap(m);
    twinstamp::bind_transmit(m);
    twinstamp::bind_capture_reader(m);
    twinstamp::bind_capture_writer(m);
    twinstamp::bind_packet_socket(m);
    twinstamp::bind_packet_output(m);
    twinstamp::bind_frame_store(m);
    twinstamp::bind_merge(m);
    twinstamp::bind_order(m);
}
