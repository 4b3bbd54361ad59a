"""Local ranks as real processes: who is told what, and that nobody is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import alive, until

from distill.cli.train import run_training
from distill.config import load_config
from distill.errors import UserError
from distill.processes.cores import check_cores
from distill.processes.notes import NOTES
from distill.processes.spawn import GRACE_SECONDS, spawn_local

PATIENCE_SECONDS = 200.0  # for what takes seconds on a machine at rest
PARENT = """
import sys
import distill.processes.spawn
from distill.processes.spawn import spawn_local
distill.processes.spawn.GRACE_SECONDS = distill.processes.spawn.STOP_GRACE_SECONDS = 1.0
sys.exit(spawn_local(sys.argv[1:], 2, program=[sys.executable, "-c", RANK]))
"""
RANK = """
import fcntl, os, shutil, signal, sys, time
from pathlib import Path
from distill.errors import UserError
from distill.processes.spawn import spawned_rank

rank, (folder, mode) = int(os.environ["RANK"]), sys.argv[1:]
if mode == "early":
    Path(folder, f"pid{rank}").write_text(str(os.getpid()))
    while signal.SIGINT not in signal.sigpending():  # passed on, and kept waiting
        time.sleep(0.02)

def save_and_leave(number, frame):
    time.sleep(0.2)
    Path(folder, f"saved{rank}").write_text(str(number))
    os._exit(128 + number)

def stay(number, frame):
    Path(folder, f"told{rank}").touch()

with spawned_rank():
    if mode == "done":
        signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
    if mode == "stoppable":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, save_and_leave)
    if mode == "stubborn" or (mode == "uneven" and rank == 1):
        signal.signal(signal.SIGINT, stay)
    print(f"out {rank}", flush=True)
    print(f"err {rank}", file=sys.stderr, flush=True)
    Path(folder, f"pid{rank}").write_text(str(os.getpid()))  # from here on it may be stopped
    if mode == "fine":
        sys.exit(0)
    while len(list(Path(folder).glob("pid*"))) < 2:
        time.sleep(0.01)
    if mode == "mistake":  # both see it; it is shown once
        raise UserError("loss.weight = -1", fix="make it positive")
    if mode == "consequence":
        if rank == 0:
            raise RuntimeError("Connection closed by peer [127.0.0.1]:1")
        time.sleep(0.3)
        raise KeyError("the cause")
    if mode == "murder" and rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "real-time" and rank == 1:
        os.kill(os.getpid(), 40)
    if mode == "exit" and rank == 1:
        print("last words", file=sys.stderr, flush=True)
        os._exit(7)
    if mode == "cleaned" and rank == 1:
        notes = Path(os.environ["PAIRDISTILL_NOTES"])
        try:
            fcntl.flock(os.open(notes, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("locked", file=sys.stderr, flush=True)
        shutil.rmtree(notes)
        raise UserError("pair 9 is corrupt", fix="mend it")
    while mode == "cleaned" and os.path.exists(os.environ["PAIRDISTILL_NOTES"]):
        time.sleep(0.01)
    if mode in ("cleaned", "murder", "real-time", "exit"):
        raise RuntimeError("Connection reset by peer")
    time.sleep(600)
"""


def start(folder: Path, mode: str) -> subprocess.Popen[str]:
    code = f"RANK = {RANK!r}\n{PARENT}"
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder), mode],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def started(folder: Path, mode: str) -> tuple[subprocess.Popen[str], list[int]]:
    """A parent whose two ranks are up, and their process ids."""
    process = start(folder, mode)
    until(lambda: process.poll() is not None or len(pids_in(folder)) == 2, "two ranks")
    assert process.poll() is None, process.communicate()
    return process, pids_in(folder)


def pids_in(folder: Path) -> list[int]:
    return [int(pid) for file in sorted(folder.glob("pid*")) if (pid := file.read_text())]


def await_end(pids: list[int]) -> None:
    until(lambda: not any(map(alive, pids)), "the end of the ranks")


def run(folder: Path, mode: str) -> tuple[int, str, str]:
    process = start(folder, mode)
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def test_only_rank_0_speaks(tmp_path: Path) -> None:
    assert run(tmp_path, "fine") == (0, "out 0\n", "err 0\n")


def test_a_mistake_is_shown_once_with_its_status(tmp_path: Path) -> None:
    status, _, err = run(tmp_path, "mistake")
    assert status == 2
    assert err == "err 0\nerror: loss.weight = -1; make it positive\n"


def test_the_cause_is_shown_and_not_its_consequence(tmp_path: Path) -> None:
    status, _, err = run(tmp_path, "consequence")
    assert status == 1
    assert "Traceback" in err
    assert err.endswith("error: rank 1: KeyError('the cause')\n")
    assert "closed by peer" not in err


@pytest.mark.parametrize(
    ("mode", "status", "line"),
    [
        ("murder", 137, "error: rank 1 was killed by SIGKILL: out of memory?"),
        ("real-time", 168, "error: rank 1 was killed by signal 40"),
        ("exit", 7, "error: rank 1 ended with status 7"),
    ],
)
def test_a_silent_death_is_told(tmp_path: Path, mode: str, status: int, line: str) -> None:
    code, _, err = run(tmp_path, mode)
    assert code == status
    assert line in err.splitlines()
    assert ("  rank 1: last words" in err) == (mode == "exit")
    assert "Connection reset" not in err


def test_a_cause_is_told_where_the_folder_of_notes_was_cleaned_away(tmp_path: Path) -> None:
    """As what is ten days old in /tmp, by a cleaner that minds no lock."""
    status, _, err = run(tmp_path, "cleaned")
    words = "", "err 1", "locked", "error: pair 9 is corrupt; mend it\n"
    assert status == 2
    assert err.endswith("\nerror: rank 1 ended with status 2" + "\n  rank 1: ".join(words))


def test_the_others_are_stopped_within_seconds(tmp_path: Path) -> None:
    process, pids = started(tmp_path, "sleep")
    os.kill(pids[1], signal.SIGKILL)
    _, err = process.communicate(timeout=PATIENCE_SECONDS)  # of the 600 that the other sleeps
    assert GRACE_SECONDS <= 5
    assert process.returncode == 137
    assert "rank 1 was killed" in err
    await_end(pids)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2])
def test_a_stop_is_passed_on_and_the_ranks_may_save(tmp_path: Path, number: signal.Signals) -> None:
    process, pids = started(tmp_path, "stoppable")
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 128 + number
    assert err == "err 0\n"
    for rank in range(2):
        assert (tmp_path / f"saved{rank}").read_text() == str(int(number))
    await_end(pids)


def test_ctrl_c_while_ranks_begin_is_no_error_of_theirs(tmp_path: Path) -> None:
    process, pids = started(tmp_path, "early")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, err) == (130, "error: interrupted\n")
    await_end(pids)


def test_ctrl_c_twice_ends_at_once(tmp_path: Path) -> None:
    process, pids = started(tmp_path, "stubborn")
    process.send_signal(signal.SIGINT)
    until(lambda: len(list(tmp_path.glob("told*"))) == 2, "ranks that heard")
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    await_end(pids)


@pytest.mark.parametrize(
    ("mode", "status", "said"),
    [
        ("uneven", 130, "error: interrupted\n"),  # one that stays when the other has left is ended
        ("done", 0, ""),  # both end as if nothing was asked: all their work is done
    ],
)
def test_ctrl_c_when_ranks_leave_at_other_times_or_are_done(
    tmp_path: Path, mode: str, status: int, said: str
) -> None:
    process, pids = started(tmp_path, mode)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, err) == (status, f"err 0\n{said}")
    await_end(pids)


def test_a_rank_that_left_on_a_stop_of_its_own_is_not_awaited_by_others_for_ever(
    tmp_path: Path,
) -> None:
    process, pids = started(tmp_path, "stoppable")
    os.kill(pids[1], signal.SIGUSR2)
    _, err = process.communicate(timeout=15)
    assert (process.returncode, err) == (128 + signal.SIGUSR2, "err 0\n")
    await_end(pids)


def test_no_orphans_when_the_parent_is_killed(tmp_path: Path) -> None:
    process, pids = started(tmp_path, "sleep")
    process.kill()
    process.communicate(timeout=PATIENCE_SECONDS)
    await_end(pids)


@pytest.mark.parametrize("cores", [1, 2, 16])
def test_far_more_ranks_than_cores_are_refused_before_any_starts(
    cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(subprocess, "Popen", None)  # none is started
    with pytest.raises(UserError, match=f"--ranks {4 * cores + 1}: this process has {cores} cores"):
        spawn_local(["evaluate"], 4 * cores + 1)
    check_cores(4 * cores)


LEAVE = """
from distill.processes.notes import leave
leave("error: rank 3: why", 7)
"""


def test_a_rank_whose_note_cannot_be_written_leaves_all_the_same(tmp_path: Path) -> None:
    """Its disk is full, or the folder was removed: it must not stay among ranks that wait."""
    where = {"RANK": "3", NOTES: str(tmp_path / "gone")}
    done = subprocess.run(
        [sys.executable, "-c", LEAVE],
        env={**os.environ, **where},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (7, "error: rank 3: why\n")


def test_who_starts_ranks_listens_as_before_when_they_have_ended() -> None:
    heard = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP)
    before = [signal.getsignal(number) for number in heard]
    assert spawn_local([], 1, program=[sys.executable, "-c", "pass"]) == 0
    assert [signal.getsignal(number) for number in heard] == before


@pytest.mark.parametrize(
    ("status", "told"), [(1, True), (137, True), (139, True), (0, False), (2, False), (143, False)]
)
def test_after_a_rank_failed_it_is_said_where_the_run_goes_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    status: int,
    told: bool,
) -> None:
    """A mistake has its own fix, and a rank that was stopped has said so itself."""
    monkeypatch.setattr("distill.cli.train.on_local_ranks", lambda *_: status)
    config = load_config(None, [f"run.dir={tmp_path}"])
    assert run_training(config, [], 2) == status
    assert capsys.readouterr().err == "", "nothing is saved yet"
    for step in (50, 100):
        (tmp_path / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
    assert run_training(config, [], 2) == status
    line = "the same command goes on after step 100, which is saved\n"
    assert capsys.readouterr().err == (line if told else "")
