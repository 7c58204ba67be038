# SPDX-License-Identifier: Apache-2.0
"""Judges a capture on the GPU where there is one, and compares with the CPU: batch_on_a_gpu.py [FEED]"""

import numpy as np
import twinstamp
from made import a_feed

feed = a_feed()
options = {"profile": "routing", "window": 10_000, "time_ns": twinstamp.parse_time_ns("50ms")}
try:
    gpu = twinstamp.Deduplicator(**options, backend="gpu")
except twinstamp.ConfigError as error:
    print(f"no GPU, so the CPU twice: {error}")
    gpu = twinstamp.Deduplicator(**options)
frames = duplicates = 0
with gpu, twinstamp.Deduplicator(**options) as cpu, twinstamp.open_capture(feed) as capture:
    for batch in capture:
        with batch:
            there = np.asarray(gpu.judge(batch).keep)
            here = np.asarray(cpu.judge(batch).keep)
            if not np.array_equal(there, here):
                raise SystemExit("the verdicts differ: please report it")
            frames += len(batch)
            duplicates += len(batch) - np.count_nonzero(there)
    print(f"judged on the {gpu.backend()['name'].upper()}: {frames:,} frames, {duplicates:,} duplicates")
