"""Logs as they are followed, with a Slurm of scripts."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm
from submitting import submitted_run

from distill.errors import UserError
from distill.run_dir import RunDir
from launcher.commands.logs import logs_command
from launcher.submitted import Submitted


@pytest.fixture
def running(tmp_path: Path, fake: FakeSlurm) -> RunDir:
    """A submitted run of job 12, of whose log nothing is there yet."""
    fake.answers("sacct", "12|RUNNING|None|node1|\n")
    fake.queue()
    return submitted_run(tmp_path / "run", "12", 3)


def test_a_log_is_waited_for_and_followed_to_its_end(
    running: RunDir,
    fake: FakeSlurm,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The job waits, writes, and ends after that: each between two looks."""
    log = running.jobs()[0].slurm / "12_0_log.out"
    looks = itertools.count(1)

    def pause(_: float) -> None:
        look = next(looks)
        if look == 30:
            log.write_text("begun\n")
        if look > 40:
            with log.open("a") as file:
                file.write(f"line {look}\n")
        if look == 80:
            fake.answers("sacct", "12|COMPLETED|None|node1|\n")

    monkeypatch.setattr("launcher.commands.logs.sleep", pause)
    logs_command(running.root, 0, follow=True)
    shown = capsys.readouterr()
    assert shown.out == log.read_text()
    assert shown.out.startswith("begun\nline 41\n")
    assert shown.err == "job 12 has not begun; its log will appear here\n"
    with pytest.raises(UserError, match=r"12_7_log.out': no such log; there are 12_0_log.out"):
        logs_command(running.root, 7)
    with pytest.raises(UserError, match=r"--rank 7: there are 2 rank\(s\) with a log"):
        logs_command(running.root, 7, follow=True)


def test_the_log_of_another_rank_is_waited_for_though_that_of_the_first_is_there(
    running: RunDir,
    fake: FakeSlurm,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The script begins that of rank 0, before it loads modules and starts ranks."""
    logs = running.jobs()[0].slurm
    (logs / "12_0_log.out").touch()
    looks = itertools.count(1)

    def pause(_: float) -> None:
        look = next(looks)
        if look == 30:
            (logs / "12_1_log.out").write_text("rank 1\n")
            fake.answers("sacct", "12|COMPLETED|None|node1|\n")

    monkeypatch.setattr("launcher.commands.logs.sleep", pause)
    logs_command(running.root, 1, follow=True)
    assert capsys.readouterr().out == "rank 1\n"


def test_on_this_machine_there_is_one_log(tmp_path: Path) -> None:
    run = submitted_run(tmp_path / "run", "12", 3)
    (job,) = run.jobs()
    Submitted("12", "local", str(job.slurm), "now").write(job)
    with pytest.raises(UserError, match=r"--rank 1: there are 1 rank\(s\) with a log"):
        logs_command(run.root, 1, follow=True)


def test_letters_are_whole_wherever_a_log_is_cut(
    tmp_path: Path, fake: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files are read in pieces, and a follower may look in the middle of a letter."""
    run = submitted_run(tmp_path / "run", "12", 3)
    text = "x" + "é" * 100_000
    (run.jobs()[0].slurm / "12_0_log.out").write_text(text, encoding="utf-8")
    logs_command(run.root)
    assert capsys.readouterr().out == text


def test_a_log_is_followed_through_a_controller_that_does_not_answer(
    running: RunDir,
    fake: FakeSlurm,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is told once, before the log is there or later; an end that is known ends it."""
    log = running.jobs()[0].slurm / "12_0_log.out"
    busy = {"errors": "slurm_load_jobs error: Socket timed out\n", "status": 1}
    fake.answers("sacct", "")
    fake.answers("squeue", **busy)

    def asked() -> int:
        return fake.calls("squeue").count("-u")

    def pause(_: float) -> None:
        if not log.exists() and asked() == 2:
            log.write_text("begun\n")
        if asked() == 4:
            with log.open("a") as file:
                file.write("line\n")
        if asked() == 6:
            fake.answers("sacct", "12|COMPLETED|None|node1|\n")
            fake.answers("squeue")

    monkeypatch.setattr("launcher.commands.logs.sleep", pause)
    logs_command(running.root, 0, follow=True)
    shown = capsys.readouterr()
    assert shown.out == log.read_text()
    assert shown.out.startswith("begun\nline\n")
    assert shown.err.count("Socket timed out") == 1
    assert "the log is followed all the same" in " ".join(shown.err.split())


def test_a_log_goes_on_while_slurm_takes_its_time_to_answer(
    running: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = running.jobs()[0].slurm / "12_0_log.out"
    log.write_text("begun\n")
    looks, shown, answered = itertools.count(1), "", threading.Event()

    def is_over(_: Path) -> bool:
        assert answered.wait(60)
        return True

    def pause(_: float) -> None:
        nonlocal shown
        look = next(looks)
        if look == 40:
            log.write_text("begun\nwhile it is asked\n")
        if look == 50:
            shown = capsys.readouterr().out
            answered.set()

    monkeypatch.setattr("launcher.commands.logs._is_over", is_over)
    monkeypatch.setattr("launcher.commands.logs.sleep", pause)
    logs_command(running.root, 0, follow=True)
    assert shown == "begun\nwhile it is asked\n"


def test_what_is_wrong_besides_slurm_ends_the_following(
    running: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    (running.jobs()[0].slurm / "12_0_log.out").touch()

    def gone(_: Path) -> bool:
        raise OSError("the disk is gone")

    monkeypatch.setattr("launcher.commands.logs._is_over", gone)
    monkeypatch.setattr("launcher.commands.logs.sleep", lambda _: None)
    with pytest.raises(OSError, match="the disk is gone"):
        logs_command(running.root, 0, follow=True)


def test_a_log_that_is_not_there_is_told_though_slurm_does_not_answer(
    running: RunDir, fake: FakeSlurm
) -> None:
    fake.answers("sacct", "")
    fake.answers("squeue", errors="slurm_load_jobs error: Socket timed out\n", status=1)
    with pytest.raises(UserError, match=r"no such log; nor does Slurm say .*Socket timed out"):
        logs_command(running.root)
