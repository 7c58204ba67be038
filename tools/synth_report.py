# SPDX-License-Identifier: Apache-2.0
"""What synthesis and routing say, as one short JSON: synth_report.py resources|timing INPUT OUTPUT

resources: Yosys's `stat -json`, with the share of two ECP5s. timing: nextpnr's --report.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

# Lattice FPGA-DS-02012, table 1.1: LUT4, EBR (DP16KD), multipliers (MULT18X18D).
PARTS = {"LFE5UM5G-45F": (43_848, 108, 72), "LFE5UM5G-85F": (83_640, 208, 156)}


def resources(stat: dict[str, Any]) -> dict[str, Any]:
    """A CCU2C takes two LUTs; a TRELLIS_DPR16X4 four and the two of its write port."""
    cells = stat["design"]["num_cells_by_type"]
    luts = cells["LUT4"] + 2 * cells["CCU2C"] + 6 * cells["TRELLIS_DPR16X4"]
    names = ("luts", "block_ram", "mult")
    used = (luts, cells["DP16KD"], cells["MULT18X18D"])
    share = {
        part: {name: round(n / of, 3) for name, n, of in zip(names, used, has, strict=True)}
        for part, has in PARTS.items()
    }
    fits = {part: all(value < 1 for value in shares.values()) for part, shares in share.items()}
    return {
        "luts": luts,
        "flip_flops": cells["TRELLIS_FF"],
        "block_ram": cells["DP16KD"],
        "mult": cells["MULT18X18D"],
        "cells": cells,
        "share": share,
        "fits": fits,
    }


def timing(report: dict[str, Any]) -> dict[str, Any]:
    """Fmax of each clock, and the longest path within it: its ends and its delays in ns."""
    paths: dict[str, Any] = {}
    for path in report["critical_paths"]:
        if path["from"] == path["to"]:
            steps = path["path"]
            paths[path["from"]] = {
                "from": f"{steps[0]['from']['cell']}.{steps[0]['from']['port']}",
                "to": f"{steps[-1]['to']['cell']}.{steps[-1]['to']['port']}",
                "logic_ns": round(sum(s["delay"] for s in steps if s["type"] != "routing"), 2),
                "routing_ns": round(sum(s["delay"] for s in steps if s["type"] == "routing"), 2),
            }
    return {
        "fmax_mhz": {name: round(f["achieved"], 1) for name, f in report["fmax"].items()},
        "met": all(f["achieved"] >= f["constraint"] for f in report["fmax"].values()),
        "critical_paths": paths,
        "utilization": report["utilization"],
    }


def main(what: str, source: str, target: str) -> None:
    out = {"resources": resources, "timing": timing}[what](json.loads(Path(source).read_text()))
    Path(target).write_text(json.dumps(out, indent=1, sort_keys=True) + "\n")
    shown = {name: value for name, value in out.items() if name not in ("cells", "utilization")}
    sys.stdout.write(json.dumps(shown, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:4])
