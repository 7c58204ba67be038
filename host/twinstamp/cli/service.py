# SPDX-License-Identifier: Apache-2.0
"""Where the commands for a running appliance find its control socket."""

from __future__ import annotations

import stat
from pathlib import Path

from twinstamp.errors import ConfigError

TARGET = {
    "metavar": "APPLIANCE.toml|SOCKET",
    "help": "the appliance's file, which names the socket, or the socket",
}


def socket_of(target: str) -> Path:
    """The control socket itself, or the one that an appliance file names."""
    path = Path(target)
    try:
        if stat.S_ISSOCK(path.stat().st_mode):
            return path
    except OSError as error:
        raise ConfigError(
            f"{target}: cannot be read: {error.strerror}; give the appliance file, or its control socket"
        ) from None
    from twinstamp.toml_table import Table, read_toml

    main = Table("appliance", Table(target, read_toml(path)).take("appliance", dict, {}))
    control: str | None = main.take("control", str)
    if control is None:
        raise ConfigError(
            f'{target}: names no control socket; add control = "twinstamp.sock" to [appliance] and restart it'
        )
    return path.parent / control
