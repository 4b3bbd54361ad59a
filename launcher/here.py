"""Jobs on this machine: beside this process (`local`), or in it (`debug`)."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import submitit

from distill.run_dir import JobDir
from launcher import slurm
from launcher.entry import Entry
from launcher.resources import Resources
from launcher.site import Site

_GPUS = "CUDA_VISIBLE_DEVICES"
_A_CENTURY_MIN = 100 * 365 * 24 * 60
"""submitit knows no job without a limit."""


def begin_here(job: JobDir, wanted: Resources, site: Site) -> str:
    """Start a prepared job beside this process, which may end; the number of its process."""
    _run_the_copy(job)
    executor = make_local_executor(job, wanted, site)
    with slurm.clean_environment(), _output_to(job.slurm / "controller.log"):
        return str(executor.submit(Entry(str(job.job_json))).job_id)


def run_here(job: JobDir) -> str:
    """Run a prepared job in this process; the number of the process."""
    _run_the_copy(job)
    with slurm.clean_environment():  # in `srun --pty bash` too there are ranks to be started
        submitit.DebugExecutor(folder=job.slurm).submit(Entry(str(job.job_json))).result()
    return str(os.getpid())


def make_local_executor(job: JobDir, wanted: Resources, site: Site) -> submitit.LocalExecutor:
    """Submitit's executor for a job beside this process.

    Its processes see the GPUs that this one sees: submitit sets CUDA_VISIBLE_DEVICES to the first
    of the machine, as many as it was asked for, whatever it was before; so `env` sets it again.

    Args:
        job: folder of the submission.
        wanted: what it asks for; only the time limit matters.
        site: says how long before that limit the job is told to save and leave.
    """
    shown = os.environ.get(_GPUS)
    again = ["-u", _GPUS] if shown is None else [f"{_GPUS}={shown}"]
    executor = submitit.LocalExecutor(
        folder=job.slurm, python=shlex.join(["env", *again, sys.executable])
    )
    executor.update_parameters(
        timeout_min=wanted.time_min or _A_CENTURY_MIN,
        signal_delay_s=site.signal_seconds,
        tasks_per_node=1,
    )
    return executor


def _run_the_copy(job: JobDir) -> None:
    """What this process starts imports the copy of the sources, wherever it is started."""
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, (str(job.code), os.environ.get("PYTHONPATH", "")))
    )
    os.environ["PYTHONSAFEPATH"] = "1"


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Processes started in the block write to a file: who reads our output need not wait."""
    kept = [os.dup(1), os.dup(2)]
    sys.stdout.flush()
    try:
        with path.open("ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            yield
    finally:
        for number, handle in enumerate(kept, 1):
            os.dup2(handle, number)
            os.close(handle)
