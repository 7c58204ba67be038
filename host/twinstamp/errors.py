# SPDX-License-Identifier: Apache-2.0
"""Every error Twinstamp raises, by who must act on it.

A message says what is wrong, the value with its unit, where (file and byte, frame, line or key) and
the next step.
"""


class TwinstampError(Exception):
    """Root of all errors raised by Twinstamp. errno: of the failed read or write of a capture, else 0."""

    errno = 0


class ConfigError(TwinstampError):
    """An option, a rule or an appliance file is wrong: whoever wrote it must change it."""


class InputError(TwinstampError):
    """A capture, a rule file or a frame source is damaged or not understood."""


class DamagedCaptureError(InputError):
    """A capture is damaged inside. report: of the frames before the damage, which were all processed."""

    def __init__(self, message: str, report: dict[str, object]) -> None:
        super().__init__(message)
        self.report = report


class DeviceError(TwinstampError):
    """An interface, a card or a receiver is missing, refuses, or died."""


class WrongCardError(DeviceError):
    """What answers is no Twinstamp card."""


class CardMapError(DeviceError):
    """The card's register map is older than this driver, or of another major version."""


class DeadCardError(DeviceError):
    """The card does not answer, or no longer."""


class OverloadError(TwinstampError):
    """More came in than a configured limit lets the program hold."""


class StageError(TwinstampError):
    """A stage of the user's own raised an exception: whoever wrote it must mend it."""


class LedgerError(TwinstampError):
    """The ledger does not add up: a fault in Twinstamp itself. Please report it."""
