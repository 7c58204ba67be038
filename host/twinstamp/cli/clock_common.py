# SPDX-License-Identifier: Apache-2.0
"""What the verbs of `twinstamp clock` share."""

from __future__ import annotations

import functools
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from twinstamp.errors import ConfigError, DeviceError, InputError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator


def verb(verbs: Any, name: str, text: str, function: Callable[[argparse.Namespace], int]) -> Any:
    """A verb's parser; errors of twinstamp_gps come out of ``function`` as the host's own."""

    @functools.wraps(function)
    def run(options: argparse.Namespace) -> int:
        from twinstamp_gps.errors import LogError, ReceiverError, SettingError

        try:
            return function(options)
        except SettingError as error:
            raise ConfigError(str(error)) from error
        except LogError as error:
            raise InputError(str(error)) from error
        except ReceiverError as error:
            raise DeviceError(str(error)) from error

    parser = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(function=run)
    return parser


def add_json(parser: Any, text: str = "as JSON, here or on standard output") -> None:
    """--json [REPORT]."""
    parser.add_argument("--json", nargs="?", const="-", metavar="REPORT", help=text)


@contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Calls ``stop`` for SIGINT and SIGTERM, so that what was opened is closed and tidied away."""
    before = {number: signal.signal(number, lambda *_: stop()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
