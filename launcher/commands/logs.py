"""`pairdistill logs`: what a rank of a run wrote, and goes on writing."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from distill.errors import UserError

_POLL_SECONDS = 0.5
_POLLS_PER_QUESTION = 20


def logs_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.", show_default=False)],
    rank: Annotated[int, typer.Option("--rank", min=0, help="Whose log.")] = 0,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on until the job ends, or Ctrl-C.")
    ] = False,
) -> None:
    """Show the log of a rank; that of rank 0 has the words of Slurm and of the script too.

    **Examples**

        pairdistill logs runs/a -f

        pairdistill logs runs/a --rank 7
    """
    path = log_path(run, rank)
    place = _show_from(path, 0)
    polls = 0
    while follow:
        time.sleep(_POLL_SECONDS)
        before, place = place, _show_from(path, place)
        polls += 1
        if place == before and polls % _POLLS_PER_QUESTION == 0 and _is_over(run):
            return


def log_path(run: Path, rank: int) -> Path:
    """The log of a rank of the newest submission.

    Raises:
        UserError: nothing was submitted there, or that rank has written nothing.
    """
    from distill.run_dir import RunDir
    from launcher.submit import Submitted

    job = Submitted.of(RunDir(run))
    if job is None:
        raise UserError(f"{str(run)!r}: no job was submitted for it", fix="name a run folder")
    name = f"{job.number}_{rank}_log.out"
    path = Path(job.logs) / name
    if not path.exists():
        others = sorted(p.name for p in path.parent.glob(f"{job.number}_*_log.out"))
        state = f"there are {', '.join(others)}" if others else "the job has not begun"
        raise UserError(f"{str(path)!r}: no such log; {state}", fix="see `pairdistill status`")
    return path


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
