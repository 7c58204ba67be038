# SPDX-License-Identifier: Apache-2.0
"""`make gpu-bench` stays alive: every section once, on the emulated device, where times mean nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.bench import gpu


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    before = sorted(gpu.RESULTS.iterdir())
    assert gpu.main(["--device", "emulated", "--quick", "--json", str(folder / "gpu.json")]) == 0
    assert sorted(gpu.RESULTS.iterdir()) == before
    found = json.loads((folder / "gpu.json").read_text())
    found["plot"] = (folder / "gpu.png").exists()
    return found


def test_each_section_runs(report):
    assert report["emulated"] and report["note"] == "emulated: times mean nothing"
    assert not report["left_out"]
    for section in gpu.SECTIONS:
        assert report[section], section
    assert report["host"]["pinned, keep and type"]["median"] > 0
    assert "classify_frames" in report["kernels"]["exact, window 600"]["us"]
    assert report["latency"]["goal"].keys() == {"p99_us_at_14.88", "met"}


def test_it_draws_a_plot(report):
    pytest.importorskip("matplotlib")
    assert report["plot"]


def test_emulated_results_never_go_to_results(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    assert gpu.main(["--device", "emulated", "--quick", "--only", "copies"]) == 0
    assert not (tmp_path / "results").exists()
    assert [path.suffix for path in sorted((tmp_path / "build").iterdir())] == [".json", ".png"]


def test_without_a_gpu_one_line_says_so(monkeypatch, capsys):
    def none(number):
        raise gpu.DeviceFailure("no GPU: the driver's words")

    monkeypatch.setattr(gpu, "CudaDevice", none)
    assert gpu.main([]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == "gpu-bench: no GPU: the driver's words\n"


def test_wrong_verdicts_are_not_timed(monkeypatch):
    whole = gpu.OnDevice.verdicts

    def wrong(self):
        keep, distance = whole(self)
        return 1 - keep, distance

    monkeypatch.setattr(gpu.OnDevice, "verdicts", wrong)
    with pytest.raises(SystemExit, match="not timing them"):
        gpu.main(["--device", "emulated", "--quick", "--only", "resident"])


@pytest.mark.parametrize(
    ("service", "size", "rate", "p50", "most", "keeps_up"),
    [
        # One frame per µs, batches of 10, served in 4 µs: the first frame of a batch waits 9 µs for the last.
        ([4e-6] * 50, 10, 1.0, 8.5, 13.0, True),
        # Served in 20 µs: each batch waits 10 µs more than the one before it, the last one 490.
        ([20e-6] * 50, 10, 1.0, 269.5, 519.0, False),
        # One slow batch delays those behind it until the device has caught up.
        ([1e-6] * 20 + [31e-6] + [1e-6] * 20, 10, 1.0, 6.0, 40.0, True),
    ],
)
def test_added_delay(service, size, rate, p50, most, keeps_up):
    found = gpu.delays(service, size, rate)
    assert found["p50_us"] == pytest.approx(p50, abs=0.6)
    assert found["max_us"] == pytest.approx(most)
    assert found["keeps_up"] == keeps_up


def test_counted_bytes_of_a_window():
    n = 1 << 20
    keys, stamps, sort, find, judge = 64 + 28, 16, 16 + 24 + 2 * 24, 8 + 20, 6
    # A carry of one frame is next to nothing; one as long as the batch is sorted and searched, too.
    assert gpu.counted_bytes(n, 2, 64, 0.0) == pytest.approx(keys + stamps + sort + find + judge, abs=0.01)
    assert gpu.counted_bytes(n, n, 64, 0.0) > gpu.counted_bytes(n, 2, 64, 0.0) + sort
    assert np.isclose(
        gpu.counted_bytes(n, 600, 164, 0.5) - gpu.counted_bytes(n, 600, 64, 0.5), 100, atol=1e-9
    )
