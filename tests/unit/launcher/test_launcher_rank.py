"""The life of a rank: what it leaves, and with which status."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from distill.processes.notes import NOTES
from distill.processes.spawn import PARENT
from distill.processes.stop import StoppedEarly
from distill.run_dir import JobDir
from launcher.entry import Entry
from launcher.inside import rank


def test_every_rank_of_a_node_finds_the_folder_of_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    job = JobDir(tmp_path)
    for _ in range(2):  # one makes it, another finds it
        environment: dict[str, str] = {}
        rank._prepare_notes(job, environment)
        assert environment == {NOTES: str(job.notes(2)), PARENT: str(os.getppid())}
    assert job.notes(2).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(("by", "status"), [(None, 0), ("SIGTERM", 143), ("SIGUSR2", 140)])
def test_a_rank_that_somebody_else_started_says_what_stopped_it(
    monkeypatch: pytest.MonkeyPatch, by: str | None, status: int
) -> None:
    def run_rank(_: Path) -> dict[str, Any]:
        return {"step": 3, "stopped_by": by}

    monkeypatch.setattr(rank, "run_rank", run_rank)
    monkeypatch.setattr(sys, "argv", ["rank", "job.json"])
    with pytest.raises(SystemExit) as end:
        rank._main()
    assert end.value.code == status


def test_one_that_was_stopped_before_the_ranks_met_says_so_as_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_rank(_: Path) -> dict[str, Any]:
        raise StoppedEarly(signal.SIGUSR2, "while packs were copied")

    monkeypatch.setattr(rank, "run_rank", run_rank)
    monkeypatch.setattr(sys, "argv", ["rank", "job.json"])
    with pytest.raises(SystemExit) as end:
        rank._main()
    assert end.value.code == 140
    told = "error: stopped by SIGUSR2 while packs were copied; the same command goes on\n"
    assert capsys.readouterr().err == told


def test_a_job_that_is_told_to_leave_before_it_listens_begins_the_same_again() -> None:
    again = Entry("/runs/a/job.json").checkpoint()
    assert again.function == Entry("/runs/a/job.json")
    assert (again.args, again.kwargs) == ((), {})
