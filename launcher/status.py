"""Where runs stand: what Slurm says of their jobs, and what they wrote themselves."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.errors import UserError
from distill.json_lines import objects_of
from distill.run_dir import RunDir
from distill.run_lock import is_held
from launcher import slurm
from launcher.starts import read_starts
from launcher.submitted import Submitted

_DEPTH = 3
_TAIL_BYTES = 1 << 16
_NO_ANSWER = slurm.Accounted("NO ANSWER", "", "")


@dataclass(frozen=True)
class RunStatus:
    """One run.

    Attributes:
        run: its folder.
        job: number of its newest job; empty for a run that was not submitted.
        state: Slurm's state of it, or `COMPLETED`, `RUNNING`, `ENDED` of a run on this machine;
            `UNKNOWN` where Slurm has forgotten it, `NO ANSWER` where Slurm said nothing.
        reason: why it waits, or how its last start ended; empty where it is complete.
        nodes: where it is or was.
        step: newest logged step.
        total_steps: steps of the whole run; 0 where it has not begun.
        loss: the newest total loss; None before the first.
        losses: the newest losses by name, the total and its parts.
        images_per_second: newest throughput; None before the first.
        eta_seconds: until the last step at the newest speed; None unless it runs.
        checkpoints: steps of its checkpoints.
        starts: how often it was started; 0 for a run that was not submitted, which nobody counts.
    """

    run: str
    job: str
    state: str
    reason: str
    nodes: str
    step: int
    total_steps: int
    loss: float | None
    losses: dict[str, float]
    images_per_second: float | None
    eta_seconds: float | None
    checkpoints: list[int]
    starts: int


def find_runs(paths: Sequence[Path]) -> list[RunDir]:
    """The runs at or below ``paths``, by name.

    Raises:
        UserError: a path that is no folder or cannot be read, or no run anywhere.
    """
    try:
        for path in paths:
            if not path.is_dir():
                raise UserError(f"{str(path)!r}: no such folder", fix="name a run folder")
        found = [run for path in paths for run in _runs_below(path, _DEPTH)]
    except PermissionError as error:
        raise UserError(
            f"{error.filename!r}: cannot be read ({error.strerror})", fix="name runs of your own"
        ) from None
    if not found:
        names = ", ".join(repr(str(path)) for path in paths)
        raise UserError(f"no run in {names}", fix="name a folder that `submit` or `train` wrote to")
    return found


def _runs_below(path: Path, depth: int) -> Iterator[RunDir]:
    run = RunDir(path)
    if run.config_toml.exists() or (Submitted.of(run) is not None):
        yield run
    elif depth > 0:
        for child in sorted(path.iterdir()):
            with suppress(PermissionError, FileNotFoundError):  # of others, or removed meanwhile
                if child.is_dir() and not child.is_symlink():
                    yield from _runs_below(child, depth - 1)


def statuses(runs: Iterable[RunDir]) -> list[RunStatus]:
    """Where each run stands; Slurm is asked once for all.

    Raises:
        UserError: it does not answer.
    """
    found, silence = statuses_so_far(runs)
    if silence is not None:
        raise silence
    return found


def statuses_so_far(runs: Iterable[RunDir]) -> tuple[list[RunStatus], UserError | None]:
    """`statuses` to be looked at, and why Slurm did not answer: what runs wrote is there all the
    same, and a job that only the controller knows is at `NO ANSWER`.
    """
    submitted = [(run, Submitted.of(run)) for run in runs]
    numbers = [job.number for _, job in submitted if job and job.cluster == "slurm"]
    known, silence = slurm.accounted_so_far(numbers)
    if silence is not None:
        known = dict.fromkeys(numbers, _NO_ANSWER) | known
    found = [_status(run, job, known.get(job.number if job else "")) for run, job in submitted]
    return found, silence


def _status(run: RunDir, job: Submitted | None, known: slurm.Accounted | None) -> RunStatus:
    lines = read_starts(run)
    starts = [line for line in lines if line["event"] == "start"]
    ends = [line for line in lines if line["event"] == "end"]
    newest = _newest_numbers(run)
    total = _steps_here(run) or (int(starts[-1]["total_steps"]) if starts else 0)
    if known is _NO_ANSWER and run.complete.exists():
        known = None
    state = known.state if known else _local_state(run, job)
    step = int(newest.get("step", 0))
    return RunStatus(
        run=str(run.root),
        job=job.number if job else "",
        state=state,
        reason=_reason(run, job, known, ends) if state != "COMPLETED" else "",
        nodes=known.nodes if known else "",
        step=step,
        total_steps=total,
        loss=newest.get("loss/total"),
        losses=_losses(newest),
        images_per_second=newest.get("speed/images_per_second"),
        eta_seconds=_eta(newest, total - step) if state == "RUNNING" and total else None,
        checkpoints=run.checkpoint_steps(),
        starts=len(starts),
    )


def _reason(
    run: RunDir,
    job: Submitted | None,
    known: slurm.Accounted | None,
    ends: Sequence[dict[str, Any]],
) -> str:
    """Why it waits, or how its last start ended; Slurm's reason for having waited stays."""
    if known and known.state == "PENDING" and known.reason:
        return known.reason
    if known and known.state == "TIMEOUT":
        return "its time limit came before it had saved and left: raise the site's signal_seconds"
    causes = [str(end["cause"]) for end in ends if job and end["job"] == job.number]
    if not causes and job and known and known.state == "FAILED" and not job.log_names():
        return f"it wrote no log: can the nodes write to {run.root}?"
    return causes[-1] if causes else ""


def _losses(newest: dict[str, Any]) -> dict[str, float]:
    group = "loss/"
    return {tag.removeprefix(group): v for tag, v in newest.items() if tag.startswith(group)}


def _eta(newest: dict[str, Any], steps_left: int) -> float | None:
    seconds = newest.get("speed/seconds_per_step")
    return None if seconds is None else round(seconds * steps_left, 1)


def _newest_numbers(run: RunDir) -> dict[str, Any]:
    """The last whole line of the metrics with a loss; only the end of the file is read."""
    try:
        with run.metrics.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            logged = list(objects_of(file.read()))
    except OSError:  # none yet, or a log that has gone bad, which training does without
        return {}
    return next((line for line in reversed(logged) if "loss/total" in line), {})


def _steps_here(run: RunDir) -> int:
    """Steps of a run that was not submitted; 0 before it has begun."""
    says = run.complete if run.complete.exists() else run.length
    try:
        return int(json.loads(says.read_text(encoding="utf-8"))["steps"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _local_state(run: RunDir, job: Submitted | None) -> str:
    """State of a run that Slurm knows nothing of."""
    if run.complete.exists():
        return "COMPLETED"
    if job is not None and job.cluster == "slurm":
        return "UNKNOWN"
    return "RUNNING" if is_held(run.lock) or (job and job.lives_here()) else "ENDED"
