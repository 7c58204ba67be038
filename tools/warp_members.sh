#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# For hdl/sim/warp.cpp: which members of the Verilated model may change while the card is idle. Run by
# tools/verilate.sh with the model's header; prints C++.
#
# Clocks, random inputs and Verilator's own triggers; card time; and what is computed from card time and kept:
# whatever else changes keeps the simulation from warping. A comparison with card time must be named here, as
# the signed difference (WARP_DUE: a warp ends before its sign changes) or as the register that card time is
# compared with (WARP_TARGET, 32.32: a warp ends before card time reaches it).
set -euo pipefail
header=$1
# All state is in one class.
for other in "$(dirname "$header")"/Vtwinstamp_card_*.h; do
    case $other in
        *__Syms.h | *___024root.h | *__pch.h | *_pkg.h | *__Dpi.h) ;;
        *) echo "tools/warp_members.sh: $other has state that hdl/sim/warp.cpp does not compare" >&2; exit 1 ;;
    esac
done
list() { # MACRO PATTERN COUNT
    local names
    names=$(grep -oE "\b$2\b" "$header" | sort -u)
    if [ "$(wc -l <<< "$names")" -lt "$3" ]; then
        echo "tools/warp_members.sh: fewer than $3 members match $2: say what warp has to know about them" >&2
        exit 1
    fi
    sed "s/.*/$1(&)/" <<< "$names"
}
list WARP_FREE '__V(trigprevexpr|act|nba)\w*' 3
list WARP_FREE '(clk_i|clk_reg_i|rx_clk_i|late_i|now_q72_o)' 5
list WARP_TIME '\w+__DOT__u_clock__DOT__now_q' 1
# Launch times, one per port.
if grep -qE '__DOT__target_q\b' "$header"; then
    list WARP_TARGET '\w+__DOT__target_q' 4
else
    list WARP_DUE '\w+__DOT__u_tx__DOT__due' 4
fi
# Of the trains: what is ahead of card time, and the next launch times.
list WARP_FREE '\w+__DOT__u_train_time__DOT__(soon_q|before_q)' 2
list WARP_TARGET '\w+__DOT__u_trains__DOT__head_q32' 4
# Card time for the register block, which takes it with clk_reg_i only.
echo 'WARP_FREE(twinstamp_card__DOT__hwif_in.__PVT__clock.__PVT__now)'
