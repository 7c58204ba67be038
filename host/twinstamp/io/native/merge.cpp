// SPDX-License-Identifier: Apache-2.0
// Merge of several live sources by stamp, in a bounded reorder buffer.
#include <nanobind/nanobind.h>
namespace twinstamp { void bind_merge(nanobind::module_&) {} }
