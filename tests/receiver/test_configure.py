# SPDX-License-Identifier: Apache-2.0
"""Configuration: messages as pyubx2 reads them, a receiver that takes, refuses, changes or ignores them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from pyubx2 import POLL, SET, UBX_MSGIDS, UBXMessage, UBXReader
from twinstamp_gps import encode
from twinstamp_gps import messages as m
from twinstamp_gps.configure import (
    MODELS,
    Step,
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
from twinstamp_gps.faults import parse_fault
from twinstamp_gps.port import Receiver
from twinstamp_gps.serve import PtyLine, Runner, TcpLine
from twinstamp_gps.simulated import FS, SimulatedReceiver
from twinstamp_gps.stream import StreamSplitter

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
    assert survey["CFG_NAVSPG_DYNMODEL"] == 2
    assert read("f9t", mode="moving")["CFG_NAVSPG_DYNMODEL"] == 0


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
    navigation = by_kind[m.CFG_NAV5]
    assert (navigation.dynModel, navigation.dyn) == (2, 1)
    others = ("minEl", "posFixMode", "drLim", "posMask", "timeMask", "staticHoldMask", "dgpsMask", "utc")
    assert not any(getattr(navigation, name) for name in (*others, "cnoThreshold"))  # are left as they are
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


def made(identity: str, **fields: int) -> bytes:
    return bytes(UBXMessage("CFG", identity, SET, **fields).serialize())


NMEA_NUMBERS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 15)  # of class F0: GGA to VLW


def set_otherwise(simulated: SimulatedReceiver) -> None:
    """As somebody may have left it: everything else than a clock needs, by messages of pyubx2's."""
    if simulated.model == "f9t":
        wrong = {
            "CFG_TP_LEN_TP1": 50_000, "CFG_TP_LEN_LOCK_TP1": 7, "CFG_TP_SYNC_GNSS_TP1": 0,
            "CFG_TP_USE_LOCKED_TP1": 0, "CFG_TP_ALIGN_TO_TOW_TP1": 0, "CFG_TP_POL_TP1": 0,
            "CFG_TP_TIMEGRID_TP1": 0, "CFG_TP_ANT_CABLEDELAY": 77, "CFG_TP_USER_DELAY_TP1": -5,
            "CFG_TP_TP1_ENA": 0, "CFG_RATE_TIMEREF": 0, "CFG_NAVSPG_DYNMODEL": 8, "CFG_TMODE_MODE": 2,
            "CFG_TMODE_POS_TYPE": 0, "CFG_TMODE_LAT_HP": 9,
            "CFG_TMODE_LON_HP": 9, "CFG_TMODE_HEIGHT_HP": 9, "CFG_UART1OUTPROT_NMEA": 1,
        }  # fmt: skip
        wrong |= {f"CFG_MSGOUT_UBX_{name}_UART1": 3 for name in ("NAV_SVIN", "NAV_PVT", "TIM_TP", "NAV_SAT")}
        wrong |= {f"CFG_MSGOUT_NMEA_ID_{name}_UART1": 1 for name in ("GNS", "GST", "DTM", "GGA")}
        frames = [
            bytes(UBXMessage.config_set(1, 0, [(name, value)]).serialize()) for name, value in wrong.items()
        ]
    else:
        frames = [
            made("CFG-TP5", tpIdx=0, version=1, antCableDelay=77, freqPeriod=1_000_000,
                 freqPeriodLock=1_000_000, pulseLenRatio=50_000, pulseLenRatioLock=7,
                 userConfigDelay=-5, isLength=1),
            made("CFG-RATE", measRate=1000, navRate=1, timeRef=0),
            made("CFG-NAV5", dyn=1, minEl=1, staticHoldMask=1, dynModel=8, minElev=17, staticHoldThresh=30),
            made("CFG-TMODE2", timeMode=2, lla=0, fixedPosAcc=9),
            *(made("CFG-MSG", msgClass=kind[0], msgID=kind[1], rateUART1=3)
              for kind in (m.TIM_SVIN, m.NAV_PVT, m.TIM_TP, m.NAV_SAT, m.NAV_TIMELS, m.NAV_TIMEGPS,
                           *((0xF0, number) for number in NMEA_NUMBERS))),
        ]  # fmt: skip
    for frame in frames:
        assert simulated.command(frame) == encode.ack((0x06, frame[3]), accepted=True), frame.hex()


def told(simulated: SimulatedReceiver, identity: str, payload: bytes = b"") -> Any:
    """The receiver's own answer to a poll, as pyubx2 reads it."""
    poll = (
        UBXMessage("CFG", identity, POLL, payload=payload) if payload else UBXMessage("CFG", identity, POLL)
    )
    answer = simulated.command(bytes(poll.serialize()))
    return UBXReader.parse(answer[: 8 + int.from_bytes(answer[4:6], "little")])


def f9t_told(simulated: SimulatedReceiver, *names: str) -> dict[str, int]:
    answer = simulated.command(bytes(UBXMessage.config_poll(0, 0, list(names)).serialize()))
    read = UBXReader.parse(answer[: 8 + int.from_bytes(answer[4:6], "little")])
    return {name: getattr(read, name) for name in names}


RATES = {"TIM-TP": 1, "NAV-PVT": 1, "NAV-TIMELS": 1, "NAV-TIMEGPS": 1, "NAV-SAT": 5}  # docs/receiver.md


@pytest.mark.parametrize(("mode", "dynamic_model"), [("fixed", 2), ("survey", 2), ("moving", 0)])
@pytest.mark.parametrize("nmea", [False, True])
@pytest.mark.parametrize("factory", [False, True])
def test_m8t_holds_what_is_promised(mode: str, dynamic_model: int, nmea: bool, factory: bool) -> None:
    """Asked by polls of pyubx2, not by the plan; also where somebody had set everything otherwise."""
    simulated = receiver("m8t", configured=False)
    if not factory:
        set_otherwise(simulated)
    settings = TimingSettings(mode=mode, nmea=nmea, survey_s=600, **PLACE)
    for step in plan("m8t", settings):
        simulated.command(step.frame)
    navigation = told(simulated, "CFG-NAV5")
    assert navigation.dynModel == dynamic_model
    # What nobody asked for is left.
    assert (navigation.minElev, navigation.staticHoldThresh) == ((5, 0) if factory else (17, 30))
    pulse = told(simulated, "CFG-TP5")
    assert (pulse.active, pulse.lockGnssFreq, pulse.lockedOtherSet, pulse.isFreq, pulse.isLength) == (
        1,
        1,
        1,
        0,
        1,
    )
    assert (pulse.alignToTow, pulse.polarity, pulse.gridUtcGnss) == (1, 1, 1)
    assert (pulse.pulseLenRatio, pulse.pulseLenRatioLock) == (0, 100_000)
    assert (pulse.antCableDelay, pulse.userConfigDelay) == (0, 0)
    rate = told(simulated, "CFG-RATE")
    assert (rate.measRate, rate.navRate, rate.timeRef) == (1000, 1, 1)
    time_mode = told(simulated, "CFG-TMODE2")
    assert time_mode.timeMode == {"fixed": 2, "survey": 1, "moving": 0}[mode]
    if mode == "fixed":
        assert (time_mode.lla, time_mode.ecefXOrLat, time_mode.ecefYOrLon) == (1, 471_234_567, -85_000_001)
    if mode == "survey":
        assert (time_mode.svinMinDur, time_mode.svinAccLimit) == (600, 2000)
    for kind, number in UBX_MSGIDS_BACK.items():
        if kind in RATES or kind == "TIM-SVIN":
            expected = RATES.get(kind, int(mode == "survey"))
            assert told(simulated, "CFG-MSG", number).rateUART1 == expected, kind
    for number in NMEA_NUMBERS:
        wanted = nmea and number in (0, 4, 8)  # GGA, RMC, ZDA
        assert told(simulated, "CFG-MSG", bytes((0xF0, number))).rateUART1 == wanted, number
    port = told(simulated, "CFG-PRT", b"\1")
    assert (port.baudRate, port.outUBX, port.outNMEA, port.inUBX) == (115_200, 1, int(nmea), 1)


UBX_MSGIDS_BACK = {name: number for number, name in UBX_MSGIDS.items() if len(number) == 2}


@pytest.mark.parametrize(("mode", "dynamic_model"), [("fixed", 2), ("survey", 2), ("moving", 0)])
@pytest.mark.parametrize("nmea", [False, True])
def test_f9t_holds_what_is_promised(mode: str, dynamic_model: int, nmea: bool) -> None:
    simulated = receiver("f9t", configured=False)
    set_otherwise(simulated)
    for step in plan("f9t", TimingSettings(mode=mode, nmea=nmea, survey_s=600, **PLACE)):
        simulated.command(step.frame)
    expected = {
        "CFG_TP_LEN_TP1": 0, "CFG_TP_LEN_LOCK_TP1": 100_000, "CFG_TP_SYNC_GNSS_TP1": 1,
        "CFG_TP_USE_LOCKED_TP1": 1, "CFG_TP_ALIGN_TO_TOW_TP1": 1, "CFG_TP_POL_TP1": 1,
        "CFG_TP_TIMEGRID_TP1": 1, "CFG_TP_ANT_CABLEDELAY": 0,
        "CFG_TP_USER_DELAY_TP1": 0, "CFG_TP_TP1_ENA": 1, "CFG_RATE_MEAS": 1000, "CFG_RATE_NAV": 1,
        "CFG_RATE_TIMEREF": 1, "CFG_NAVSPG_DYNMODEL": dynamic_model,
        "CFG_TMODE_MODE": {"fixed": 2, "survey": 1, "moving": 0}[mode],
        "CFG_UART1OUTPROT_UBX": 1, "CFG_UART1OUTPROT_NMEA": int(nmea), "CFG_UART1_BAUDRATE": 115_200,
        "CFG_MSGOUT_UBX_NAV_SVIN_UART1": int(mode == "survey"),
        **{f"CFG_MSGOUT_UBX_{kind.replace('-', '_')}_UART1": rate for kind, rate in RATES.items()},
        **{f"CFG_MSGOUT_NMEA_ID_{name}_UART1": int(nmea) for name in ("RMC", "ZDA", "GGA")},
        **{f"CFG_MSGOUT_NMEA_ID_{name}_UART1": 0
           for name in ("DTM", "GBS", "GLL", "GNS", "GRS", "GSA", "GST", "GSV", "VLW", "VTG")},
    }  # fmt: skip
    if mode == "fixed":
        expected |= {
            "CFG_TMODE_POS_TYPE": 1, "CFG_TMODE_LAT": 471_234_567, "CFG_TMODE_LAT_HP": 0,
            "CFG_TMODE_LON": -85_000_001, "CFG_TMODE_LON_HP": 0, "CFG_TMODE_HEIGHT": -1234,
            "CFG_TMODE_HEIGHT_HP": -50,
            "CFG_TMODE_FIXED_POS_ACC": 500,
        }  # fmt: skip
    if mode == "survey":
        expected |= {"CFG_TMODE_SVIN_MIN_DUR": 600, "CFG_TMODE_SVIN_ACC_LIMIT": 20_000}
    assert f9t_told(simulated, *expected) == expected


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("mode", ["survey", "fixed", "moving"])
def test_each_message_is_missed(model: str, mode: str) -> None:
    """The simulated receiver's own idea of what is promised differs when any one is not sent."""
    settings = TimingSettings(mode=mode, save=True, nmea=True, survey_s=600, **PLACE)

    def held(steps: Sequence[Step] | None) -> list[object]:
        """Now, and when power comes back. None: as promised."""
        simulated = receiver(model, configured=False)
        set_otherwise(simulated)
        if steps is None:
            assert simulated._settings is not None
            simulated._settings.settle(settings)
        for step in steps or ():
            simulated.command(step.frame)
        now = simulated._effect()
        simulated.power_cycle()
        return [now, simulated._effect()]

    steps = plan(model, settings)
    wanted = held(None)
    assert held(steps) == wanted
    for k, step in enumerate(steps):
        assert held(steps[:k] + steps[k + 1 :]) != wanted, step.words


@pytest.mark.parametrize("model", MODELS)
def test_what_is_kept_and_what_is_not(model: str) -> None:
    for save in (False, True):
        simulated = receiver(model, configured=False)
        factory = simulated._effect()
        for step in plan(model, TimingSettings(save=save)):
            simulated.command(step.frame)
        configured = simulated._effect()
        simulated.power_cycle()
        assert simulated._effect() == (configured if save else factory) and configured != factory


@pytest.mark.parametrize("model", MODELS)
def test_pulses_and_messages_of_a_configured_receiver(model: str) -> None:
    """No pulse without GNSS time, each on the second of GPS with its TIM-TP."""
    simulated = receiver(model, configured=False, faults=[parse_fault("outage@12+3")])
    set_otherwise(simulated)
    before = list(simulated.seconds(2))
    assert all(edge.rise_fs % FS > FS // 10 for second in before for edge in second.edges)
    for step in plan(model, TimingSettings(mode="fixed", **PLACE)):
        simulated.command(step.frame)
    splitter = StreamSplitter()
    names: dict[str, int] = {}
    for second in simulated.seconds(18):
        assert len(second.edges) == (0 if 12 <= second.second < 15 else 1)
        for edge in second.edges:
            assert abs(edge.rise_fs - second.second * FS) < 20 * 10**6
            assert edge.fall_fs - edge.rise_fs == FS // 10
        for frame in (frame for one in second.transmissions for frame in splitter.feed(one.data)):
            message = m.decode(frame)
            names[type(message).__name__] = names.get(type(message).__name__, 0) + 1
            if isinstance(message, m.TimTp):
                assert message.tai_s == second.tai_s + 1 and not message.utc_base
            if isinstance(message, m.NavPvt):
                assert (message.latitude_e7, message.longitude_e7) == (471_234_567, -85_000_001)
    assert names == {"NavPvt": 18, "TimTp": 18, "NavTimeLs": 18, "NavTimeGps": 18, "NavSat": 3}


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
