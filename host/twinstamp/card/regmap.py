# SPDX-License-Identifier: Apache-2.0
"""The card's registers, made by `make regs` from hdl/regs/twinstamp_card.rdl: do not edit."""

from __future__ import annotations

from typing import NamedTuple


class Field(NamedTuple):
    """low: lowest bit. width: bits. readable, writable: by software."""

    low: int
    width: int
    readable: bool
    writable: bool


class Register(NamedTuple):
    """offset: byte address. width: 32 or 64 bits (lower word first). fields: by name. reset: what the fields
    that software writes hold after reset, 0 in the others.
    """

    offset: int
    width: int
    fields: dict[str, Field]
    reset: int


MAGIC = 0x54574E53
MAP_MAJOR = 1
MAP_MINOR = 3

# fmt: off
REGISTERS: dict[str, Register] = {
    "id.magic": Register(0x0000, 32, {"value": Field(0, 32, True, False)}, 0x0),
    "id.version": Register(0x0004, 32, {"minor": Field(0, 16, True, False), "major": Field(16, 16, True, False)}, 0x0),
    "id.build": Register(0x0008, 32, {"value": Field(0, 32, True, False)}, 0x0),
    "id.features": Register(0x000C, 32, {"flow_hash": Field(0, 1, True, False), "digest": Field(1, 1, True, False), "transmit": Field(2, 1, True, False), "simulated": Field(3, 1, True, False), "phy": Field(4, 1, True, False), "loopback": Field(5, 1, True, False)}, 0x0),
    "id.size": Register(0x0010, 32, {"ports": Field(0, 8, True, False), "counters": Field(8, 8, True, False), "store_log2": Field(16, 8, True, False)}, 0x0),
    "id.core_clock": Register(0x0014, 32, {"hz": Field(0, 32, True, False)}, 0x0),
    "id.scratch": Register(0x0018, 32, {"value": Field(0, 32, True, True)}, 0x0),
    "clock.now": Register(0x0100, 64, {"q32": Field(0, 64, True, False)}, 0x0),
    "clock.increment": Register(0x0108, 64, {"q72": Field(0, 48, True, True)}, 0x225C17D04DAD),
    "clock.slew_amount": Register(0x0110, 64, {"q64": Field(0, 64, True, True)}, 0x0),
    "clock.slew_step": Register(0x0118, 64, {"q64": Field(0, 36, True, True)}, 0x24076),
    "clock.slew_left": Register(0x0120, 64, {"q64": Field(0, 64, True, False)}, 0x0),
    "clock.load_time": Register(0x0128, 64, {"q32": Field(0, 64, True, True)}, 0x0),
    "clock.control": Register(0x0130, 32, {"load": Field(0, 1, False, True), "locked": Field(1, 1, True, True)}, 0x0),
    "clock.status": Register(0x0134, 32, {"load_refused": Field(0, 1, True, True), "increment_refused": Field(1, 1, True, True), "slewing": Field(2, 1, True, False)}, 0x0),
    "clock.epoch": Register(0x0138, 32, {"value": Field(0, 32, True, False)}, 0x0),
    "clock.bound": Register(0x013C, 32, {"ns": Field(0, 32, True, True)}, 0xFFFFFFFF),
    "clock.utc_offset": Register(0x0140, 32, {"s": Field(0, 16, True, True)}, 0x25),
    "ring.base": Register(0x0200, 64, {"address": Field(0, 64, True, True)}, 0x0),
    "ring.shape": Register(0x0208, 32, {"size_log2": Field(0, 5, True, True), "count_log2": Field(5, 4, True, True)}, 0xD0),
    "ring.timeout": Register(0x020C, 32, {"cycles": Field(0, 32, True, True)}, 0x1E848),
    "ring.control": Register(0x0210, 32, {"enable": Field(0, 1, True, True), "flush": Field(1, 1, False, True)}, 0x0),
    "ring.status": Register(0x0214, 32, {"error": Field(0, 1, True, False), "idle": Field(1, 1, True, False), "bad_shape": Field(2, 1, True, False)}, 0x0),
    "ring.producer": Register(0x0218, 32, {"index": Field(0, 32, True, False)}, 0x0),
    "ring.consumer": Register(0x021C, 32, {"index": Field(0, 32, True, True)}, 0x0),
    "counters.control": Register(0x0300, 32, {"latch": Field(0, 1, False, True)}, 0x0),
    "counters.status": Register(0x0304, 32, {"busy": Field(0, 1, True, False)}, 0x0),
    "counters.at": Register(0x0308, 64, {"q32": Field(0, 64, True, False)}, 0x0),
    "port[0].rx_control": Register(0x1000, 32, {"enable": Field(0, 1, True, True), "stamp_first_byte": Field(1, 1, True, True), "keep_bad": Field(2, 1, True, True), "keep_runt": Field(3, 1, True, True), "keep_giant": Field(4, 1, True, True)}, 0x0),
    "port[0].rx_limit": Register(0x1004, 32, {"bytes": Field(0, 14, True, True)}, 0x233A),
    "port[0].rx_constant": Register(0x1008, 32, {"q32": Field(0, 32, True, False)}, 0x0),
    "port[0].rx_status": Register(0x100C, 32, {"overflow": Field(0, 1, True, False)}, 0x0),
    "port[0].tx_base": Register(0x1010, 64, {"address": Field(0, 64, True, True)}, 0x0),
    "port[0].tx_control": Register(0x1018, 32, {"enable": Field(0, 1, True, True), "size_log2": Field(4, 5, True, True)}, 0xD0),
    "port[0].tx_producer": Register(0x101C, 32, {"index": Field(0, 32, True, True)}, 0x0),
    "port[0].tx_consumer": Register(0x1020, 32, {"index": Field(0, 32, True, False)}, 0x0),
    "port[0].tx_status": Register(0x1024, 32, {"error": Field(0, 1, True, False), "bad_shape": Field(1, 1, True, False)}, 0x0),
    "port[0].tx_lost": Register(0x1028, 32, {"count": Field(0, 32, True, False)}, 0x0),
    "port[0].loopback": Register(0x102C, 32, {"near": Field(0, 1, True, True), "far": Field(1, 1, True, True)}, 0x0),
    "port[0].phy.control": Register(0x1040, 32, {"address": Field(0, 5, True, True)}, 0x1),
    "port[0].phy.poll": Register(0x1044, 32, {"cycles": Field(0, 32, True, True)}, 0x1E848),
    "port[0].phy.status": Register(0x1048, 32, {"link": Field(0, 1, True, False), "answers": Field(1, 1, True, False), "full_duplex": Field(2, 1, True, False), "speed": Field(4, 2, True, False)}, 0x0),
    "port[0].phy.epochs": Register(0x104C, 32, {"count": Field(0, 32, True, False)}, 0x0),
    "port[0].phy.command": Register(0x1050, 32, {"data": Field(0, 16, True, True), "register": Field(16, 5, True, True), "address": Field(21, 5, True, True), "write": Field(31, 1, True, True)}, 0x200000),
    "port[0].phy.answer": Register(0x1054, 32, {"data": Field(0, 16, True, False), "busy": Field(30, 1, True, False), "error": Field(31, 1, True, False)}, 0x0),
    "port[0].phy.rx_latency": Register(0x1058, 32, {"least_ns": Field(0, 16, True, True), "most_ns": Field(16, 16, True, True)}, 0x0),
    "port[1].rx_control": Register(0x1100, 32, {"enable": Field(0, 1, True, True), "stamp_first_byte": Field(1, 1, True, True), "keep_bad": Field(2, 1, True, True), "keep_runt": Field(3, 1, True, True), "keep_giant": Field(4, 1, True, True)}, 0x0),
    "port[1].rx_limit": Register(0x1104, 32, {"bytes": Field(0, 14, True, True)}, 0x233A),
    "port[1].rx_constant": Register(0x1108, 32, {"q32": Field(0, 32, True, False)}, 0x0),
    "port[1].rx_status": Register(0x110C, 32, {"overflow": Field(0, 1, True, False)}, 0x0),
    "port[1].tx_base": Register(0x1110, 64, {"address": Field(0, 64, True, True)}, 0x0),
    "port[1].tx_control": Register(0x1118, 32, {"enable": Field(0, 1, True, True), "size_log2": Field(4, 5, True, True)}, 0xD0),
    "port[1].tx_producer": Register(0x111C, 32, {"index": Field(0, 32, True, True)}, 0x0),
    "port[1].tx_consumer": Register(0x1120, 32, {"index": Field(0, 32, True, False)}, 0x0),
    "port[1].tx_status": Register(0x1124, 32, {"error": Field(0, 1, True, False), "bad_shape": Field(1, 1, True, False)}, 0x0),
    "port[1].tx_lost": Register(0x1128, 32, {"count": Field(0, 32, True, False)}, 0x0),
    "port[1].loopback": Register(0x112C, 32, {"near": Field(0, 1, True, True), "far": Field(1, 1, True, True)}, 0x0),
    "port[1].phy.control": Register(0x1140, 32, {"address": Field(0, 5, True, True)}, 0x1),
    "port[1].phy.poll": Register(0x1144, 32, {"cycles": Field(0, 32, True, True)}, 0x1E848),
    "port[1].phy.status": Register(0x1148, 32, {"link": Field(0, 1, True, False), "answers": Field(1, 1, True, False), "full_duplex": Field(2, 1, True, False), "speed": Field(4, 2, True, False)}, 0x0),
    "port[1].phy.epochs": Register(0x114C, 32, {"count": Field(0, 32, True, False)}, 0x0),
    "port[1].phy.command": Register(0x1150, 32, {"data": Field(0, 16, True, True), "register": Field(16, 5, True, True), "address": Field(21, 5, True, True), "write": Field(31, 1, True, True)}, 0x200000),
    "port[1].phy.answer": Register(0x1154, 32, {"data": Field(0, 16, True, False), "busy": Field(30, 1, True, False), "error": Field(31, 1, True, False)}, 0x0),
    "port[1].phy.rx_latency": Register(0x1158, 32, {"least_ns": Field(0, 16, True, True), "most_ns": Field(16, 16, True, True)}, 0x0),
    "port[2].rx_control": Register(0x1200, 32, {"enable": Field(0, 1, True, True), "stamp_first_byte": Field(1, 1, True, True), "keep_bad": Field(2, 1, True, True), "keep_runt": Field(3, 1, True, True), "keep_giant": Field(4, 1, True, True)}, 0x0),
    "port[2].rx_limit": Register(0x1204, 32, {"bytes": Field(0, 14, True, True)}, 0x233A),
    "port[2].rx_constant": Register(0x1208, 32, {"q32": Field(0, 32, True, False)}, 0x0),
    "port[2].rx_status": Register(0x120C, 32, {"overflow": Field(0, 1, True, False)}, 0x0),
    "port[2].tx_base": Register(0x1210, 64, {"address": Field(0, 64, True, True)}, 0x0),
    "port[2].tx_control": Register(0x1218, 32, {"enable": Field(0, 1, True, True), "size_log2": Field(4, 5, True, True)}, 0xD0),
    "port[2].tx_producer": Register(0x121C, 32, {"index": Field(0, 32, True, True)}, 0x0),
    "port[2].tx_consumer": Register(0x1220, 32, {"index": Field(0, 32, True, False)}, 0x0),
    "port[2].tx_status": Register(0x1224, 32, {"error": Field(0, 1, True, False), "bad_shape": Field(1, 1, True, False)}, 0x0),
    "port[2].tx_lost": Register(0x1228, 32, {"count": Field(0, 32, True, False)}, 0x0),
    "port[2].loopback": Register(0x122C, 32, {"near": Field(0, 1, True, True), "far": Field(1, 1, True, True)}, 0x0),
    "port[2].phy.control": Register(0x1240, 32, {"address": Field(0, 5, True, True)}, 0x1),
    "port[2].phy.poll": Register(0x1244, 32, {"cycles": Field(0, 32, True, True)}, 0x1E848),
    "port[2].phy.status": Register(0x1248, 32, {"link": Field(0, 1, True, False), "answers": Field(1, 1, True, False), "full_duplex": Field(2, 1, True, False), "speed": Field(4, 2, True, False)}, 0x0),
    "port[2].phy.epochs": Register(0x124C, 32, {"count": Field(0, 32, True, False)}, 0x0),
    "port[2].phy.command": Register(0x1250, 32, {"data": Field(0, 16, True, True), "register": Field(16, 5, True, True), "address": Field(21, 5, True, True), "write": Field(31, 1, True, True)}, 0x200000),
    "port[2].phy.answer": Register(0x1254, 32, {"data": Field(0, 16, True, False), "busy": Field(30, 1, True, False), "error": Field(31, 1, True, False)}, 0x0),
    "port[2].phy.rx_latency": Register(0x1258, 32, {"least_ns": Field(0, 16, True, True), "most_ns": Field(16, 16, True, True)}, 0x0),
    "port[3].rx_control": Register(0x1300, 32, {"enable": Field(0, 1, True, True), "stamp_first_byte": Field(1, 1, True, True), "keep_bad": Field(2, 1, True, True), "keep_runt": Field(3, 1, True, True), "keep_giant": Field(4, 1, True, True)}, 0x0),
    "port[3].rx_limit": Register(0x1304, 32, {"bytes": Field(0, 14, True, True)}, 0x233A),
    "port[3].rx_constant": Register(0x1308, 32, {"q32": Field(0, 32, True, False)}, 0x0),
    "port[3].rx_status": Register(0x130C, 32, {"overflow": Field(0, 1, True, False)}, 0x0),
    "port[3].tx_base": Register(0x1310, 64, {"address": Field(0, 64, True, True)}, 0x0),
    "port[3].tx_control": Register(0x1318, 32, {"enable": Field(0, 1, True, True), "size_log2": Field(4, 5, True, True)}, 0xD0),
    "port[3].tx_producer": Register(0x131C, 32, {"index": Field(0, 32, True, True)}, 0x0),
    "port[3].tx_consumer": Register(0x1320, 32, {"index": Field(0, 32, True, False)}, 0x0),
    "port[3].tx_status": Register(0x1324, 32, {"error": Field(0, 1, True, False), "bad_shape": Field(1, 1, True, False)}, 0x0),
    "port[3].tx_lost": Register(0x1328, 32, {"count": Field(0, 32, True, False)}, 0x0),
    "port[3].loopback": Register(0x132C, 32, {"near": Field(0, 1, True, True), "far": Field(1, 1, True, True)}, 0x0),
    "port[3].phy.control": Register(0x1340, 32, {"address": Field(0, 5, True, True)}, 0x1),
    "port[3].phy.poll": Register(0x1344, 32, {"cycles": Field(0, 32, True, True)}, 0x1E848),
    "port[3].phy.status": Register(0x1348, 32, {"link": Field(0, 1, True, False), "answers": Field(1, 1, True, False), "full_duplex": Field(2, 1, True, False), "speed": Field(4, 2, True, False)}, 0x0),
    "port[3].phy.epochs": Register(0x134C, 32, {"count": Field(0, 32, True, False)}, 0x0),
    "port[3].phy.command": Register(0x1350, 32, {"data": Field(0, 16, True, True), "register": Field(16, 5, True, True), "address": Field(21, 5, True, True), "write": Field(31, 1, True, True)}, 0x200000),
    "port[3].phy.answer": Register(0x1354, 32, {"data": Field(0, 16, True, False), "busy": Field(30, 1, True, False), "error": Field(31, 1, True, False)}, 0x0),
    "port[3].phy.rx_latency": Register(0x1358, 32, {"least_ns": Field(0, 16, True, True), "most_ns": Field(16, 16, True, True)}, 0x0),
}
# fmt: on

# Memories: byte address, bytes.
MEMORIES: dict[str, tuple[int, int]] = {
    "counter_memory": (0x2000, 1024),
    "digest_key": (0x2800, 2048),
    "flow_key": (0x3000, 128),
}
