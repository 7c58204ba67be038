# SPDX-License-Identifier: Apache-2.0
"""Faults found by attacking the window, each test named after one."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from twinstamp_kernels.window import Window

from tests.kernels.executors import EXECUTORS, each_executor


@pytest.fixture(autouse=True, scope="module", params=EXECUTORS)
def executor(request):
    yield from each_executor(sys.modules[__name__], request.param)


def judge(window, stamps):
    n = len(stamps)
    return window.process(
        np.zeros(64, np.uint8), np.zeros(n, np.uint64), np.full(n, 60, np.uint32),
        np.array(stamps, np.int64), np.zeros(n, np.uint16), np.array([1], np.uint16),
    )  # fmt: skip


def test_a_count_shorter_than_the_limit_is_no_limit_reached():
    both = Window(count=5, time_ns=1000)
    judge(both, range(50))
    assert both.statistics()["limit_reached"] == 0
    limited = Window(time_ns=1000, limit=5)
    judge(limited, range(50))
    assert limited.statistics()["limit_reached"] == 45


def test_a_delay_beyond_i64_keeps_its_sign():
    low, high = -(2**63), 2**63 - 1
    assert np.asarray(judge(Window(count=5), [low, high]).delay_ns)[1] == high
    assert np.asarray(judge(Window(count=5), [high, low]).delay_ns)[1] == low


def test_threads_that_cannot_be_made_do_not_hang():
    code = (
        "import resource, sys\n"
        "from twinstamp.dedup import Deduplicator\n"
        "from twinstamp.errors import OverloadError\n"
        "size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + (100 << 20),) * 2)\n"
        "try:\n    Deduplicator(window=5, workers=250)\n"
        "except OverloadError:\n    sys.exit(7)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 7
