"""`pairdistill logs`: what a rank of a run wrote, and goes on writing."""

from __future__ import annotations

import itertools
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distill.errors import UserError

if TYPE_CHECKING:
    from launcher.submitted import Submitted

_POLL_SECONDS = 0.5
_POLLS_PER_QUESTION = 20
_NO_LOG = "`submit` gives a run logs; what `train` says is on the terminal it was started from"


def logs_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.", show_default=False)],
    rank: Annotated[int, typer.Option("--rank", min=0, help="Whose log.")] = 0,
    follow: Annotated[
        bool,
        typer.Option("-f", "--follow", help="Wait for it and go on until the job ends, or Ctrl-C."),
    ] = False,
) -> None:
    """Show the log of a rank; that of rank 0 has the words of Slurm and of the script too.

    **Examples**

        pairdistill logs runs/a -f

        pairdistill logs runs/a --rank 7
    """
    job = job_of(run)
    if follow:
        _wait_for_log(run, job, rank)
    path = log_path(run, job, rank)
    place = _show_from(path, 0)
    if follow:
        for _ in _while_it_lasts(run):
            place = _show_from(path, place)
        _show_from(path, place)


def job_of(run: Path) -> Submitted:
    """The newest submission.

    Raises:
        UserError: nothing was submitted there.
    """
    from distill.run_dir import RunDir
    from launcher.submitted import Submitted

    job = Submitted.of(RunDir(run))
    if job is None:
        raise UserError(f"{str(run)!r}: no job was submitted for it", fix=_NO_LOG)
    return job


def log_path(run: Path, job: Submitted, rank: int) -> Path:
    """The log of a rank.

    Raises:
        UserError: that rank has written nothing.
    """
    path = job.log(rank)
    if not path.exists():
        others = ", ".join(job.log_names())
        state = f"there are {others}" if others else _why_none(run)
        raise UserError(f"{str(path)!r}: no such log; {state}", fix="see `pairdistill status`")
    return path


def _why_none(run: Path) -> str:
    over = "the job is over and wrote none: was it cancelled, or can the nodes not write there?"
    return over if _is_over(run) else "the job has not begun"


def _wait_for_log(run: Path, job: Submitted, rank: int) -> None:
    """Wait while the job does; ranks begin theirs some time after the script has begun that of 0.

    Raises:
        UserError: there will be no such rank.
    """
    ranks = _ranks_with_logs(run, job)
    if rank >= ranks:
        raise UserError(
            f"--rank {rank}: there are {ranks} rank(s) with a log", fix="leave --rank away, for 0"
        )
    if not job.log(rank).exists():
        sys.stderr.write(f"job {job.number} has not begun; its log will appear here\n")
        for _ in _while_it_lasts(run):
            if job.log(rank).exists():
                return


def _ranks_with_logs(run: Path, job: Submitted) -> int:
    """On this machine what the others say goes through the first."""
    from distill.run_dir import RunDir
    from launcher.jobfile import JobFile
    from launcher.submitted import newest

    folder = newest(RunDir(run))
    assert folder is not None
    return JobFile.read(folder.job_json).world_size if job.cluster == "slurm" else 1


def _while_it_lasts(run: Path) -> Iterator[None]:
    """Again and again until the job is over; Slurm is asked now and then."""
    for polls in itertools.count(1):
        time.sleep(_POLL_SECONDS)
        if polls % _POLLS_PER_QUESTION == 0 and _is_over(run):
            return
        yield


def _show_from(path: Path, place: int) -> int:
    """Print what comes after ``place``, as it is: letters may be cut anywhere; the new place."""
    with path.open("rb") as file:
        file.seek(place)
        sys.stdout.flush()
        shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.flush()
        return file.tell()


def _is_over(run: Path) -> bool:
    from distill.run_dir import RunDir
    from launcher.slurm import ENDED
    from launcher.status import statuses

    (status,) = statuses([RunDir(run)])
    return status.state in {*ENDED, "ENDED", "UNKNOWN"}
