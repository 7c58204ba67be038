# SPDX-License-Identifier: Apache-2.0
"""For Verilator, on standard output: lets the ports' instances of a module share their code.

A module of its own, whose inputs stand in its own variables, is the same code for each port, a quarter of what
has to go through the instruction cache each cycle. Without this Verilator reads another port's variable in each.
Clocks and the common reset are left as they are: each would be one more trigger. Run by tools/verilate.sh.
"""

import re
import sys
from pathlib import Path

MODULES = ("rx/rx_port", "phy/gmii_loopback", "phy/phy_link", "tx/gmii_tx", "stats/port_counters")
SHARED = {"clk_i", "rx_clk_i", "tx_clk_i", "rst_ni", "tx_rst_ni"}


def main() -> None:
    print("`verilator_config")
    for module in MODULES:
        text = Path("hdl/rtl", f"{module}.sv").read_text()
        head = text[text.index("\nmodule ") :]
        head = re.sub(r"//.*", "", head[: head.index("\n);")])
        inputs = re.findall(r"\binput\s+(?:\w+\s+)?(?:\[[^\]]*\]\s*)?(\w+)(?:\s*\[[^\]]*\])?\s*(?:,|$)", head, re.M)
        if len(inputs) != len(re.findall(r"\binput\b", head)):
            sys.exit(f"tools/share_ports.py: {module}: an input that it cannot read")
        name = module.split("/")[1]
        print(f'no_inline -module "{name}"')
        for variable in inputs:
            if variable not in SHARED:
                print(f'public_flat_rd -module "{name}" -var "{variable}"')


if __name__ == "__main__":
    main()
