"""Logs: exact, never doubled, and never the end of a run."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from distill.config import load_config
from distill.data.batch import PairBatch
from distill.monitor import Monitor
from distill.monitor.metrics_file import MetricsFile, read_metrics
from distill.monitor.pictures import Captioned, captioned, pair_grid
from distill.monitor.usage import Pace, memory
from distill.objective import PairAnswers
from distill.run_dir import RunDir

CONFIG = load_config()


def monitor(root: Path, resumed_step: int = 0, *, active: bool = True) -> Monitor:
    root.mkdir(exist_ok=True)
    return Monitor(RunDir(root), CONFIG, resumed_step=resumed_step, total_steps=10, active=active)


def points(root: Path, tag: str) -> list[tuple[int, float]]:
    board = EventAccumulator(str(RunDir(root).tensorboard))
    board.Reload()
    return [(event.step, event.value) for event in board.Scalars(tag)]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.floats(), max_size=5))
def test_floats_come_back_to_the_last_bit(tmp_path_factory, values: list[float]) -> None:
    path = tmp_path_factory.mktemp("m") / "metrics.jsonl"
    log = MetricsFile(path, 0)
    log.write(1, {f"v{i}": value for i, value in enumerate(values)})
    log.close()
    (line,) = read_metrics(path)
    for i, value in enumerate(values):
        expected = value if math.isfinite(value) else None
        assert line[f"v{i}"] == expected


def test_a_resume_drops_what_the_killed_run_had_done_beyond(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "x": step / 3}) for step in range(1, 6)]
    path.write_text("\n".join(lines) + '\n{"step": 6, "x"')  # killed while writing
    log = MetricsFile(path, 3)
    log.write(4, {"x": 40.0})
    log.close()
    assert [(line["step"], line["x"]) for line in read_metrics(path)] == [
        (1, 1 / 3),
        (2, 2 / 3),
        (3, 1.0),
        (4, 40.0),
    ]
    assert list(tmp_path.iterdir()) == [path]


def test_curves_go_on_without_doubled_points(tmp_path: Path) -> None:
    with monitor(tmp_path) as first:
        for step in range(1, 6):
            first.training(step, {"loss/total": float(step)})
        first.evaluation(5, {"clean/top1": 0.5})
    with monitor(tmp_path, resumed_step=3) as second:
        for step in range(4, 7):
            second.training(step, {"loss/total": 10.0 * step})
        second.evaluation(5, {"clean/top1": 0.25})
    expected = [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0), (5, 50.0), (6, 60.0)]
    assert points(tmp_path, "loss/total") == expected
    assert points(tmp_path, "evaluation_clean/top1") == [(5, 0.25)]
    lines = read_metrics(RunDir(tmp_path).metrics)
    assert [(x["step"], x["loss/total"]) for x in lines if "loss/total" in x] == expected


def test_curves_of_a_run_that_was_killed_before_its_first_checkpoint(tmp_path: Path) -> None:
    for killed_after in (5, 3):
        with monitor(tmp_path) as log:
            for step in range(1, killed_after + 1):
                log.training(step, {"loss/total": 10.0 * killed_after + step})
    assert points(tmp_path, "loss/total") == [(1, 31.0), (2, 32.0), (3, 33.0)]


def test_a_line_that_a_disk_has_damaged_costs_that_line_alone(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.metrics.write_bytes(
        b'{"step": 1}\n{"step\xff": 2}\n'
        + bytes(30)
        + b'\n[3]\n{"step": 4, "evaluation_a/auc": 1}\n'
    )
    with monitor(tmp_path, resumed_step=4) as log:
        log.evaluation(4, {"a/auc": 0.5})
    assert read_metrics(run.metrics) == [{"step": 1}, {"step": 4, "evaluation_a/auc": 1}]


def test_metrics_that_nobody_can_read_are_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RunDir(tmp_path).metrics.mkdir()
    with monitor(tmp_path, resumed_step=4) as log:
        log.training(5, {"loss/total": 2.0})
    assert capsys.readouterr().err.count("metrics.jsonl cannot be written") == 1


def test_an_evaluation_that_is_made_again_is_not_logged_again(tmp_path: Path) -> None:
    for _ in range(2):
        with monitor(tmp_path, resumed_step=5) as again:
            again.evaluation(5, {"clean/top1": 0.5})
    assert len(read_metrics(RunDir(tmp_path).metrics)) == 1
    assert points(tmp_path, "evaluation_clean/top1") == [(5, 0.5)]


def test_a_log_that_cannot_be_written_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RunDir(tmp_path).tensorboard.write_text("a file where the folder should be")
    with monitor(tmp_path) as log:
        log.training(1, {"loss/total": 2.0})
        log.picture(1, "pairs", np.zeros((4, 4, 3), np.uint8))
    captured = capsys.readouterr()
    assert captured.err.count("TensorBoard cannot be written") == 1
    assert "step 1/10  loss 2.0000" in captured.err
    assert len(read_metrics(RunDir(tmp_path).metrics)) == 1


class FullDisk:
    def write(self, text: str) -> None:
        with Path("/dev/full").open("wb", buffering=0) as full:
            full.write(text.encode())

    def close(self) -> None:
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_disk_that_fills_up_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with monitor(tmp_path) as log:
        log._metrics._log._file = FullDisk()
        for step in (1, 2):
            log.training(step, {"loss/total": 2.0})
    assert capsys.readouterr().err.count("metrics.jsonl cannot be written") == 1
    assert [step for step, _ in points(tmp_path, "loss/total")] == [1, 2]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_log_is_tried_again_after_pauses_that_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A disk is full from step 2 on; at 601 s it still is, at 1802 s it is not."""
    seconds, full = [0.0], [True]
    monkeypatch.setattr("distill.monitor.monitor.monotonic", lambda: seconds[0])
    real = MetricsFile.__init__

    def opened(log: MetricsFile, path: Path, step: int) -> None:
        real(log, path, step)
        if full[0] and step:
            log._file = FullDisk()

    with monitor(tmp_path) as log:
        log.training(1, {"x": 1.0})
        log._metrics._log._file = FullDisk()
        monkeypatch.setattr(MetricsFile, "__init__", opened)
        for step, now in ((2, 0.0), (3, 599.0), (4, 601.0), (5, 1800.0), (6, 1802.0), (7, 1803.0)):
            seconds[0], full[0] = now, step < 5
            log.training(step, {"x": 1.0})
    assert [line["step"] for line in read_metrics(RunDir(tmp_path).metrics)] == [1, 6, 7]
    assert capsys.readouterr().err.count("metrics.jsonl cannot be written") == 1
    assert [step for step, _ in points(tmp_path, "x")] == [1, 2, 3, 4, 5, 6, 7]


FULL = """
import resource, sys
from pathlib import Path
from distill.config import Config
from distill.monitor import Monitor
from distill.run_dir import RunDir

run = RunDir(Path(sys.argv[1]))
with Monitor(run, Config(), resumed_step=0, total_steps=2000, active=True) as log:
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
    for step in range(2000):
        log._board.do(step, lambda board: board.scalars(step, {"loss/total": 1.0, "lr": 2.0}))
"""


def test_event_files_that_cannot_grow_are_one_warning(tmp_path: Path) -> None:
    """They are written by a thread of the library, which would print a stack trace."""
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    assert "TensorBoard cannot be written" in line and "goes on without it" in line


def test_other_ranks_write_and_say_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with monitor(tmp_path / "run", active=False) as log, log.part("evaluate", 3) as advance:
        advance(1)
        log.step(1)
        log.training(1, {"loss/total": 2.0})
        log.event(1, "a spike", {0: [1]})
        log.say("hello")
        log.note("hello")
        log.warn("hello")
    assert list((tmp_path / "run").iterdir()) == []
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_events_name_their_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with monitor(tmp_path) as log:
        log.event(4, "step 4: the loss jumped", {1: [5, 6]})
    (line,) = read_metrics(RunDir(tmp_path).events)
    assert line == {"step": 4, "event": "step 4: the loss jumped", "sample_ids": {"1": [5, 6]}}
    assert "the loss jumped" in capsys.readouterr().err


def test_pictures_show_pairs_whatever_the_names() -> None:
    grey = [np.full((112, 112, 3), value, np.uint8) for value in (50, 200)]
    odd = Captioned(*grey, "名前\n" * 40, "blur", ("名前\n" * 40, 0.5), ("Bo", 1.0))
    grid = pair_grid([odd] * 5, columns=2)
    assert grid.dtype == np.uint8
    tile_height, tile_width = grid.shape[0] // 3, grid.shape[1] // 2
    assert grid[:tile_height, :tile_width].any()
    assert not grid[2 * tile_height :, tile_width:].any(), "no sixth pair"
    assert (grid[20:120, 5:105] == 50).all()
    assert (grid[20:120, 117:217] == 200).all()


def test_letters_of_names_are_drawn_and_not_a_box_in_their_place() -> None:
    def caption(letter: str) -> bytes:
        grey = np.full((112, 112, 3), 50, np.uint8)
        pair = Captioned(grey, grey, f"J{letter}rg", "blur", ("Bo", 1.0), ("Bo", 1.0))
        return pair_grid([pair])[:14].tobytes()

    assert len({caption(letter) for letter in "uüéōřи"}) == 6
    assert caption("一") == caption("丁")  # which are boxes


def test_numbers_become_names() -> None:
    images = torch.zeros((2, 3, 112, 112), dtype=torch.uint8)
    images[:, 1] = 9
    batch = PairBatch(
        images, images, torch.tensor([1, 0]), torch.tensor([0, 1]), torch.tensor([4, 5])
    )
    answers = PairAnswers(torch.tensor([[1, 1], [0, 0]]), torch.tensor([[0.9, 0.8], [0.7, 0.6]]))
    first, second = captioned(batch, answers, ["Ada", "Bo"], ["blur", "eyes"])
    assert first.first.shape == (112, 112, 3)
    assert (first.first == [0, 9, 0]).all()
    assert (first.person, first.kind, first.said_first[0], first.said_second[0]) == (
        "Bo",
        "blur",
        "Bo",
        "Ada",
    )
    assert (second.person, second.kind) == ("Ada", "eyes")
    assert second.said_first[1] == pytest.approx(0.8)


def test_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 4.0, 4.0, 10.0, 12.0, 12.0])
    monkeypatch.setattr("distill.monitor.usage.time.perf_counter", lambda: next(clock))
    pace = Pace(images_per_step=64)
    pace.step(0.5)
    pace.step(1.5)
    assert pace.read() == {
        "speed/images_per_second": 32.0,
        "speed/seconds_per_step": 2.0,
        "speed/data_wait_seconds_per_step": 1.0,
        "speed/data_wait_share": 0.5,
    }
    pace.restart()  # an evaluation of six seconds does not count
    pace.step(0.0)
    assert pace.read()["speed/images_per_second"] == 32.0


def test_memory_is_that_of_this_process() -> None:
    assert 1e7 < memory(torch.device("cpu"))["memory/peak_rss_bytes"] < 1e12
