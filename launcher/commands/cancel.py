"""`pairdistill cancel`: end the jobs of runs; their checkpoints stay."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distill.errors import UserError

if TYPE_CHECKING:
    from distill.run_dir import RunDir

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

    **Examples**

        pairdistill cancel runs/a runs/b

        pairdistill cancel runs/a --save
    """
    from distill.console import say
    from launcher.status import find_runs

    for run in find_runs(runs):
        say(cancel(run, save=save))


def cancel(run: RunDir, *, save: bool) -> str:
    """End the newest job of a run; what was done, in one line.

    Raises:
        UserError: nothing was submitted for it, or Slurm refuses.
    """
    from launcher import slurm
    from launcher.submit import Submitted

    job = Submitted.of(run)
    if job is None:
        raise UserError(f"{str(run.root)!r}: no job was submitted for it", fix=_NO_JOB)
    if job.cluster != "slurm":
        return _cancel_here(run, int(job.number))
    words = ["--signal=INT"] if save else []
    slurm.ask("scancel", *words, job.number)
    return f"{run.root}: job {job.number} {'saves and ends' if save else 'cancelled'}"


def _cancel_here(run: RunDir, controller: int) -> str:
    """On this machine: the parent of the ranks passes it on, and they save."""
    from launcher.status import is_locked

    if not is_locked(run):
        return f"{run.root}: does not run"
    tasks = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
    for task in tasks:
        os.kill(int(task), signal.SIGINT)
    return f"{run.root}: process {controller} saves and ends"
