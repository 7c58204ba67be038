# SPDX-License-Identifier: Apache-2.0
"""Errors of this package, by who must act. The host's commands show them as its own (DESIGN §6).

A message says what is wrong, the value with its unit, and the next step.
"""


class GpsError(Exception):
    """Root of all errors raised here."""


class SettingError(GpsError):
    """An option, a fault or a position is wrong: whoever wrote it must change it."""


class LogError(GpsError):
    """A clock log is damaged or not understood."""


class ReceiverError(GpsError):
    """A receiver is missing, does not answer, refuses, or died."""
