# SPDX-License-Identifier: Apache-2.0
"""mypy sees the border to the compiled modules (`make lint` compares their stubs with them)."""

from __future__ import annotations

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize("module", ["host/twinstamp/_native.pyi", "gpu_kernels/twinstamp_kernels/_cpu.pyi"])
def test_no_name_of_a_compiled_module_is_taken_on_trust(module):
    """`__getattr__` in a stub lets mypy pass any name, also one that is misspelt."""
    assert "__getattr__" not in (ROOT / module).read_text()
