# SPDX-License-Identifier: Apache-2.0
"""Twinstamp: stamped frames in, duplicates out, flows balanced, nothing unaccounted.

The front door: what most programs need, by name (docs/python.md). Each name is imported when it is first
used, so that ``import twinstamp`` takes no time.
"""

__version__ = "0.1.0"

TYPE_CHECKING = False  # as typing's, without importing it: that costs 5 ms
if TYPE_CHECKING:
    from twinstamp.analyse import analyse as analyse_capture
    from twinstamp.appliance import Appliance, ApplianceConfig, Clean, Stage, load_appliance, parse_appliance
    from twinstamp.balance import Classifier, Group, Secret, Server
    from twinstamp.card import Card, open_any_card, open_card
    from twinstamp.card.linux import LinuxCard
    from twinstamp.dedup import Deduplicator, dedup_capture
    from twinstamp.errors import ConfigError, DeviceError, InputError, TwinstampError
    from twinstamp.frames import FrameBatch
    from twinstamp.io.files import create_capture, open_capture
    from twinstamp.io.live import LiveOutput, LiveSource
    from twinstamp.match import balance_capture, match_capture
    from twinstamp.owd import Report, report_captures
    from twinstamp.rules import Prefix, Rule, RuleSet, read_rules
    from twinstamp.train import Chirp, Choice, Constant, Fixed, Poisson, Train, Uniform, load_train
    from twinstamp.units import format_ns, parse_time_ns

__all__ = [
    "Appliance",
    "ApplianceConfig",
    "Card",
    "Chirp",
    "Choice",
    "Classifier",
    "Clean",
    "ConfigError",
    "Constant",
    "Deduplicator",
    "DeviceError",
    "Fixed",
    "FrameBatch",
    "Group",
    "InputError",
    "LinuxCard",
    "LiveOutput",
    "LiveSource",
    "Poisson",
    "Prefix",
    "Report",
    "Rule",
    "RuleSet",
    "Secret",
    "Server",
    "Stage",
    "Train",
    "TwinstampError",
    "Uniform",
    "analyse_capture",
    "balance_capture",
    "create_capture",
    "dedup_capture",
    "format_ns",
    "load_appliance",
    "load_train",
    "match_capture",
    "open_any_card",
    "open_capture",
    "open_card",
    "parse_appliance",
    "parse_time_ns",
    "read_rules",
    "report_captures",
]

# module -> its names here
_WHERE = {
    "twinstamp.appliance": (
        "Appliance", "ApplianceConfig", "Clean", "Stage", "load_appliance", "parse_appliance",
    ),
    "twinstamp.balance": ("Classifier", "Group", "Secret", "Server"),
    "twinstamp.card": ("Card", "open_any_card", "open_card"),
    "twinstamp.card.linux": ("LinuxCard",),
    "twinstamp.dedup": ("Deduplicator", "dedup_capture"),
    "twinstamp.errors": ("ConfigError", "DeviceError", "InputError", "TwinstampError"),
    "twinstamp.frames": ("FrameBatch",),
    "twinstamp.io.files": ("create_capture", "open_capture"),
    "twinstamp.io.live": ("LiveOutput", "LiveSource"),
    "twinstamp.match": ("balance_capture", "match_capture"),
    "twinstamp.owd": ("Report", "report_captures"),
    "twinstamp.rules": ("Prefix", "Rule", "RuleSet", "read_rules"),
    "twinstamp.train": ("Chirp", "Choice", "Constant", "Fixed", "Poisson", "Train", "Uniform", "load_train"),
    "twinstamp.units": ("format_ns", "parse_time_ns"),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}
_MODULE_OF["analyse_capture"] = "twinstamp.analyse"


def __getattr__(name: str) -> object:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(module), "analyse" if name == "analyse_capture" else name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
