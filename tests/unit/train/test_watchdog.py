"""The watchdog: who is blamed, and real processes that hang, are stopped, or are only slow."""

from __future__ import annotations

import io
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from distill.checkpoint import TrainState
from distill.measure import _part
from distill.processes.watchdog import HUNG, Beat, Watchdog, blame, read_beats
from distill.ranks import Ranks

CODE = """
import sys, time
from pathlib import Path
from distill.processes.watchdog import Watchdog

def sleeping_beauty():
    time.sleep(60)

print("up", flush=True)
sys.stdin.readline()
with Watchdog(Path(sys.argv[1]), int(sys.argv[2]), 2, float(sys.argv[3])) as dog:
    dog.mark("waiting for pairs", 6)
    print("watched", flush=True)
    if sys.argv[4] == "forward":
        dog.mark("forward")
    if sys.argv[4].startswith("clock"):
        now, moved = time.time, float(sys.argv[4].removeprefix("clock"))
        time.time = lambda: now() + moved
        if moved > 0:  # a machine that was asleep, or whose clock was wrong
            time.sleep(1.5)
            sys.exit(0)
    if sys.argv[4] == "slow":  # by a clock that no other process holds up: 0.5 s a turn
        now = time.monotonic()
        time.monotonic = lambda: now
        dog.mark("slow")
        for turn in range(30):
            now += 0.5
            dog.touch() if turn < 15 else dog.mark("slow")
            time.sleep(0.1)
        sys.exit(0)
    sleeping_beauty()
"""


def beat(rank: int, marks: int, *, seen: float = 100.0, phase: str = "forward") -> Beat:
    return Beat(rank, f"node{rank}", 10 + rank, 6, phase, marks, 60.0, seen)


def test_the_rank_that_is_behind_is_blamed() -> None:
    text = blame([beat(0, 9), beat(1, 8, phase="waiting for pairs"), beat(2, 9)], 100.0, 20.0)
    assert text == (
        "rank 1 (process 11 on node1) hangs: in step 7, phase 'waiting for pairs',"
        " no progress for 40 s"
    )


def test_a_rank_without_a_sign_of_life_is_blamed_before_all_others() -> None:
    text = blame([beat(0, 8), beat(1, 9, seen=70.0), beat(2, 8)], 100.0, 20.0)
    assert text.startswith("rank 1 (process 11 on node1) hangs, without a sign of life: in step 7")
    assert "rank 0" not in text


def evaluate(folder: Path, batches: tuple[int, int], evaluations: int) -> Iterator[list[Watchdog]]:
    """Evaluations of two ranks, which have unequal numbers of batches; yields after each."""
    monitor = SimpleNamespace(part=lambda *_: nullcontext(lambda _: None))
    dogs = [Watchdog(folder, rank, 2, 60.0) for rank in range(2)]
    for step in range(1, evaluations + 1):
        for rank, dog in enumerate(dogs):
            ranks = Ranks(rank, 2, rank, 2, torch.device("cpu"))
            job: Any = SimpleNamespace(
                watchdog=dog, monitor=monitor, ranks=ranks, stops=SimpleNamespace(flags=())
            )
            with _part(job, TrainState(step), "evaluate", 257) as advance:
                for _ in range(batches[rank]):
                    advance(128)
        yield dogs


def blamed(folder: Path, dogs: list[Watchdog]) -> str:
    for dog in dogs:
        dog._say()
    return blame(read_beats(folder, 2), time.time(), 30.0)


def test_evaluations_of_unequal_shares_blame_nobody_later(tmp_path: Path) -> None:
    """As of 257 images in batches of 128: one rank has one batch more, each time."""
    *_, dogs = evaluate(tmp_path, (1, 2), 3)
    for dog in dogs:
        dog.mark("waiting for pairs", 3)
    dogs[0].mark("forward")
    text = blamed(tmp_path, dogs)
    assert text.startswith("rank 1 ") and "'waiting for pairs'" in text and "rank 0" not in text


def test_a_rank_that_hangs_in_an_evaluation_is_blamed(tmp_path: Path) -> None:
    """The other one has gone through its share, and waits."""
    (dogs,) = evaluate(tmp_path, (2, 1), 1)
    text = blamed(tmp_path, dogs)
    assert text.startswith("rank 1 ") and "'evaluation'" in text and "rank 0" not in text


def start(folder: Path, seconds: float, *ranks: str, first: int = 0) -> list[subprocess.Popen[str]]:
    """A process for each rank from ``first`` on, of what it does; none is watched before all are
    up."""
    pipe = subprocess.PIPE
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CODE, str(folder), str(rank), str(seconds), what],
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
        )
        for rank, what in enumerate(ranks, first)
    ]
    for child in children:
        assert child.stdout is not None and child.stdout.readline() == "up\n"
    for child in children:
        assert child.stdin is not None
        print("go", file=child.stdin, flush=True)
    for child in children:
        assert child.stdout is not None and child.stdout.readline() == "watched\n"
    return children


def test_ranks_that_hang_name_the_one_and_show_their_stacks(tmp_path: Path) -> None:
    waits, hangs = start(tmp_path, 4.0, "forward", "")
    for rank, child in enumerate((waits, hangs)):
        _, errors = child.communicate(timeout=300)
        assert child.returncode == HUNG
        assert f"error: rank 1 (process {hangs.pid} on " in errors
        assert "in step 7, phase 'waiting for pairs'" in errors
        assert f"rank {rank} is in phase" in errors
        assert "in sleeping_beauty" in errors


def test_a_stopped_rank_shows_its_stacks_when_it_runs_again(tmp_path: Path) -> None:
    (stopped,) = start(tmp_path, 4.0, "forward", first=1)
    time.sleep(0.25)  # it sleeps; it looks after half a second
    os.kill(stopped.pid, signal.SIGSTOP)
    (waits,) = start(tmp_path, 5.0, "")
    _, errors = waits.communicate(timeout=300)
    assert "rank 1" in errors.splitlines()[0]
    assert "without a sign of life" in errors
    os.kill(stopped.pid, signal.SIGCONT)  # for longer than that timer has
    _, errors = stopped.communicate(timeout=300)
    assert stopped.returncode == 1  # of the timer in C, which waits for no thread of Python's
    assert "in sleeping_beauty" in errors


def test_a_slow_rank_is_left_alone(tmp_path: Path) -> None:
    (child,) = start(tmp_path, 4.0, "slow")
    _, errors = child.communicate(timeout=300)
    assert (child.returncode, errors) == (0, "")
    (last,) = read_beats(tmp_path, 1)
    assert (last.phase, last.step) == ("slow", 6)


def test_the_last_beat_is_that_of_the_end(tmp_path: Path) -> None:
    """Between two looks many steps are made: whoever counts failures at a step needs the last."""
    with Watchdog(tmp_path, 0, 1, 3600.0) as dog:
        dog.mark("forward", 57)
    (last,) = read_beats(tmp_path, 1)
    assert (last.phase, last.step) == ("forward", 57)


@pytest.mark.parametrize(
    ("ranks", "timeout_seconds", "looks", "most_files"),
    [(2, 900.0, 1, 2), (100, 900.0, 2, 50), (512, 900.0, 10, 52), (9999, 900.0, 22, 455),
     (512, 2.0, 1, 512)],
)  # fmt: skip
def test_many_ranks_take_turns_to_say_where_they_are(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ranks: int,
    timeout_seconds: float,
    looks: int,
    most_files: int,
) -> None:
    """Each does once in so many looks (of 5 s here), long before it is called silent."""
    monkeypatch.setattr("faulthandler.dump_traceback_later", lambda *_, **__: None)
    said = []
    for rank in range(ranks):
        dog = Watchdog(tmp_path, rank, ranks, timeout_seconds)
        over = iter([False] * looks + [True])
        waits = itertools.count()
        at = []
        dog._over = SimpleNamespace(wait=lambda _, over=over, w=waits: (next(w), next(over))[1])
        dog._say = lambda at=at, w=waits: at.append(next(w))
        dog._watch()
        assert len(at) == 1
        said += at
    turns = [said.count(turn) for turn in set(said)]
    assert len(turns) == looks and max(turns) == most_files
    assert looks * dog._look < timeout_seconds / 4


def test_a_clock_that_is_set_forward_is_no_time_without_progress(tmp_path: Path) -> None:
    (child,) = start(tmp_path, 8.0, "clock3600")
    _, errors = child.communicate(timeout=300)
    assert (child.returncode, errors) == (0, "")


def test_a_rank_that_hangs_is_noticed_though_the_clock_was_set_back(tmp_path: Path) -> None:
    (child,) = start(tmp_path, 2.0, "clock-3600")
    _, errors = child.communicate(timeout=300)
    assert child.returncode == HUNG
    assert "in sleeping_beauty" in errors


def test_a_folder_that_cannot_be_written_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with Watchdog(tmp_path / "file" / "ranks", 0, 1, 60.0) as dog:
        dog.mark("forward", 1)
    assert read_beats(tmp_path / "file" / "ranks", 1) == []


def test_what_stands_for_standard_error_need_have_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in some notebooks."""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Watchdog(tmp_path, 0, 1, 3600.0) as dog:
        dog.mark("forward", 1)
    assert read_beats(tmp_path, 1)[0].step == 1
