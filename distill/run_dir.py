"""The one owner of every path of a run.

RUN/                      created with mode 0700: models of faces are personal data
    run.lock              held by flock while a job runs; names the holder
    config.toml           the resolved configuration of the newest start
    length.json           steps of the whole run, as the newest start knows them
    metrics.jsonl         one JSON object for each logged step
    events.jsonl          one JSON object for each step that went wrong
    tensorboard/          event files
    checkpoints/          step-NNNNNNNN/ folders, see `distill.checkpoint`
    ranks/                the newest sign of life of each rank, see `distill.processes.watchdog`
    report/               of the last evaluation: report.json and report.png, sets.json and sets.png
    model.safetensors     the trained weights
    complete.json         written last: the run needs nothing more
    starts.jsonl          one line for each start and each end of a submitted run
    jobs/0001/            one folder a submission, see `JobDir`

A folder that holds other things, and no run, is never made one. Before the first start there may
be settings and logs in it.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distill.errors import UserError
from distill.run_lock import held, not_writable

if TYPE_CHECKING:
    from collections.abc import Iterator

MAY_STAND_BEFORE = (".toml", ".out", ".err", ".log")
"""Endings of files that one puts into the folder of a run to come: its settings, what Slurm and
the shell write of it."""


@dataclass(frozen=True)
class RunDir:
    """Paths of the run that lives in ``root``; nothing is touched before `acquire`."""

    root: Path

    @property
    def lock(self) -> Path:
        """Lock file of the job that works here."""
        return self.root / "run.lock"

    @property
    def config_toml(self) -> Path:
        """Resolved configuration."""
        return self.root / "config.toml"

    @property
    def length(self) -> Path:
        """Steps of the whole run, which settings may give as epochs."""
        return self.root / "length.json"

    @property
    def metrics(self) -> Path:
        """Scalars of the logged steps, one JSON object a line."""
        return self.root / "metrics.jsonl"

    @property
    def events(self) -> Path:
        """Steps that went wrong, one JSON object a line."""
        return self.root / "events.jsonl"

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard event files."""
        return self.root / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.root / "checkpoints"

    @property
    def ranks(self) -> Path:
        """Folder of the ranks' signs of life."""
        return self.root / "ranks"

    @property
    def report(self) -> Path:
        """Folder of the evaluation report."""
        return self.root / "report"

    @property
    def weights(self) -> Path:
        """Exported weights."""
        return self.root / "model.safetensors"

    @property
    def complete(self) -> Path:
        """Marker of a finished run."""
        return self.root / "complete.json"

    @property
    def starts(self) -> Path:
        """Starts and ends of a submitted run, one JSON object a line."""
        return self.root / "starts.jsonl"

    def jobs(self) -> list[JobDir]:
        """Submissions, oldest first."""
        folders = (path for path in (self.root / "jobs").glob("*") if path.name.isdecimal())
        return [JobDir(path) for path in sorted(folders, key=lambda path: int(path.name))]

    def next_job(self) -> JobDir:
        """Folder of the submission to come."""
        jobs = self.jobs()
        last = int(jobs[-1].root.name) if jobs else 0
        return JobDir(self.root / "jobs" / f"{last + 1:04d}")

    def checkpoint_steps(self) -> list[int]:
        """Steps of the checkpoints, ascending; not verified."""
        names = (path.name.removeprefix("step-") for path in self.checkpoints.glob("step-*"))
        return sorted(int(name) for name in names if name.isdecimal())

    @contextmanager
    def acquire(self) -> Iterator[None]:
        """Create the folder if need be and hold its lock for the length of the block.

        The kernel drops the lock when the holder dies, however it dies, so a stale file never
        blocks. Only one process of a job (rank 0) may call this.

        An earlier start of the same Slurm job is waited for: where the network failed, its ranks
        may not know yet that they are not wanted any more.

        Raises:
            UserError: another job works here (it is named), the folder holds something else than
                a run, or it cannot be written.
        """
        try:
            self._refuse_foreign()
            self.root.parent.mkdir(parents=True, exist_ok=True)
            self.root.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise not_writable(self.root, error) from error
        with held(self.lock):
            yield

    def _refuse_foreign(self) -> None:
        """Leave a folder alone that holds something, and no run.

        Raises:
            UserError: it does; what it holds is named.
        """
        if not self.root.is_dir() or self._is_run():
            return
        others = (p.name for p in self.root.iterdir() if not _may_stand_before(p))
        if foreign := sorted(others):
            raise UserError(
                f"run.dir = {str(self.root)!r}: not empty, and {foreign[0]!r} in it is no part of"
                " a run",
                fix="choose another folder",
            )

    def _is_run(self) -> bool:
        """Whether a run began here, as what no other program leaves behind tells."""
        marks = self.lock, self.length, self.complete
        return any(path.exists() for path in marks) or bool(self.jobs() or self.checkpoint_steps())


@dataclass(frozen=True)
class JobDir:
    """Paths of one submission.

    RUN/jobs/0001/
        code/               the sources that run: PYTHONPATH of the job points here
        code.json           their revision and digest
        code.diff           what differed from that revision
        config.toml         the resolved configuration as it was submitted
        environment.json    versions and variables of the submitting side
        job.json            what the job is to do
        tasks.json          of an array instead: the job.json of each of its runs
        script.sh           the script as it was submitted
        submitted.json      what became of it: the number of the job
        slurm/              what submitit writes, and one log for each rank
        notes/0/            for each start: why ranks failed, or how it ended
        checks.json         what the start-up checks found
    """

    root: Path

    @property
    def code(self) -> Path:
        """The sources that run."""
        return self.root / "code"

    @property
    def code_json(self) -> Path:
        """Revision and digest of the sources."""
        return self.root / "code.json"

    @property
    def code_diff(self) -> Path:
        """What differs from the revision."""
        return self.root / "code.diff"

    @property
    def config_toml(self) -> Path:
        """Configuration as it was submitted."""
        return self.root / "config.toml"

    @property
    def environment(self) -> Path:
        """Versions and variables of the submitting side."""
        return self.root / "environment.json"

    @property
    def job_json(self) -> Path:
        """What the job is to do."""
        return self.root / "job.json"

    @property
    def tasks(self) -> Path:
        """The job.json of each run of an array."""
        return self.root / "tasks.json"

    @property
    def script(self) -> Path:
        """The script as it was submitted."""
        return self.root / "script.sh"

    @property
    def submitted(self) -> Path:
        """Number of the job."""
        return self.root / "submitted.json"

    @property
    def slurm(self) -> Path:
        """Folder of submitit, with the logs of the ranks."""
        return self.root / "slurm"

    @property
    def checks(self) -> Path:
        """What the start-up checks found."""
        return self.root / "checks.json"

    def notes(self, restart: int) -> Path:
        """Folder where ranks of one start say how it ended."""
        return self.root / "notes" / str(restart)


def _may_stand_before(path: Path) -> bool:
    return path.is_file() and path.suffix in MAY_STAND_BEFORE
