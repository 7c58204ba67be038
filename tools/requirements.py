# SPDX-License-Identifier: Apache-2.0
"""Prints the requirements of pyproject.toml, one per line: python tools/requirements.py [build] EXTRA...

pip can install a project's dependencies only together with the project, and the project can only be
built after its build requirements are there; so `make setup` installs from this list first.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def requirements(extras: list[str]) -> list[str]:
    """The run-time requirements and those of each extra; the extra "build" means the build system's."""
    document = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    project = document["project"]
    lines = list(project["dependencies"])
    for extra in extras:
        if extra == "build":
            lines += document["build-system"]["requires"]
        else:
            lines += project["optional-dependencies"][extra]
    return lines


if __name__ == "__main__":
    sys.stdout.write("\n".join(requirements(sys.argv[1:])) + "\n")
