"""What a run's folder knows of a job that was submitted for it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from distill.files import write_whole
from distill.run_dir import JobDir, RunDir

_CONTROLLER = "submitit.local._local"
"""Module of submitit that runs on this machine, as the parent of the ranks."""


@dataclass(frozen=True)
class Submitted:
    """A job in the queue.

    Attributes:
        number: of the job; for ``local`` that of a process.
        cluster: where.
        logs: folder of the ranks' logs.
        time: when.
    """

    number: str
    cluster: str
    logs: str
    time: str

    def write(self, job: JobDir) -> None:
        """Write into the folder of the submission, which may be moved later, with its logs."""
        logs = os.path.relpath(self.logs, job.root)
        write_whole(job.submitted, json.dumps({**vars(self), "logs": logs}).encode())

    def lives_here(self) -> bool:
        """Whether its process on this machine is there; it locks the run folder seconds later.

        The number alone would not tell: numbers are used again, and other machines have their own.
        """
        try:
            words = Path(f"/proc/{self.number}/cmdline").read_text(errors="replace").split("\0")
            return _CONTROLLER in words and Path(words[-2]).samefile(self.logs)
        except OSError:
            return False

    def log(self, rank: int) -> Path:
        """The log of a rank."""
        return Path(self.logs) / f"{self.number}_{rank}_log.out"

    def log_names(self) -> list[str]:
        """Names of the logs that its ranks have begun."""
        return sorted(path.name for path in Path(self.logs).glob(f"{self.number}_*_log.out"))

    @classmethod
    def of(cls, run: RunDir) -> Submitted | None:
        """The newest submission of a run that got a number."""
        job = newest(run)
        if job is None:
            return None
        said = json.loads(job.submitted.read_text(encoding="utf-8"))
        return cls(**{**said, "logs": str((job.root / said["logs"]).resolve())})


def newest(run: RunDir) -> JobDir | None:
    """Folder of the newest submission of a run that got a number."""
    return next((job for job in reversed(run.jobs()) if job.submitted.exists()), None)
