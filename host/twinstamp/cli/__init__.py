# SPDX-License-Identifier: Apache-2.0
"""The `twinstamp` command.

argparse, and one module per sub-command that is imported only when it is asked for: with typer and rich
the interpreter would start for longer than `twinstamp dedup` takes for a million frames
(docs/decisions/0004-argparse.md).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from twinstamp import __version__
from twinstamp.cli import streams
from twinstamp.errors import ConfigError, TwinstampError

# command → (module, one line of help)
COMMANDS = {
    "dedup": ("twinstamp.cli.dedup", "remove, tag or count the duplicates of a capture"),
    "analyse": ("twinstamp.cli.analyse", "show a feed's duplicates and the window that removes them"),
    "rules": ("twinstamp.cli.rules", "check rule files, match a capture against them"),
    "balance": ("twinstamp.cli.balance", "share a capture's flows among DPI servers"),
    "run": ("twinstamp.cli.run", "run the appliance that a file describes"),
    "status": ("twinstamp.cli.status", "show the counters of a running appliance"),
    "reload": ("twinstamp.cli.reload", "let a running appliance take over its changed file"),
    "backends": ("twinstamp.cli.backends", "say where frames can be judged on this machine"),
    "owd": ("twinstamp.cli.owd", "report one-way delay of trains; measure through a reflector"),
    "reflect": ("twinstamp.cli.reflect", "answer STAMP test packets (RFC 8762)"),
    "train": ("twinstamp.cli.train", "check, show, send packet trains"),
    "card": ("twinstamp.cli.card", "show, test, calibrate a card; capture from it"),
    "clock": ("twinstamp.cli.clock", "GPS receivers and the clock that follows them"),
    "manual": ("twinstamp.cli.manual", "write man pages; print shell completion"),
}


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The parser, with the options of all commands, or of one."""
    parser = argparse.ArgumentParser(
        prog="twinstamp",
        description="Stamped frames in, duplicates out, flows balanced, nothing unaccounted.",
    )
    parser.add_argument("--version", action="version", version=f"twinstamp {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the trace of an error")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, text) in COMMANDS.items():
        if only is None or only == name:
            import_module(module).register(commands, text)
        else:
            commands.add_parser(name, help=text, add_help=False)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Exit status: 0, 1 for a failure, 2 for bad use, 130 when interrupted."""
    streams.guard()
    arguments = list(sys.argv[1:] if argv is None else argv)
    named = next((word for word in arguments if not word.startswith("-")), None)
    # Without a command only their list is needed: none of them need be imported.
    parser = build_parser(named if named in COMMANDS else "")
    options = parser.parse_args(arguments)
    name = f"twinstamp {options.command}"
    try:
        status = int(options.function(options) or 0)
        streams.finish()
        return status
    except TwinstampError as error:
        if options.debug:
            raise
        streams.say(f"{name}: {error}")
        return 2 if isinstance(error, ConfigError) else 1
    except BrokenPipeError:
        return 1  # whoever read our output has gone
    except OSError as error:
        if options.debug:
            raise
        if error.filename is not None:
            where = os.fsdecode(error.filename)
        else:
            where = "standard output" if streams.stuck() else "standard output or an output file"
        streams.say(f"{name}: {where}: {error.strerror}; make room or give another place, and run it again")
        return 1
    except KeyboardInterrupt:
        streams.say(f"{name}: interrupted")
        return 130
    finally:
        streams.forget()
