"""`pairdistill logs`: what a rank of a run wrote, and goes on writing."""

from __future__ import annotations

import itertools
import shutil
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Annotated

import typer

from distill.console import warn
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
    looks = _while_it_lasts(run)
    if follow:
        _wait_for_log(run, job, rank, looks)
    path = log_path(run, job, rank)
    place = _show_from(path, 0)
    if follow:
        for _ in looks:
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
    try:
        return over if _is_over(run) else "the job has not begun"
    except UserError as silence:
        return f"nor does Slurm say where the job is ({silence.what})"


def _wait_for_log(run: Path, job: Submitted, rank: int, looks: Iterator[None]) -> None:
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
        for _ in looks:
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
    """Again and again until the job is known to be over; Slurm is asked now and then.

    A controller that does not answer is told of once: the log is there without it.
    """
    answer: Future[bool] | None = None
    told = False
    for polls in itertools.count(1):
        sleep(_POLL_SECONDS)
        if answer is None and polls % _POLLS_PER_QUESTION == 0:
            answer = _question(run)
        if answer is not None and answer.done():
            silence = answer.exception()
            if silence is None and answer.result():
                return
            if silence is not None and not isinstance(silence, UserError):
                raise silence
            if silence is not None and not told:
                warn(f"{silence.what}; the log is followed all the same, and Slurm asked again")
                told = True
            answer = None
        yield


def _question(run: Path) -> Future[bool]:
    """Whether the job is over, asked beside the reader: a busy controller takes minutes to say."""
    answer: Future[bool] = Future()

    def ask() -> None:
        try:
            answer.set_result(_is_over(run))
        except Exception as error:  # noqa: BLE001 - it is raised where the answer is looked at
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()  # no end of the command waits for it
    return answer


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
