// SPDX-License-Identifier: Apache-2.0
// The digest's key as a Python object, so that its 17 KB are laid out once.
#include <cstddef>

#include "bindings.h"
#include "twinstamp/hash.h"

namespace twinstamp {

void bind_hash_key(nb::module_& m) {
    m.attr("HASH_KEY_BYTES") = sizeof(HashKey);
    m.attr("HASH_BLOCK_BYTES") = HASH_BLOCK_BYTES;
    m.attr("HASH_STREAMS") = HASH_STREAMS;
    m.attr("HASH_LIMBS_AT") = offsetof(HashKey, limbs);
    nb::class_<HashKey>(m, "HashKey", "Key of the 128-bit digest; see twinstamp_kernels.hashkey.")
        .def(
            "__init__",
            [](HashKey* self, nb::bytes words) {
                if (words.size() != sizeof(HashKey)) {
                    throw nb::value_error(
                        "HashKey: wrong number of key bytes; use twinstamp_kernels.hashkey");
                }
                new (self) HashKey;
                std::memcpy(self, words.data(), sizeof(HashKey));
            },
            nb::arg("words"));
}

}  // namespace twinstamp
