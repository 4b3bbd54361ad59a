"""What submitit pickles: the path of a file, and a name to import. Nothing heavy is imported here.

A signal that comes while a job unpickles would kill it before submitit listens; so this module, and
what it imports at once, is small. Torch comes later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Entry:
    """A job, by the path of its job.json."""

    job_file: str

    def __call__(self) -> dict[str, Any]:
        """Do what the file says; called by submitit in every rank."""
        from launcher.inside.rank import enter

        return enter(self.job_file)

    def checkpoint(self) -> Any:
        """The same again: asked for by submitit for signals that come before ours are set up."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
