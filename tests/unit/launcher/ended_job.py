"""What a job leaves behind, written by hand, and what came of it."""

from __future__ import annotations

import json

from fake_slurm import FakeSlurm

from distill.processes.notes import Note
from distill.processes.watchdog import Beat
from distill.run_dir import JobDir, RunDir
from launcher.starts import read_starts


def beat(run: RunDir, rank: int, step: int) -> None:
    Beat(rank, "node1", 1, step, "forward", 5, 0.0, 0.0).write(run.ranks)


def note(job: JobDir, rank: int, status: int, text: str, *, when: int, secondary: bool) -> None:
    found = Note(rank, when, status, text, secondary)
    (job.notes(0) / f"rank{rank}.json").write_text(json.dumps(vars(found)))


def outcome(job: JobDir, stopped_by: str | None) -> None:
    ended = json.dumps({"step": 40, "stopped_by": stopped_by})
    (job.notes(0) / "outcome.json").write_text(ended)


def last(job: JobDir) -> dict[str, object]:
    return read_starts(RunDir(job.root.parents[1]))[-1]


def requeued(fake: FakeSlurm) -> bool:
    calls = fake.calls("scontrol")
    assert calls in ([], ["requeue", "12"]), "at most once"
    return bool(calls)
