"""The run folder: one job at a time, whatever happened to the last one."""

from __future__ import annotations

import fcntl
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from distill.errors import UserError
from distill.run_dir import RunDir
from distill.run_lock import is_held

HOLD = """
import sys, time
from pathlib import Path
from distill.run_dir import RunDir
with RunDir(Path(sys.argv[1])).acquire():
    print("held", flush=True)
    time.sleep(600)
"""


def holder(root: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_job_is_refused_and_told_who_holds(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    process = holder(run.root)
    try:
        named = rf"process {process.pid} on .+ since \d{{4}}-"
        with pytest.raises(UserError, match=named), run.acquire():
            pass
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert str(process.pid) in run.lock.read_text(), "killed: the file stays behind"
    with run.acquire():  # but does not block
        assert str(os.getpid()) in run.lock.read_text()
    assert run.lock.read_text() == ""


def test_a_look_at_a_lock_neither_keeps_a_job_out_nor_changes_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`status` may look just when a job begins: that is no other job."""
    run = RunDir(tmp_path / "run")
    assert not is_held(run.lock)
    with run.acquire():
        assert is_held(run.lock)
        named = run.lock.read_text()
    run.lock.write_text(named)  # as of a job that was killed
    assert not is_held(run.lock)
    assert run.lock.read_text() == named
    look = os.open(run.lock, os.O_RDONLY)
    fcntl.flock(look, fcntl.LOCK_SH)
    pauses: list[float] = []

    def pause(seconds: float) -> None:  # while which the look ends
        pauses.append(seconds)
        os.close(look)

    monkeypatch.setattr("distill.run_lock.time.sleep", pause)
    with run.acquire():
        assert len(pauses) == 1
        assert is_held(run.lock)


def test_a_full_disk_keeps_no_job_out(tmp_path: Path) -> None:
    """Its lock has no name then: the kernel lets no file grow, as where no room is."""
    run = RunDir(tmp_path / "run")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with run.acquire():
            assert is_held(run.lock)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert run.lock.read_text() == ""


def test_folder_is_private_and_made_with_its_parents(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "a" / "b c\n'é")
    with run.acquire():
        assert run.root.stat().st_mode & 0o777 == 0o700


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()  # of another trainer
    (tmp_path / "holiday.jpg").write_text("")
    (tmp_path / "run.toml").write_text("")
    run = RunDir(tmp_path)
    refused = r"run\.dir = .*not empty, and 'checkpoints' in it is no part of a run; choose"
    with pytest.raises(UserError, match=refused), run.acquire():
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoints", "holiday.jpg", "run.toml"}


@pytest.mark.parametrize(
    "name",
    [
        "",
        "run.toml",
        "slurm-17.out",
        "run.lock",
        "length.json",
        "complete.json",
        "jobs/0001/",
        "deep/",
    ],
)
def test_an_empty_folder_one_of_settings_and_logs_and_a_run_are_taken(
    name: str, tmp_path: Path
) -> None:
    """What else stands in the folder of a run does not matter."""
    place = tmp_path / (name if name != "deep/" else "checkpoints/step-00000010/")
    if name.endswith("/"):
        place.mkdir(parents=True)
    elif name:
        place.write_text("")
    if name and place.suffix not in {".toml", ".out"}:
        (tmp_path / "notes.md").write_text("")
    run = RunDir(tmp_path)
    for _ in range(2):  # the second start finds what the first one left
        with run.acquire():
            assert run.lock.exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for run in (RunDir(tmp_path / "file" / "run"), RunDir(tmp_path / ("x" * 300))):
        refused = pytest.raises(UserError, match=r"run\.dir = .*cannot be written")
        with refused as error, run.acquire():
            pass
        assert "\n" not in str(error.value)


def test_every_path_lies_in_the_folder(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    names = [n for n in dir(RunDir) if isinstance(getattr(RunDir, n), property)]
    assert len(names) >= 7
    paths = [getattr(run, name) for name in names]
    assert len(set(paths)) == len(paths)
    assert all(re.match(re.escape(str(tmp_path)) + "/[^/]+$", str(path)) for path in paths)


def test_an_earlier_start_of_the_same_job_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a requeue the ranks of a lost node may live on for a while."""
    run = RunDir(tmp_path / "run")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    process = holder(run.root)
    try:
        monkeypatch.setenv("SLURM_JOB_ID", "13")
        with pytest.raises(UserError, match=r"job 12, process \d+ on "), run.acquire():
            pass
        monkeypatch.setenv("SLURM_JOB_ID", "12")
        threading.Timer(0.5, process.kill).start()
        with run.acquire():
            assert process.wait() == -signal.SIGKILL
    finally:
        process.kill()
        process.wait()
