# SPDX-License-Identifier: Apache-2.0
"""Packet trains: built, checked, listed, written to files, sent by a card (docs/trains.md)."""

from twinstamp.train.files import load_train, to_json, to_toml, train_from_dict
from twinstamp.train.laws import (
    Chirp,
    Choice,
    Constant,
    Fixed,
    GapLaw,
    GapList,
    Poisson,
    SizeLaw,
    SizeList,
    Uniform,
)
from twinstamp.train.train import Schedule, Train, TrainCheck, Vlan

__all__ = [
    "Chirp",
    "Choice",
    "Constant",
    "Fixed",
    "GapLaw",
    "GapList",
    "Poisson",
    "Schedule",
    "SizeLaw",
    "SizeList",
    "Train",
    "TrainCheck",
    "Uniform",
    "Vlan",
    "load_train",
    "to_json",
    "to_toml",
    "train_from_dict",
]
