# SPDX-License-Identifier: Apache-2.0
"""No module imports one that, over whatever way, imports it: also not inside functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = {
    "twinstamp": ROOT / "host" / "twinstamp",
    "twinstamp_kernels": ROOT / "gpu_kernels" / "twinstamp_kernels",
    "twinstamp_gps": ROOT / "gps" / "twinstamp_gps",
}


def modules() -> dict[str, Path]:
    found = {}
    for package, folder in PACKAGES.items():
        for path in folder.rglob("*.py"):
            parts = (package, *path.relative_to(folder).with_suffix("").parts)
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(node: ast.AST) -> Iterator[str]:
    """Names of what is imported when the program runs, not for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if (
            isinstance(child, ast.If)
            and isinstance(child.test, ast.Name)
            and child.test.id == "TYPE_CHECKING"
        ):
            for other in child.orelse:
                yield from imported(other)
        elif isinstance(child, ast.Import):
            yield from (name.name for name in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            yield from (f"{child.module}.{name.name}" for name in child.names)
            yield child.module or ""
        else:
            yield from imported(child)


def graph(known: dict[str, Path]) -> dict[str, set[str]]:
    return {
        module: {name for name in imported(ast.parse(path.read_text())) if name in known and name != module}
        for module, path in known.items()
    }


def test_modules_do_not_import_each_other_in_a_circle():
    found = graph(modules())
    # A package's __init__ hands names of its modules on; that alone is no circle.
    packages = {name for name, path in modules().items() if path.name == "__init__.py"}
    found = {module: names - packages for module, names in found.items() if module not in packages}
    assert sum(map(len, found.values())) > 300, "the imports are seen"
    assert "twinstamp_kernels.verdicts" in found["twinstamp_kernels.gpu.window"]
    try:
        list(TopologicalSorter(found).static_order())
    except CycleError as error:
        pytest.fail(f"modules import each other: {' <- '.join(error.args[1])}")
