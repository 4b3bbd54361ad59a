"""The life of one rank of a job: find its place, bind, train, and leave a word of how it ended.

`enter` is called by submitit, in every rank that srun started; on one machine (``--cluster local``
or ``debug``) in a single process, which starts the ranks. `python -m launcher.inside.rank JOB.json`
is a rank that somebody else started, with the variables of torchrun.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import MutableMapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.config import load_config
from distill.errors import UserError
from distill.files import write_whole
from distill.processes.leave import run_and_leave
from distill.processes.notes import NOTES
from distill.processes.spawn import PARENT, spawn_local, spawned_rank
from distill.processes.stop import StoppedEarly, StopRequests
from distill.run_dir import JobDir, RunDir
from launcher.inside.binding import bind
from launcher.inside.outcome import OUTCOME
from launcher.inside.rendezvous import place, way
from launcher.inside.staging import minutes_to_stage, staged
from launcher.jobfile import JobFile
from launcher.starts import add_start, job_number, restart_count

if TYPE_CHECKING:
    from distill.train import Outcome


def enter(job_file: str) -> dict[str, Any]:
    """A process of submitit: a rank, or on one machine the parent of all.

    Returns:
        How it ended, for submitit's files: the step, and the signal that stopped it or None.
    """
    if way(os.environ) == "slurm":
        _prepare_notes(JobDir(Path(job_file).parent), os.environ)
        return run_rank(Path(job_file))
    ranks = JobFile.read(Path(job_file)).world_size
    program = (sys.executable, "-m", "launcher.inside.rank")
    status = spawn_local([job_file], ranks, program=program)
    if status:
        raise UserError(f"the ranks ended with status {status}", fix="see the log above")
    return {"status": status}


def _prepare_notes(job: JobDir, environment: MutableMapping[str, str]) -> None:
    """Where this start's ranks say why they failed; and with whom this one dies."""
    notes = job.notes(restart_count())
    notes.mkdir(mode=0o700, parents=True, exist_ok=True)
    environment.update({NOTES: str(notes), PARENT: str(os.getppid())})


def run_rank(job_file: Path) -> dict[str, Any]:
    """Be one rank; does not return where it fails, but leaves a note (`processes.notes`)."""
    os.umask(0o077)
    with spawned_rank(), StopRequests() as stops:
        outcome = _train(job_file, stops)
        ended: dict[str, Any] = {
            "step": outcome.step,
            "stopped_by": outcome.stopped_by.name if outcome.stopped_by else None,
        }
        if os.environ.get("RANK") == "0" and NOTES in os.environ:
            write_whole(Path(os.environ[NOTES]) / OUTCOME, json.dumps(ended).encode())
        return ended
    raise AssertionError("a rank that fails has left")


def take_place() -> None:
    """Learn where this rank is among the others, and bind it where srun started it.

    Elsewhere each rank is shown what its starter was shown, and takes the GPU of its number.

    Raises:
        UserError: see `place` and `bind`.
    """
    by_srun = way(os.environ) == "slurm"  # with the variables of a place it looks like torchrun
    os.environ.update(place(os.environ))
    if by_srun:
        bind(int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"]))


def _train(job_file: Path, stops: StopRequests) -> Outcome:
    job, folder = JobFile.read(job_file), JobDir(job_file.parent)
    take_place()
    asked = load_config(job.config)
    config = stops.ending(lambda: staged(asked, job.scratch), "while packs were copied")

    from distill.ranks import from_environment  # torch, from here on
    from distill.train import train
    from launcher.inside.checks import check_all, check_device, write_report

    def before_steps(engine: Any, plan: Any, state: Any) -> None:
        found = check_all(job, config, engine, plan)
        if engine.ranks.is_first:
            write_report(folder.checks, found)
            where = {"job": job_number(), "restart": restart_count()}
            where |= {"hosts": found["hosts"], "ranks": engine.ranks.world_size}
            add_start(RunDir(Path(job.run)), where, state.step, plan.total_steps)
            sys.stdout.write(f"start-up checks passed: {json.dumps(found)}\n")

    ranks = replace(from_environment(config), late_min=minutes_to_stage(config, job.scratch))
    check_device(job, config, ranks)
    return train(config, ranks, stops=stops, before_steps=before_steps)


def _main() -> None:
    try:
        ended = run_rank(Path(sys.argv[1]))
    except StoppedEarly as early:  # where nobody asked for notes
        sys.stderr.write(f"error: {early}\n")
        sys.exit(early.exit_status)
    sys.exit(128 + signal.Signals[ended["stopped_by"]] if ended["stopped_by"] else 0)


if __name__ == "__main__":
    run_and_leave(_main)
