# SPDX-License-Identifier: Apache-2.0
"""Every grid kernel compiles with NVRTC, for the oldest GPU there is support for and for a recent one."""

from __future__ import annotations

from pathlib import Path

import pytest
import twinstamp_kernels

from tests.emulation.registry import kernels

nvrtc = pytest.importorskip("cupy_backends.cuda.libs.nvrtc", reason="NVRTC is not installed (extra gpu)")

ROOT = Path(twinstamp_kernels.__file__).parent
SOURCES = [*sorted((ROOT / "cuda").glob("*.cu")), Path(__file__).parent.parent / "emulation" / "selftest.cu"]


def compile_source(source: str, name: str, architecture: str) -> bytes:
    program = nvrtc.createProgram(source, name, (), ())
    options = ("-std=c++17", f"-I{ROOT / 'include'}", f"--gpu-architecture={architecture}")
    try:
        nvrtc.compileProgram(program, options)
    except nvrtc.NVRTCError:
        pytest.fail(nvrtc.getProgramLog(program), pytrace=False)
    log = nvrtc.getProgramLog(program)
    assert "warning" not in log, log
    return bytes(nvrtc.getCUBIN(program))


@pytest.mark.parametrize("architecture", ["sm_75", "sm_90"])
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_compiles(path: Path, architecture: str) -> None:
    source = path.read_text()
    cubin = compile_source(source, path.name, architecture)
    names = kernels(source)
    assert names
    for name in names:
        assert name.encode() in cubin


def test_an_error_is_reported() -> None:
    with pytest.raises(pytest.fail.Exception, match="nonsense"):
        compile_source('extern "C" __global__ void k() { nonsense(); }', "k.cu", "sm_75")
