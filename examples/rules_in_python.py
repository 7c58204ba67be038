# SPDX-License-Identifier: Apache-2.0
"""Writes rules in Python and shares a capture's flows among servers: rules_in_python.py [FEED]"""

from contextlib import closing

import numpy as np
import twinstamp
from made import a_feed
from twinstamp import Prefix, Rule

rules = twinstamp.RuleSet(
    rules=(
        Rule(protocol=17, destination_port=(53, 53), either_direction=True, action=("dns",)),
        Rule(source=Prefix.parse("10.77.0.0/16"), destination_port=(80, 80), either_direction=True),
        Rule(protocol=6, destination_port=(5201, 5201), either_direction=True, action=()),  # dropped
    ),
    default=("web",),
)
groups = (
    twinstamp.Group("dns", (twinstamp.Server("dns0"),)),
    twinstamp.Group("web", (twinstamp.Server("web0"), twinstamp.Server("web1", weight=2))),
)
matched = np.zeros(len(rules) + 1, np.int64)
with (
    closing(twinstamp.Classifier(rules, groups=groups)) as classifier,
    twinstamp.open_capture(a_feed()) as capture,
):
    given = np.zeros(len(classifier.servers), np.int64)
    for batch in capture:
        with batch:
            verdicts = classifier.process(batch)
            matched += np.bincount(np.asarray(verdicts.rule) + 1, minlength=len(matched))
            given += np.bincount(np.asarray(verdicts.copy_server), minlength=len(given))
for number, frames in enumerate(matched[1:], 1):
    print(f"rule {number}: {frames:,} frames")
print(f"no rule: {matched[0]:,} frames")
for name, frames in zip(classifier.servers, given, strict=True):
    print(f"server {name}: {frames:,} frames")
