"""`pairdistill logs`: what a rank of a run wrote, and goes on writing."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from distill.errors import UserError

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
    logs, name = logs_of(run)
    if follow:
        _wait_for_any(run, logs, name)
    path = log_path(logs, name, rank)
    place = _show_from(path, 0)
    if follow:
        for _ in _while_it_lasts(run):
            place = _show_from(path, place)
        _show_from(path, place)


def logs_of(run: Path) -> tuple[Path, str]:
    """Folder of the logs of the newest submission, and the number of its job.

    Raises:
        UserError: nothing was submitted there.
    """
    from distill.run_dir import RunDir
    from launcher.submit import Submitted

    job = Submitted.of(RunDir(run))
    if job is None:
        raise UserError(f"{str(run)!r}: no job was submitted for it", fix=_NO_LOG)
    return Path(job.logs), job.number


def _logs(logs: Path, job: str) -> list[str]:
    return sorted(path.name for path in logs.glob(f"{job}_*_log.out"))


def log_path(logs: Path, job: str, rank: int) -> Path:
    """The log of a rank.

    Raises:
        UserError: that rank has written nothing.
    """
    path = logs / f"{job}_{rank}_log.out"
    if not path.exists():
        others = _logs(logs, job)
        state = f"there are {', '.join(others)}" if others else "the job has not begun"
        raise UserError(f"{str(path)!r}: no such log; {state}", fix="see `pairdistill status`")
    return path


def _wait_for_any(run: Path, logs: Path, job: str) -> None:
    """Wait while the job does; it has no logs then."""
    if not _logs(logs, job):
        sys.stderr.write(f"job {job} has not begun; its log will appear here\n")
        for _ in _while_it_lasts(run):
            if _logs(logs, job):
                return


def _while_it_lasts(run: Path) -> Iterator[None]:
    """Again and again until the job is over; Slurm is asked now and then."""
    for polls in itertools.count(1):
        time.sleep(_POLL_SECONDS)
        if polls % _POLLS_PER_QUESTION == 0 and _is_over(run):
            return
        yield


def _show_from(path: Path, place: int) -> int:
    """Print what comes after ``place``; the new place."""
    with path.open("rb") as file:
        file.seek(place)
        while chunk := file.read(1 << 16):
            sys.stdout.write(chunk.decode(errors="replace"))
        sys.stdout.flush()
        return file.tell()


def _is_over(run: Path) -> bool:
    from distill.run_dir import RunDir
    from launcher.slurm import ENDED
    from launcher.status import statuses

    (status,) = statuses([RunDir(run)])
    return status.state in {*ENDED, "ENDED", "UNKNOWN"}
