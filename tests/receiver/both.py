# SPDX-License-Identifier: Apache-2.0
"""The host's parser and the firmware's on the same bytes: what they say and what they count."""

from __future__ import annotations

from twinstamp_gps import messages as m
from twinstamp_gps import naming
from twinstamp_gps.stream import REASONS, StreamSplitter

from tests.firmware.driver import Driver

READ = (m.NAV_PVT, m.TIM_TP, m.NAV_TIMELS, m.NAV_TIMEGPS)  # UBX that the firmware reads
QERR_PS = 1_000_000  # beyond this qErr is none


def host_says(message: m.Message, reason: str, timels: bool) -> str | None:
    """In the driver's words."""
    if isinstance(message, m.NavPvt):
        utc, resolved = message.utc, message.valid_date and message.valid_time and message.fully_resolved
        return (
            "PVT {}-{:02}-{:02}T{:02}:{:02}:{:02}".format(*utc)
            + f" tow {message.tow_ms} tAcc {message.time_accuracy_ns} "
            f"resolved {int(resolved and not message.off_second)} fixed {int(message.fixed)}"
        )
    if isinstance(message, m.TimTp) and message.second is not None:
        week, second = message.second
        qerr_valid = message.qerr_valid and abs(message.qerr_ps) < QERR_PS
        return (
            f"TP week {week % 65_536} tow {second} qErr {message.qerr_ps} gps {int(message.gps_base)} "
            f"utc {int(message.utc_base)} qerr_valid {int(qerr_valid)}"
        )
    if isinstance(message, m.NavTimeLs):
        event = f"change {message.change_s} in {message.time_to_event_s}"
        return f"LEAP {message.leap_s} {event} known {int(message.known)}"
    if isinstance(message, m.NavTimeGps) and message.leap_valid and not timels:
        return f"LEAP {message.leap_s} change 0 in 0 known 1"
    if isinstance(message, m.Rmc | m.Zda) and not reason:
        assert message.utc is not None
        return "UTC {}-{:02}-{:02}T{:02}:{:02}:{:02}".format(*message.utc)
    return None


class Host:
    def __init__(self) -> None:
        self.splitter, self.judge = StreamSplitter(), naming.Judge()
        self._timels = False
        self._not_read = dict.fromkeys(REASONS, 0)

    def take(self, data: bytes | None) -> list[str]:
        """None: silence."""
        frames = self.splitter.give_up() if data is None else self.splitter.feed(data)
        said = []
        for frame in frames:
            message = m.decode(frame)
            reason = self.judge.judge(message)
            if frame.kind == "ubx" and (frame.data[2], frame.data[3]) not in READ and reason:
                self._not_read[reason] += 1  # the host reads more kinds
            text = host_says(message, reason, self._timels)
            self._timels |= isinstance(message, m.NavTimeLs)
            if text is not None:
                said.append(text)
        return said

    @property
    def counted(self) -> dict[str, int]:
        counts = self.splitter.counts
        found = {"ubx": counts.ubx, "nmea": counts.nmea, "rtcm": counts.rtcm, "skipped": counts.skipped_bytes}
        for reason in REASONS:
            found[reason] = counts.refused[reason] + self.judge.refused[reason] - self._not_read[reason]
        return {name: count for name, count in found.items() if count}


def both(driver: Driver, chunks: list[bytes | None]) -> tuple[list[str], dict[str, int]]:
    """What they say and count; None is silence, as there is at the end. Compared where the firmware had room
    for all starts, and for their counts; else it must not have said more than the host.
    """
    host = Host()
    driver.restart()
    host_said: list[str] = []
    driver_said: list[str] = []
    for chunk in [*chunks, None]:
        host_said += host.take(chunk)
        driver_said += driver.silence() if chunk is None else driver.take(chunk)
    counted = driver.counted
    if "no_room" in counted:
        rest = iter(host_said)
        assert all(text in rest for text in driver_said), "not what the host says"
        return driver_said, counted
    assert driver_said == host_said
    if driver.deepest <= 4:  # RECEIVER_TALLIES
        assert counted == host.counted
    return driver_said, counted
