# SPDX-License-Identifier: Apache-2.0
"""Runs the whole appliance from Python, here from a capture into two: drive_the_appliance.py [FEED]

With `{"interface": "eth1"}` in place of a file it runs until appliance.stop() is called.
"""

import twinstamp
from made import MADE, a_feed

config = twinstamp.parse_appliance(
    {
        "source": [{"file": str(a_feed().absolute())}],
        "duplicates": {"profile": "routing", "window": 100_000, "time": "50ms"},
        "balance": {"default_group": "dpi", "secret_file": "balance.key"},
        "group": [
            {
                "name": "dpi",
                "server": [
                    {"name": "dpi0", "file": "dpi0.pcapng"},
                    {"name": "dpi1", "file": "dpi1.pcapng"},
                ],
            }
        ],
    },
    MADE,  # where relative paths start
)
MADE.mkdir(exist_ok=True)
with twinstamp.Appliance(config) as appliance:
    report = appliance.run()
for fate, count in report["ledger"].items():
    print(fate, count)
for name, server in report["servers"].items():
    print(name, server)
