"""starts.jsonl: what a submitted run has been through, one line for each start and each end."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from typing import Any

from distill.json_lines import read_objects
from distill.run_dir import RunDir

SAME_STEP_LIMIT = 3
"""Failures at the same step after which a run is not started again."""
NO_PROGRESS_LIMIT = 10
"""Failures at any step, with no new checkpoint between them, after which it is not either: where
memory runs out it does so at another step each time, and a job would be started for ever. So it
would where its time is shorter than what comes before its first step: stops without one count."""


@dataclass(frozen=True)
class End:
    """How one start ended.

    Attributes:
        kind: ``complete``, ``stopped`` (by a signal; what there was is saved), ``mistake`` (the
            user's; starting again would not help) or ``failed``.
        step: optimizer steps made when it ended.
        cause: one line.
        status: exit status of srun.
    """

    kind: str
    step: int
    cause: str
    status: int


def job_number() -> str:
    """Number of the job that this process belongs to, `12_3` in an array; empty outside of one."""
    array, index = (os.environ.get(f"SLURM_ARRAY_{name}") for name in ("JOB_ID", "TASK_ID"))
    return f"{array}_{index}" if array and index else os.environ.get("SLURM_JOB_ID", "")


def restart_count() -> int:
    """How often this job was started again."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


def add_start(run: RunDir, where: dict[str, Any], step: int, total_steps: int) -> None:
    """The ranks have met and are about to train."""
    _add(run, {"event": "start", **where, "step": step, "total_steps": total_steps})


def add_end(run: RunDir, job: str, restart: int, end: End, action: str) -> None:
    """All ranks have left."""
    _add(run, {"event": "end", "job": job, "restart": restart, **vars(end), "action": action})


def _add(run: RunDir, line: dict[str, Any]) -> None:
    text = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **line})
    with run.starts.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # cut off by a kill; this line shall not be lost with it
                file.write(b"\n")
        file.write(text.encode() + b"\n")


def read_starts(run: RunDir) -> list[dict[str, Any]]:
    """The whole lines, oldest first."""
    return [line for line in read_objects(run.starts) if "event" in line]


def ends_in_a_row(run: RunDir, job: str, kind: str, first: int, last: int) -> int:
    """How many of the last ends were of ``kind``, of ``job``, at steps ``first`` to ``last``.

    Those of an earlier job do not count: who submitted this one has seen them.
    """
    ends = [line for line in read_starts(run) if line["event"] == "end"]
    count = 0
    for end in reversed(ends):
        if (end["job"], end["kind"]) != (job, kind) or not first <= end["step"] <= last:
            break
        count += 1
    return count
