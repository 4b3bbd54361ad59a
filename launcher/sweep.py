"""Many runs of one configuration: which they are, one job array for all, and what came of them.

SWEEP/
    sweep.json        the points, and what was asked for
    runs/000/         a run folder for each point, see `distill.run_dir`
    jobs/0001/        one submission: a copy of the sources for all, script and logs
    sweep.png         the picture of the results
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from distill.errors import UserError
from distill.files import write_whole
from distill.monitor.metrics_file import read_metrics
from distill.run_dir import JobDir, RunDir
from launcher.entry import Entry
from launcher.points import Point
from launcher.script import make_executor
from launcher.slurm import ENDED
from launcher.snapshot import take_snapshot
from launcher.status import RunStatus, statuses, statuses_so_far
from launcher.submit import (
    Request,
    discard,
    hand_over,
    keep_script,
    not_noted,
    private,
    write_job,
)
from launcher.submitted import Submitted, newest


@dataclass(frozen=True)
class Sweep:
    """A sweep.

    Attributes:
        root: its folder.
        points: for each run the settings that it varies, `{"loss.weight": 0.5}`.
        metric: scalar of metrics.jsonl that runs are compared by.
        request: what was asked for, as plain data, so that runs can be submitted again.
    """

    root: Path
    points: list[Point]
    metric: str
    request: dict[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        """Its points, and what was asked for."""
        return self.root / "sweep.json"

    def run(self, index: int) -> RunDir:
        """Folder of a run."""
        return RunDir(self.root / "runs" / f"{index:03d}")

    @property
    def runs(self) -> list[RunDir]:
        """Folders of all runs."""
        return [self.run(index) for index in range(len(self.points))]

    def recorded(self, index: int) -> Path | None:
        """The settings that a run was last submitted with; None before anything was.

        Where the folder of the run was removed, those of another one: they differ in its point.
        """
        jobs = (newest(run) for run in (self.run(index), *self.runs))
        return next((job.config_toml for job in jobs if job is not None), None)

    def write(self) -> None:
        """Write sweep.json."""
        kept = {"points": self.points, "metric": self.metric, "request": self.request}
        write_whole(self.file, json.dumps(kept, indent=1).encode())

    @classmethod
    def read(cls, root: Path) -> Sweep:
        """What `write` wrote.

        Raises:
            UserError: no sweep is there.
        """
        path = root / "sweep.json"
        try:
            return cls(root=root, **json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise UserError(
                f"{str(root)!r}: no sweep there", fix="name the folder that `sweep` made"
            ) from None
        except (OSError, ValueError, TypeError) as error:
            raise UserError(
                f"{str(path)!r}: cannot be read ({error})", fix="name the folder of another sweep"
            ) from None


def submit_sweep(sweep: Sweep, requests: Mapping[int, Request], parallel: int) -> str:
    """Submit runs of a sweep as one job array; its number.

    Args:
        sweep: the sweep; its folder is made if need be.
        requests: by index of the run; alike but for their settings.
        parallel: runs at a time; 0 for as many as the cluster gives.

    Raises:
        UserError: a folder cannot be written, or Slurm refuses; then nothing is left of it.
    """
    job = RunDir(sweep.root).next_job()
    folders: list[JobDir] = []
    asked = most_cores(requests)
    more = {"array_parallelism": parallel or len(requests)}
    try:
        with private(job):
            digest = take_snapshot(job)
            sweep.write()
            for index, request in requests.items():
                folders.append(_prepare_run(sweep, index, request, digest, job))
            files = [str(folder.job_json) for folder in folders]
            write_whole(job.tasks, json.dumps(files).encode())
        executor = make_executor(job, sweep.root.name, asked.wanted, asked.site, **more)
        numbers = hand_over(executor, [Entry(file) for file in files], job)
    except UserError:
        _discard(sweep, folders)
        raise
    array = numbers[0].split("_")[0]
    keep_script(executor, array, job)
    now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    with not_noted(array):
        for folder, number in zip(folders, numbers, strict=True):
            Submitted(number, "slurm", str(job.slurm), now).write(folder)
    return array


def most_cores(requests: Mapping[int, Request]) -> Request:
    """The request that stands for all: they differ at most in cores, where data.workers varies."""
    return max(requests.values(), key=lambda request: request.wanted.cpus_per_rank)


def _prepare_run(sweep: Sweep, index: int, request: Request, digest: str, array: JobDir) -> JobDir:
    """Folder of one run's submission; its sources and logs are those of the array."""
    (sweep.root / "runs").mkdir(mode=0o700, exist_ok=True)
    folder = sweep.run(index).next_job()
    with private(folder):
        folder.slurm.rmdir()
        write_job(request, folder, digest, array.slurm)
    return folder


def _discard(sweep: Sweep, folders: Sequence[JobDir]) -> None:
    """Leave nothing in the runs of a submission that was refused; nor of a sweep without any."""
    for folder in folders:
        discard(folder)
    if not any(run.root.exists() for run in sweep.runs):
        sweep.file.unlink(missing_ok=True)
        for empty in (sweep.root / "runs", sweep.root):
            with suppress(OSError):  # it is not there, or there is something else in it
                empty.rmdir()


def failed(sweep: Sweep) -> list[int]:
    """Indices of runs whose job has ended and that are not complete."""
    found = enumerate(statuses(sweep.runs))
    over = {*ENDED, "ENDED", "UNKNOWN"}
    return [i for i, s in found if s.state in over and not sweep.run(i).complete.exists()]


@dataclass(frozen=True)
class Result:
    """One run of a sweep: its point, where it stands, and the last value of the metric."""

    point: Point
    status: RunStatus
    value: float | None


def results(sweep: Sweep) -> tuple[list[Result], UserError | None]:
    """What has come of each run so far; and why Slurm did not say where their jobs are."""
    states, silence = statuses_so_far(sweep.runs)
    found = zip(sweep.points, sweep.runs, states, strict=True)
    shown = [Result(point, status, _last(run, sweep.metric)) for point, run, status in found]
    return shown, silence


def _last(run: RunDir, metric: str) -> float | None:
    """The newest value of a metric; None where none was logged."""
    values = [line[metric] for line in read_metrics(run.metrics) if line.get(metric) is not None]
    return float(values[-1]) if values else None


def as_plain(result: Result) -> dict[str, Any]:
    """A result as plain data."""
    return {"point": result.point, "value": result.value, **asdict(result.status)}
