# SPDX-License-Identifier: Apache-2.0
"""Checks that what README.md and docs/ name is there: python tests/docs/check_docs.py [FILE...]

Looks at inline code, code blocks and links of each page, and reports, as FILE:LINE: message,

- a path into the repository, or a relative link, that leads nowhere;
- `make TARGET` without such a target;
- `twinstamp COMMAND --option` where the parser of the command line knows no such command or option.

A page that must name something that is not there yet puts <!-- not built --> on the same line.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
EXEMPT = "<!-- not built -->"
FENCE = re.compile(r"^\s*(```|~~~)")
INLINE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PATH = re.compile(r"(?<![\w./<-])((?:\.ci|[A-Za-z_][\w-]*)/[\w./*-]*|[\w-]+\.(?:md|toml|txt))(?![\w<{…])")
MAKE = re.compile(r"(?:^|[\s;&|(])make((?:\s+[\w<>%=.-]+)+)")
COMMAND = re.compile(r"(?:^|[\s;&|(])(?:\S*/)?twinstamp(?=\s|$)([^|;&#`\n]*)")


def snippets(text: str) -> Iterator[tuple[int, str, bool]]:
    """(line number, code, is it in a block) of every piece of code; a block's continued lines are joined."""
    fenced = False
    pending: tuple[int, str] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if FENCE.match(line):
            fenced = not fenced
            continue
        if EXEMPT in line:
            continue
        if fenced:
            start, before = pending or (number, "")
            if line.endswith("\\"):
                pending = (start, before + line[:-1] + " ")
                continue
            pending = None
            yield start, before + line, True
        else:
            for code in INLINE.findall(line):
                yield number, code, False


def make_targets() -> set[str]:
    """Targets of the Makefile; test-<room> stands for one per folder of tests/."""
    text = (ROOT / "Makefile").read_text()
    targets = {name for line in re.findall(r"^([a-z][\w %-]*):(?!=)", text, re.M) for name in line.split()}
    if "test-%" in targets:
        rooms = [path.name for path in (ROOT / "tests").iterdir() if path.is_dir()]
        targets |= {"test-<room>", *(f"test-{room}" for room in rooms)}
    return targets


def parser_tree(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Sub-commands of a parser by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def check_command(words: list[str], parser: argparse.ArgumentParser) -> str | None:
    """What is wrong with the words after `twinstamp`, or None."""
    name = "twinstamp"
    options = set(parser._option_string_actions)
    for word in words:
        if word.startswith("-") and word != "-":
            option = word.split("=")[0]
            if not re.fullmatch(r"-{1,2}[A-Za-z][\w-]*", option):
                continue
            if option not in options:
                return f"`{name}` has no option {option}"
        elif commands := parser_tree(parser):
            if not re.fullmatch(r"[a-z][a-z-]*", word):
                return None  # a placeholder: COMMAND, …
            if word not in commands:
                return f"`{name}` has no command {word}"
            parser, name = commands[word], f"{name} {word}"
            options |= set(parser._option_string_actions)
    return None


def check_path(path: str, page: Path) -> bool:
    """Whether a path named on a page is in the repository (from its root or from the page's folder)."""
    path = path.rstrip(".")
    if "*" in path:
        return any(any(base.glob(path)) for base in (ROOT, page.parent))
    return any((base / path).exists() for base in (ROOT, page.parent))


def check_page(page: Path, parser: argparse.ArgumentParser | None, targets: set[str]) -> list[str]:
    """Complaints about one page."""
    text = page.read_text()
    where = page.relative_to(ROOT) if page.is_relative_to(ROOT) else page
    complaints = []
    rooms = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"build", "dist"}
    for number, line in enumerate(text.splitlines(), 1):
        if EXEMPT in line:
            continue
        for link in LINK.findall(line):
            target = link.split("#")[0]
            if target and "://" not in target and not (page.parent / target).exists():
                complaints.append(f"{where}:{number}: link to {target} leads nowhere")
    for number, code, block in snippets(text):
        for path in PATH.findall(code):
            # Only what is clearly meant as ours: below one of our folders, or a page or table at the root.
            ours = path.split("/")[0] in rooms and "/" in path
            ours = ours or (not block and path.endswith(".md"))
            if ours and not check_path(path, page):
                complaints.append(f"{where}:{number}: {path} is not in the repository")
        for match in MAKE.findall(code) if block or code.startswith("make ") else ():
            for word in match.split():
                if "=" in word or word.startswith("-"):
                    continue
                if word not in targets:
                    complaints.append(f"{where}:{number}: the Makefile has no target {word}")
        for arguments in COMMAND.findall(code) if block or code.startswith("twinstamp") else ():
            if parser is None:
                continue
            try:
                words = shlex.split(arguments)
            except ValueError:
                words = arguments.split()
            if complaint := check_command([word.strip("[]") for word in words], parser):
                complaints.append(f"{where}:{number}: {complaint}")
    return complaints


def pages() -> list[Path]:
    """README.md, CHANGELOG.md and everything under docs/ but the decisions, which tell of their day."""
    found = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [page for page in found if page.exists() and "decisions" not in page.parts]


def command_parser() -> argparse.ArgumentParser | None:
    """The parser behind `twinstamp`."""
    try:
        from twinstamp.cli import build_parser
    except ImportError:
        return None
    parser: argparse.ArgumentParser = build_parser()
    return parser


def main(arguments: list[str]) -> int:
    parser = command_parser()
    targets = make_targets()
    complaints = [
        complaint
        for page in ([Path(name).resolve() for name in arguments] or pages())
        for complaint in check_page(page, parser, targets)
    ]
    for complaint in complaints:
        print(complaint)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
