# SPDX-License-Identifier: Apache-2.0
"""Configuration: messages as pyubx2 reads them, a receiver that takes, refuses, changes or ignores them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pyubx2 import SET, UBXReader
from twinstamp_gps import encode
from twinstamp_gps import messages as m
from twinstamp_gps.configure import (
    MODELS,
    TimingSettings,
    apply,
    describe,
    find,
    model_of,
    plan,
    valget,
    valset,
)
from twinstamp_gps.errors import ReceiverError, SettingError
from twinstamp_gps.port import Receiver
from twinstamp_gps.serve import PtyLine, Runner, TcpLine
from twinstamp_gps.simulated import SimulatedReceiver

from tests.receiver.streams import receiver

PLACE = {
    "latitude_e7": 471_234_567,
    "longitude_e7": -85_000_001,
    "height_mm": -12_345,
    "position_accuracy_mm": 50,
}


def read(model: str, **settings: object) -> dict[str, object]:
    """All attributes of the plan's messages, as pyubx2 reads them."""
    found: dict[str, object] = {}
    for step in plan(model, TimingSettings(**settings)):
        found |= {k: v for k, v in vars(UBXReader.parse(step.frame, msgmode=SET)).items() if k[0] != "_"}
    return found


def test_f9t_in_the_words_of_pyubx2() -> None:
    got = read("f9t", mode="fixed", cable_delay_ns=-5, save=True, **PLACE)
    assert (got["ram"], got["bbr"], got["flash"], got["version"]) == (1, 1, 1, 0)
    expected = {
        "CFG_TP_PERIOD_LOCK_TP1": 1_000_000, "CFG_TP_LEN_LOCK_TP1": 100_000, "CFG_TP_LEN_TP1": 0,
        "CFG_TP_TIMEGRID_TP1": 1, "CFG_TP_ANT_CABLEDELAY": -5, "CFG_TP_ALIGN_TO_TOW_TP1": 1,
        "CFG_RATE_MEAS": 1000,
        "CFG_TMODE_MODE": 2, "CFG_TMODE_LAT": 471_234_567, "CFG_TMODE_LON": -85_000_001,
        "CFG_TMODE_HEIGHT": -1234,
        "CFG_TMODE_HEIGHT_HP": -50, "CFG_TMODE_FIXED_POS_ACC": 500, "CFG_MSGOUT_UBX_TIM_TP_UART1": 1,
        "CFG_MSGOUT_UBX_NAV_SVIN_UART1": 0, "CFG_UART1OUTPROT_NMEA": 0, "CFG_UART1_BAUDRATE": 115_200,
    }  # fmt: skip
    assert {name: got[name] for name in expected} == expected
    survey = read("f9t", survey_s=600, survey_accuracy_mm=1500, port="usb", nmea=True)
    assert (survey["CFG_TMODE_MODE"], survey["CFG_TMODE_SVIN_MIN_DUR"]) == (1, 600)
    assert (survey["CFG_TMODE_SVIN_ACC_LIMIT"], survey["bbr"], survey["flash"]) == (15_000, 0, 0)
    assert (survey["CFG_MSGOUT_NMEA_ID_RMC_USB"], survey["CFG_MSGOUT_NMEA_ID_GSV_USB"]) == (1, 0)
    assert not any("BAUDRATE" in name for name in survey)


def test_m8t_in_the_words_of_pyubx2() -> None:
    steps = plan("m8t", TimingSettings(mode="fixed", cable_delay_ns=30, save=True, **PLACE))
    by_kind = {step.kind: UBXReader.parse(step.frame, msgmode=SET) for step in steps}
    pulse = by_kind[m.CFG_TP5]
    assert (pulse.active, pulse.lockGnssFreq, pulse.lockedOtherSet, pulse.isFreq) == (1, 1, 1, 0)
    assert (pulse.isLength, pulse.alignToTow, pulse.polarity, pulse.gridUtcGnss) == (1, 1, 1, 1)
    assert (pulse.freqPeriodLock, pulse.pulseLenRatio, pulse.pulseLenRatioLock) == (1_000_000, 0, 100_000)
    assert (pulse.antCableDelay, pulse.version, pulse.tpIdx) == (30, 1, 0)
    mode = by_kind[m.CFG_TMODE2]
    assert (mode.timeMode, mode.lla, mode.ecefXOrLat, mode.ecefYOrLon) == (2, 1, 471_234_567, -85_000_001)
    assert (mode.ecefZOrAlt, mode.fixedPosAcc) == (-1234, 50)
    port = by_kind[m.CFG_PRT]
    assert (port.portID, port.baudRate, port.charLen, port.parity, port.nStopBits) == (1, 115_200, 3, 4, 0)
    assert (port.inUBX, port.outUBX, port.outNMEA) == (1, 1, 0)
    survey = {s.kind: s for s in plan("m8t", TimingSettings(survey_s=600, survey_accuracy_mm=1500))}
    mode = UBXReader.parse(survey[m.CFG_TMODE2].frame, msgmode=SET)
    assert (mode.timeMode, mode.svinMinDur, mode.svinAccLimit) == (1, 600, 1500)
    assert m.CFG_CFG not in survey


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("mode", ["survey", "fixed", "moving"])
def test_dry_run_shows_every_byte_in_hex_and_words(model: str, mode: str) -> None:
    steps = plan(model, TimingSettings(mode=mode, save=True, nmea=True, **PLACE))
    text = "\n".join(describe(steps))
    for step in steps:
        assert step.frame.hex(" ").upper() in text
        assert all(line in text for line in step.words)
    assert len(steps) < 30


@contextmanager
def on_a_line(simulated: SimulatedReceiver, line: PtyLine | TcpLine | None = None) -> Iterator[str]:
    line = line or PtyLine()
    with Runner(simulated, line):
        yield line.address


@pytest.mark.parametrize("model", MODELS)
def test_configures_a_receiver_with_factory_settings(model: str) -> None:
    simulated = receiver(model, configured=False)
    with on_a_line(simulated) as address:
        port, version = find(address)
        with port:
            assert model_of(version) == model
            apply(port, plan(model, TimingSettings(mode="fixed", save=True, **PLACE)), baud=115_200)
            names = {type(a.message).__name__ for a in port.messages(1.3)}
            assert port.baud == 115_200
    assert {"NavPvt", "TimTp", "NavTimeLs", "NavTimeGps"} <= names
    assert not names & {"Rmc", "Gga"}
    wanted = receiver(model, settings=TimingSettings(mode="fixed", save=True, **PLACE))
    assert simulated._effect() == wanted._effect()


def test_over_tcp() -> None:
    with on_a_line(receiver("f9t"), TcpLine()) as address:
        port, version = find(address)
        with port:
            assert version.module == "ZED-F9T"
            assert any(isinstance(a.message, m.TimTp) for a in port.messages(1.2))


class Stubborn(SimulatedReceiver):
    """Answers some messages otherwise than it should."""

    def __init__(self, model: str, kind: tuple[int, int], how: str) -> None:
        super().__init__(model, receiver()._noise, configured=False)
        self.kind, self.how = kind, how

    def _answer(self, kind: tuple[int, int], payload: bytes) -> bytes:
        if kind != self.kind or getattr(self, "how", "") == "":
            return super()._answer(kind, payload)
        if self.how == "refuses":
            return encode.ack(kind, accepted=False)
        if self.how == "ignores":
            return b""
        if self.how == "forgets":  # says ACK, does nothing
            return encode.ack(kind, accepted=True) if len(payload) > 3 else super()._answer(kind, payload)
        good = super()._answer(kind, payload)
        return b"\xb5\x62\x05\x01\x02\x00\x06" + good  # noise that begins like an answer


@pytest.mark.parametrize(
    ("model", "kind", "how", "message"),
    [
        ("f9t", m.CFG_VALSET, "refuses", "refused UBX-CFG-VALSET .pulse of 1 Hz"),
        ("f9t", m.CFG_VALSET, "ignores", "no answer to UBX-CFG-VALSET"),
        ("f9t", m.CFG_VALSET, "forgets", "reads back another value"),
        ("m8t", m.CFG_TMODE2, "refuses", "refused UBX-CFG-TMODE2 .survey-in"),
        ("m8t", m.CFG_TP5, "forgets", "reads back another value"),
    ],
)
def test_receivers_that_do_not_obey(model: str, kind: tuple[int, int], how: str, message: str) -> None:
    with on_a_line(Stubborn(model, kind, how)) as address:
        port, _ = find(address)
        with port, pytest.raises(ReceiverError, match=message):
            apply(port, plan(model, TimingSettings()), baud=115_200, timeout_s=0.4)


def test_noise_among_the_answers() -> None:
    with on_a_line(Stubborn("f9t", m.CFG_VALSET, "noisy")) as address:
        port, _ = find(address)
        with port:
            apply(port, plan("f9t", TimingSettings()), baud=115_200, timeout_s=0.6)


def test_nobody_answers() -> None:
    with (
        on_a_line(receiver("nmea")) as address,
        pytest.raises(ReceiverError, match="no answer to UBX-MON-VER"),
    ):
        find(address, [9600])


@pytest.mark.parametrize(
    "address", ["/dev/no-such-receiver", "socket://127.0.0.1:1", "nonsense://x", "socket://", "rfc2217://"]
)
def test_ports_that_cannot_be_opened(address: str) -> None:
    with pytest.raises(ReceiverError, match="cannot be opened"):
        Receiver(address)


def test_receiver_that_goes_away() -> None:
    line = TcpLine()
    with Runner(receiver("f9t"), line):
        port = Receiver(line.address)
        assert list(port.messages(1.2))
    with port, pytest.raises(ReceiverError, match="gone"):
        list(port.messages(2))
    line2 = PtyLine()
    port = Receiver(line2.address)
    line2.close()
    with port, pytest.raises(ReceiverError, match="gone"):
        list(port.messages(2))


def test_unknown_items_are_refused() -> None:
    simulated = receiver("f9t")
    nak, ack = encode.ack(m.CFG_VALSET, accepted=False), encode.ack(m.CFG_VALSET, accepted=True)
    good = valset([("CFG_TP_USER_DELAY_TP1", 7)], layers=1)
    assert simulated.command(good) == ack
    assert simulated.command(valget(["CFG_TP_USER_DELAY_TP1"])).startswith(
        encode.ubx(m.CFG_VALGET, b"\1\0\0\0" + bytes.fromhex("06000540 07000000"))
    )
    for payload in (
        good[6:-2] + b"\1\2",  # cut
        bytes((0, 1, 0, 0)) + bytes.fromhex("34120040 00000000"),  # no such key
        bytes((0, 0, 0, 0)) + good[10:-2],  # no layer
        valset([("CFG_TP_PERIOD_LOCK_TP1", 500_000)], layers=1)[6:-2],  # not simulated
    ):
        assert simulated.command(encode.ubx(m.CFG_VALSET, payload)) == nak
    assert simulated.command(encode.ubx(m.CFG_TP5)) == encode.ack(m.CFG_TP5, accepted=False)
    assert receiver("m8t").command(good) == nak


@pytest.mark.parametrize("options", [
    {"mode": "orbit"}, {"survey_s": 0}, {"latitude_e7": 900_000_001}, {"cable_delay_ns": 40_000},
    {"baud": 300},
    {"pulse_us": 1_000_000}, {"port": "spi"}, {"height_mm": 10**9},
])  # fmt: skip
def test_settings_that_cannot_be(options: dict[str, object]) -> None:
    with pytest.raises(SettingError):
        TimingSettings(**options)


def test_models_without_a_plan() -> None:
    with pytest.raises(SettingError, match="f9t and m8t"):
        plan("m10", TimingSettings())
    other = m.Version(
        software="x", hardware="y", extensions=("FWVER=SPG 5.10",), module="MAX-M10S", protocol="34"
    )
    assert model_of(other) is None
