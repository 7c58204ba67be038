# SPDX-License-Identifier: Apache-2.0
"""Change in service: what of a new appliance file can be taken over, and what needs a restart."""

from __future__ import annotations

from dataclasses import fields

from twinstamp.appliance.config import ApplianceConfig
from twinstamp.errors import ConfigError

# Fields that a reload takes over.
_TAKEN_OVER = {
    "groups",
    "outputs",
    "default",
    "rules_file",
    "rules_format",
    "hash",
    "layer",
    "fragments",
    "path",
}

# Key of the file for each other field.
_KEYS = {
    "sources": "source",
    "card": "card",
    "duplicates": "duplicates",
    "secret_file": "balance.secret_file",
    "stages": "stage",
}


def needs_restart(old: ApplianceConfig, new: ApplianceConfig) -> list[str]:
    """Keys that differ and that a running appliance cannot change."""
    keys = [
        _KEYS.get(field.name, f"appliance.{field.name}")
        for field in fields(ApplianceConfig)
        if field.name not in _TAKEN_OVER and getattr(old, field.name) != getattr(new, field.name)
    ]
    if new.backend != "cpu":
        keys.append("appliance.backend (rules on a GPU)")
    for name, output in new.outputs.items():
        before = old.outputs.get(name)
        if output != before and (output.file is not None or (before is not None and before.file is not None)):
            keys.append(f"server {name} (a file)")
    return keys


def check_reload(old: ApplianceConfig, new: ApplianceConfig) -> None:
    """Raises ConfigError naming all keys that need a restart."""
    keys = needs_restart(old, new)
    if keys:
        raise ConfigError(f"needs a restart: {', '.join(keys)}; nothing is changed")
