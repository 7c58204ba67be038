# SPDX-License-Identifier: Apache-2.0
"""Set-up and CI: what make does only once, what packages it names, and what CI does not let pass."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def session(tmp_path: Path, *, ci: str, corpus: bool, marker: str) -> subprocess.CompletedProcess[str]:
    """pytest, with this project's conftest, on one test that skips and one that passes."""
    (tmp_path / "test_it.py").write_text(
        f"import pytest\n@pytest.mark.{marker}\ndef test_compares(): pytest.skip('not today')\n"
        "def test_fine(): pass\n"
    )
    if corpus:
        (tmp_path / "corpus" / "captures").mkdir(parents=True)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.conftest",
        "-c",
        "pyproject.toml",
        "-p",
        "no:cacheprovider",
    ]
    return subprocess.run(
        [*command, str(tmp_path / "test_it.py")],
        cwd=ROOT,
        env={**os.environ, "CI": ci, "TWINSTAMP_CORPUS": str(tmp_path / "corpus")},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("ci", "corpus", "marker", "status"),
    [
        ("true", True, "corpus", 1),
        ("true", False, "corpus", 0),
        ("", True, "corpus", 0),
        ("true", True, "root", 0),
    ],
)
def test_ci_fails_where_a_corpus_test_was_skipped(
    tmp_path: Path, ci: str, corpus: bool, marker: str, status: int
):
    result = session(tmp_path, ci=ci, corpus=corpus, marker=marker)
    assert result.returncode == status, result.stdout + result.stderr
    assert ("a corpus test was skipped" in result.stdout) == bool(status)
    assert "not today" in result.stdout
    assert result.stdout.rstrip().splitlines()[-1].endswith("=")


def test_requirements_are_those_of_pyproject():
    lines = subprocess.run(
        [sys.executable, ROOT / "tools" / "requirements.py", "build", "dpi"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    names = {line.split(">")[0] for line in lines}
    assert {"numpy", "rich", "pyroute2", "nfstream", "nanobind", "scikit-build-core"} <= names
    assert "pytest" not in names


@pytest.fixture
def bare_machine(tmp_path: Path) -> Path:
    """A PATH with little more than a shell, and apt-get and sudo that only say what they are asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "id", "env", "grep", "cat"):
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    for name, body in (
        ("apt-get", f'echo "$@" >> {tmp_path}/asked'),
        ("apt-cache", "exit 1"),
        ("ldconfig", ""),
    ):
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)
    (folder / "sudo").write_text('#!/bin/bash\nexec "$@"\n')
    (folder / "sudo").chmod(0o755)
    return folder


def packages(path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    # The script itself adds the folders of root's programs, where this machine's tools may be.
    script = (ROOT / "tools" / "packages.sh").read_text().replace("PATH=$PATH:/usr/sbin:/sbin\n", "")
    return subprocess.run(
        ["/bin/bash", "-c", script],
        env={"PATH": str(path), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_packages_are_named_then_installed_without_questions(bare_machine: Path):
    result = packages(bare_machine)
    assert result.returncode == 0, result.stderr
    (line,) = result.stdout.splitlines()
    assert line.startswith("setup: installing Debian packages: ")
    named = line.split(": ")[2].split()
    assert {"g++", "python3", "python3-venv", "python3-dev", "libpcap0.8", "tshark", "tcpdump"} <= set(named)
    update, install = (bare_machine.parent / "asked").read_text().splitlines()
    assert update.endswith("update")
    assert " -y " in f" {install} "
    assert install.split()[-len(named) :] == named


def test_ubuntu_24_04_has_another_name_for_libpcap(bare_machine: Path):
    (bare_machine / "apt-cache").write_text("#!/bin/bash\nexit 0\n")
    assert packages(bare_machine).returncode == 0
    assert "libpcap0.8t64" in (bare_machine.parent / "asked").read_text().split()


def test_without_apt_get_the_needed_packages_are_an_error(bare_machine: Path):
    (bare_machine / "apt-get").unlink()
    result = packages(bare_machine)
    assert result.returncode == 1
    assert "cannot go on without: g++" in result.stderr


def test_nothing_is_asked_of_apt_where_all_is_there(bare_machine: Path):
    for name in (
        "g++",
        "ccache",
        "ip",
        "ethtool",
        "tcpdump",
        "tshark",
        "editcap",
        "dnsmasq",
        "dig",
        "curl",
        "dumpcap",
        "iperf3",
        "tclsh",
    ):
        (bare_machine / name).write_text("#!/bin/bash\n")
        (bare_machine / name).chmod(0o755)
    (bare_machine / "python3").write_text("#!/bin/bash\n")
    (bare_machine / "python3").chmod(0o755)
    (bare_machine / "ldconfig").write_text("#!/bin/bash\necho 'libpcap.so.0.8 (libc6,x86-64)'\n")
    result = packages(bare_machine)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert not (bare_machine.parent / "asked").exists()


def test_set_up_is_not_done_twice():
    """Where make has set this tree up, it has nothing more to do."""
    if not (ROOT / ".venv" / ".stamp-built").exists() or shutil.which("make") is None:
        pytest.skip("this tree was not set up by make")
    result = subprocess.run(["make", "-q", "setup"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    if result.returncode:
        if os.environ.get("CI", "").lower() != "true":
            pytest.skip("something has changed since this tree was set up: make setup")
        again = subprocess.run(["make", "-n", "setup"], cwd=ROOT, capture_output=True, text=True, timeout=60)
        pytest.fail(f"make setup would do again: {again.stdout}")


@pytest.mark.parametrize(
    ("arguments", "cupy", "pip"),
    [
        (["setup"], False, True),
        (["demo"], False, True),
        (["bench"], False, True),
        (["test"], True, True),
        (["test-gpu"], True, True),
        (["test-io"], False, True),
        (["gpu-check", "SYSTEM_PYTHON="], True, True),
        (["gpu-check", "SYSTEM_PYTHON=1"], False, False),
        (["gpu-bench", "SYSTEM_PYTHON=1"], False, False),
    ],
)
def test_cupy_is_installed_only_for_what_needs_it(
    arguments: list[str], cupy: bool, pip: bool, tmp_path: Path
):
    recipes = subprocess.run(
        ["make", "-n", f"VENV={tmp_path / 'none'}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    assert ("requirements.py gpu" in recipes) == cupy
    assert ("-m pip install" in recipes) == pip
