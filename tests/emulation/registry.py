# SPDX-License-Identifier: Apache-2.0
"""Writes the source that builds one .cu file for the emulation: registry.py FILE.cu OUTPUT.cpp."""

from __future__ import annotations

import re
import sys
from pathlib import Path

KERNEL = re.compile(r"\b__global__\b(?:\s+void|\s+__launch_bounds__\s*\([^()]*\))*\s+(\w+)\s*\(")
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)


def kernels(source: str) -> list[str]:
    """Names of the __global__ functions of a .cu file's text. ValueError for one it cannot read."""
    text = COMMENT.sub(" ", source)
    names = KERNEL.findall(text)
    if len(names) != len(re.findall(r"\b__global__\b", text)):
        raise ValueError('a __global__ function that is not written as `extern "C" __global__ void name(`')
    return names


def wrapper(path: Path) -> str:
    """C++ that includes the .cu file and registers its kernels."""
    names = kernels(path.read_text())
    lines = [f'#include "{path.resolve()}"', "", '#include "registry.h"', ""]
    return "\n".join(lines + [f"TS_REGISTER({name})" for name in names]) + "\n"


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(wrapper(Path(sys.argv[1])))
