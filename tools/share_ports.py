# SPDX-License-Identifier: Apache-2.0
"""For Verilator, on standard output: modules to keep, whose instances share code or sleep.

A module of its own, whose inputs stand in its own variables, is the same code for each port, a quarter of
what has to go through the instruction cache each cycle. Otherwise Verilator reads what drives them, which is
another variable for each port. Clocks and the common reset are left as they are: each would be one more
trigger. What says that a module sleeps (tools/model_edges.py) is kept as a variable. Run by tools/verilate.sh
(docs/decisions/0060-simulation-speed.md).
"""

import re
import sys
from pathlib import Path

MODULES = (
    "rx/rx_port",
    "phy/gmii_loopback",
    "phy/phy_link",
    "tx/gmii_tx",
    "tx/train_port",
    "tx/tx_fetch",
    "stats/port_counters",
    "hash/frame_digest",
    "dedup/profile_words",
    "dedup/record_judge",
)
SHARED = {"clk_i", "rx_clk_i", "tx_clk_i", "rst_ni", "tx_rst_ni"}


INPUT = r"\binput\s+(?:\w+\s+)?(?:\[[^\]]*\]\s*)?(\w+)(?:\s*\[[^\]]*\])?\s*(?:,|$)"


def main() -> None:
    lines = ["`verilator_config"]
    for module in MODULES:
        text = Path("hdl/rtl", f"{module}.sv").read_text()
        head = text[text.index("\nmodule ") :]
        head = re.sub(r"//.*", "", head[: head.index("\n);")])
        inputs = re.findall(INPUT, head, re.M)
        if len(inputs) != len(re.findall(r"\binput\b", head)):
            sys.exit(f"tools/share_ports.py: {module}: an input that it cannot read")
        name = module.split("/")[1]
        lines.append(f'no_inline -module "{name}"')
        if "logic asleep;" in text:
            inputs.append("asleep")
        lines += [f'public_flat_rd -module "{name}" -var "{v}"' for v in inputs if v not in SHARED]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
