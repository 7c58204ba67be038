#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# For hdl/sim/clock/clock_sim.cpp: members of the Verilated clock_card that may change while all is idle. Run
# by tools/verilate_block.sh with the model's header; prints C++.
#
# Clocks and Verilator's own; card time, the counters that clock_sim.cpp advances itself, and what is computed
# from card time and kept; the core's memory, which nobody writes while it sleeps. Whatever else changes keeps
# the simulation from leaping.
set -euo pipefail
header=$1
list() { # PATTERN COUNT
    local names
    names=$(grep -oE "\b$1;" "$header" | sort -u)
    if [ "$(wc -l <<< "$names")" -lt "$2" ]; then
        echo "tools/members_clock_card.sh: fewer than $2 members match $1" >&2
        exit 1
    fi
    sed 's/\(.*\);/CLOCK_FREE(\1)/' <<< "$names"
}
list '__V\w*' 3
for port in clk_i reg_clk_i cpu_clk_i aux_clk_i now_q72_o; do echo "CLOCK_FREE($port)"; done
list '\w+__DOT__u_clock__DOT__(now_q|next_q|left_q)' 3
list '\w+__DOT__u_capture__DOT__(now_q|since_q|due_q)' 3
list '\w+__DOT__u_output__DOT__(end_q|past1_q|past2_q)' 3
list '\w+__DOT__(tick_q|u_core__DOT__left_q|u_core__DOT__memory)' 3
for field in now slew_left; do echo "CLOCK_FREE(clock_card__DOT__hwif_in.__PVT__clock.__PVT__$field)"; done
