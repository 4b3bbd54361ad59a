"""The CPU cores that are this process's to use."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Cores that this process may run on, at least 1; under a scheduler fewer than there are."""
    return len(os.sched_getaffinity(0))
