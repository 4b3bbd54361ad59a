"""`pairdistill cancel`: end the jobs of runs; their checkpoints stay."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distill.errors import UserError

if TYPE_CHECKING:
    from distill.run_dir import RunDir
    from launcher.submitted import Submitted

_NO_JOB = "stop `train` by Ctrl-C where it was started, or by TERM"


def cancel_command(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Run folders.", show_default=False)
    ],
    save: Annotated[
        bool, typer.Option("--save", help="Save first: the job leaves at its next step.")
    ] = False,
) -> None:
    """End the jobs of runs for good; `submit --resume` goes on from the newest checkpoint.

    One that waits or has not made a step yet has nothing to save, and ends at once.

    **Examples**

        pairdistill cancel runs/a runs/b

        pairdistill cancel runs/a --save
    """
    from distill.console import say, warn
    from launcher.status import find_runs

    refused: list[UserError] = []
    for run in find_runs(runs):
        try:
            say(cancel(run, save=save))
        except UserError as error:  # the others are to end all the same
            refused.append(error)
    for further in refused[1:]:
        warn(str(further))
    if refused:
        raise refused[0]


def cancel(run: RunDir, *, save: bool) -> str:
    """End the newest job of a run; what was done, in one line.

    Raises:
        UserError: nothing was submitted for it, or Slurm refuses.
    """
    from launcher.submitted import Submitted

    job = Submitted.of(run)
    if job is None:
        raise UserError(f"{str(run.root)!r}: no job was submitted for it", fix=_NO_JOB)
    done = _cancel_job(run, job.number, save) if job.cluster == "slurm" else _cancel_here(run, job)
    return f"{run.root}: {done}"


def _cancel_job(run: RunDir, number: str, save: bool) -> str:
    """In a queue: `scancel`, which says nothing of a job that has ended, or passes on a Ctrl-C."""
    from launcher import slurm

    known = slurm.in_queue().get(number)
    if known is None or known.has_ended:
        return f"job {number} has ended already"
    if save and known.state != "PENDING" and _listens(run, number):
        slurm.ask("scancel", "--signal=INT", number)
        return f"job {number} saves and ends"
    slurm.ask("scancel", number)
    return f"job {number} cancelled{', it had nothing to save' if save else ''}"


def _listens(run: RunDir, number: str) -> bool:
    """Whether the ranks of this start of the job have met.

    Before that a signal would be lost, and the job would train on, or would end a rank, and the job
    would be requeued for that.
    """
    from launcher import slurm
    from launcher.starts import read_starts

    lines = [line for line in read_starts(run) if line["job"] == number]
    return bool(lines) and (
        (lines[-1]["event"], lines[-1]["restart"]) == ("start", slurm.restarts(number))
    )


def _cancel_here(run: RunDir, job: Submitted) -> str:
    """On this machine: the parent of the ranks passes it on, and they save."""
    from distill.run_lock import is_held

    if not job.lives_here():
        return "does not run"
    number, saves = job.number, is_held(run.lock)
    with suppress(FileNotFoundError, ProcessLookupError):  # it ends by itself
        tasks = Path(f"/proc/{number}/task/{number}/children").read_text().split()
        for process in tasks or [number]:
            os.kill(int(process), signal.SIGINT)
    return f"process {number} {'saves and ends' if saves else 'ends, it had nothing to save'}"
