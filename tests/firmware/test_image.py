# SPDX-License-Identifier: Apache-2.0
"""Limits of the firmware, read from the very file that is loaded; and what it takes when it runs."""

from __future__ import annotations

import re

import pytest

from tests.firmware.image import deepest, functions, sections, symbols
from tests.loop.world import World

STACK = 4096
CORE_HZ = 125_000_000


def test_size():
    size = sections()
    program = size[".text"] + size.get(".data", 0)
    assert program < 40_000, f"{program} bytes of program"
    assert program + size[".bss"] < 65_536 - STACK


def test_no_heap_no_floating_point():
    names = set(symbols())
    heap = {"malloc", "calloc", "realloc", "free", "sbrk", "_sbrk", "_malloc_r", "__malloc_start"}
    assert not names & heap
    # libgcc's software floating point: __adddf3, __floatsidf, __fixunsdfsi, __ltsf2 and the like.
    soft_float = re.compile(r"__(\w*[sdt]f[23]?|fix\w+|float\w+|trunc[sdt]f\w+|extend[sd]f\w+|\w+[sdt]c3)$")
    assert not [name for name in names if soft_float.match(name)]
    assert "servo_step" in names and "__divdi3" in names


def test_stack_of_every_call_chain():
    found, path = deepest("_start", functions())
    assert "servo_step" in functions()
    assert found < 1024, f"{found} bytes: {' > '.join(path)}"
    # A frame that is known by other means: the compiler's own -fstack-usage.
    assert functions()["servo_step"].frame == compiler_says("servo_step")


def compiler_says(name: str) -> int:
    from tests.firmware.image import ROOT

    for path in (ROOT / "build" / "firmware").glob("*.su"):
        for line in path.read_text().splitlines():
            where, size, kind = line.split("\t")
            assert kind == "static", line
            if where.endswith(f":{name}"):
                return int(size)
    raise AssertionError(name)


@pytest.fixture(scope="module")
def world():
    world = World(seed=21)
    world.run(8)
    world.run(1, pulses=False)
    world.run(2, shift_ns=3000)
    world.card.send(world.card.counts.now_fs, world.rng.randbytes(4000), baud=world.baud)
    world.run(2)
    return world


def test_stack_as_measured(world):
    used = symbols()["_stack_top"] - world.firmware.counts().stack_low
    found, _ = deepest("_start", functions())
    assert 100 < used <= found


def test_cycles_of_a_pulse(world):
    """From one sleep to the next, the step of the servo included; and of a whole second with its messages."""
    counts = world.card.counts
    assert counts.longest < 400_000, f"{counts.longest} cycles: {1e3 * counts.longest / CORE_HZ:.2f} ms"
    assert counts.awake / 13 < 1_500_000
    # Card time is read, the servo runs, the registers are written: within 2 ms (servo.h).
    said = world.firmware.counts()
    assert said.late_outputs == 0
    assert said.slowest_q32 / 2**32 < 2e-3
