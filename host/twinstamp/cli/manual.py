# SPDX-License-Identifier: Apache-2.0
"""`twinstamp manual`: man pages and shell completion, made from the parsers (docs/cli.md)."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

SHELLS = ("bash", "zsh")


def register(commands: Any, text: str) -> None:
    parser = commands.add_parser(
        "manual",
        help=text,
        description="Writes a man page for each command into a folder, or prints the completion of a shell.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--man", metavar="FOLDER", help="write twinstamp.1, twinstamp-dedup.1 … there")
    what.add_argument("--completion", choices=SHELLS, help="print what this shell is to read")
    parser.set_defaults(function=run)


def run(options: argparse.Namespace) -> int:
    from twinstamp.errors import ConfigError

    if options.completion is not None:
        print(completion(options.completion), end="")
        return 0
    folder = Path(options.man)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in man_pages().items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"--man {folder}: cannot be written: {error.strerror}; give another folder"
        ) from error
    return 0


class Parser(NamedTuple):
    """A parser with the words that lead to it: ("twinstamp", "train", "check"), and its line of help."""

    path: tuple[str, ...]
    parser: argparse.ArgumentParser
    text: str


def _verbs(parser: argparse.ArgumentParser) -> dict[str, tuple[argparse.ArgumentParser, str]]:
    """Sub-commands by name, with their lines of help."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            texts = {choice.dest: choice.help or "" for choice in action._choices_actions}
            return {name: (found, texts.get(name, "")) for name, found in action.choices.items()}
    return {}


def parsers() -> list[Parser]:
    """The parser of twinstamp, then those of all its commands and their verbs, in the order of the help."""
    from twinstamp.cli import build_parser

    def walk(path: tuple[str, ...], parser: argparse.ArgumentParser, text: str) -> Iterator[Parser]:
        yield Parser(path, parser, text)
        for name, (verb, line) in _verbs(parser).items():
            yield from walk((*path, name), verb, line)

    return list(walk(("twinstamp",), build_parser(), "stamped frames in, duplicates out, flows balanced"))


# Man pages, as groff_man(7) describes them


def _roff(text: str) -> str:
    """Text that troff prints as it is."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    escaped = re.sub(r"^([.'])", r"\\&\1", escaped, flags=re.MULTILINE)
    return re.sub(r"[^\x00-\x7f]", lambda found: f"\\[u{ord(found[0]):04X}]", escaped)


def _line(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    """An option's help with its default filled in, as argparse's own formatter does."""
    if action.help is None or action.help == argparse.SUPPRESS:
        return ""
    return parser._get_formatter()._expand_help(action)


def _names(action: argparse.Action) -> str:
    """ "-q, --quiet", "--window N", "IN"."""
    if action.choices is not None and action.metavar is None:
        value = "{" + ",".join(map(str, action.choices)) + "}"
    elif isinstance(action.metavar, tuple):
        value = " ".join(action.metavar)
    else:
        value = action.metavar or action.dest.upper()
    if not action.option_strings:
        return value
    names = ", ".join(action.option_strings)
    if action.nargs == 0:
        return names
    return f"{names} [{value}]" if action.nargs == "?" else f"{names} {value}"


def _section(found: Parser) -> list[str]:
    """Synopsis, description, arguments and options of one parser."""
    verb = " ".join(found.path[2:])
    formatter = argparse.HelpFormatter(prog=" ".join(found.path), width=10_000)
    formatter.add_usage(None, found.parser._actions, found.parser._mutually_exclusive_groups, prefix="")
    lines = [f".SH {_roff(verb.upper()) or 'SYNOPSIS'}", _roff(formatter.format_help().strip())]
    if found.parser.description:
        lines += [".PP" if verb else ".SH DESCRIPTION", _roff(found.parser.description)]
    if not verb:
        lines.append(".SH OPTIONS")
    for action in found.parser._actions:
        if not isinstance(action, argparse._SubParsersAction) and action.help != argparse.SUPPRESS:
            lines += [".TP", f".B {_roff(_names(action))}", _roff(_line(action, found.parser)) or "\\&"]
    return lines


def man_pages() -> dict[str, str]:
    """Troff source by file name: twinstamp.1 and one page per command, its verbs in it."""
    from twinstamp import __version__

    every = parsers()
    pages = {}
    for top in (found for found in every if len(found.path) <= 2):
        name = "-".join(top.path)
        lines = [
            f'.TH {_roff(name.upper())} 1 "" "twinstamp {__version__}" "Twinstamp"',
            ".ad l",
            ".nh",
            ".SH NAME",
            f"{_roff(name)} \\- {_roff(top.text)}",
            *_section(top),
        ]
        if len(top.path) == 1:
            lines.append(".SH COMMANDS")
            for found in every:
                if len(found.path) == 2:
                    lines += [".TP", f".BR {_roff('-'.join(found.path))} (1)", _roff(found.text)]
            lines += [
                ".SH EXIT STATUS",
                "0 when all went well, 1 after a failure, 2 after bad use, 130 when interrupted.",
                ".SH ENVIRONMENT",
            ]
            for variable, text in ENVIRONMENT.items():
                lines += [".TP", f".B {variable}", _roff(text)]
        for found in every:
            if len(found.path) > 2 and found.path[:2] == top.path:
                lines += _section(found)
        pages[f"{name}.1"] = "\n".join(lines) + "\n"
    return pages


ENVIRONMENT = {
    "NO_COLOR": "where it is set and not empty, no colours are written (https://no-color.org)",
    "COLUMNS": "width of tables and help, instead of the terminal's",
    "TWINSTAMP_SIM": "library of the simulated card, instead of the one that is built or packed in",
}


# Completion


def completion(shell: str) -> str:
    """A script for bash, or for zsh through its bashcompinit: words after each command, files elsewhere."""
    commands, verbs, words, values = [], [], [], []
    for found in parsers():
        path = " ".join(found.path[1:])
        own = list(_verbs(found.parser))
        if path:
            commands.append(f"'{path}'")
        if own:
            verbs.append(f"        '{path}') words='{' '.join(own)}' ;;")
        named: list[str] = []
        for action in found.parser._actions:
            if action.help != argparse.SUPPRESS:
                named += action.option_strings
            if action.option_strings and action.choices is not None:
                pattern = "|".join(f"'{path} {name}'" for name in action.option_strings)
                values.append(f"        {pattern}) words='{' '.join(map(str, action.choices))}' ;;")
        words.append(f"        '{path}') words='{' '.join(named)}' ;;")
    lines = ["autoload -U +X bashcompinit && bashcompinit"] if shell == "zsh" else []
    lines += [
        f"# Made by: twinstamp manual --completion {shell}",
        "_twinstamp() {",
        "    local path='' word words='' current=${COMP_WORDS[COMP_CWORD]} last=${COMP_WORDS[COMP_CWORD-1]}",
        '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
        '        case "${path:+$path }$word" in',
        f'        {"|".join(commands)}) path="${{path:+$path }}$word" ;;',
        "        esac",
        "    done",
        "    COMPREPLY=()",
        '    case "$path $last" in',
        *values,
        "    *) if [[ $current == -* ]]; then",
        '        case "$path" in',
        *words,
        "        esac",
        "    else",
        '        case "$path" in',
        *verbs,
        "        esac",
        "    fi ;;",
        "    esac",
        '    if [[ -n $words ]]; then COMPREPLY=($(compgen -W "$words" -- "$current")); fi',
        "}",
        "complete -o default -F _twinstamp twinstamp",
    ]
    return "\n".join(lines) + "\n"
