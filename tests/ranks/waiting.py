"""Waiting for what other processes do, with patience for a busy machine; no test itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import psutil

PATIENCE_SECONDS = 400.0
"""For what takes seconds on a machine at rest; less than pytest's own limit of a test."""
Found = TypeVar("Found")


def until(
    holds: Callable[[], Found],
    what: str,
    seconds: float = PATIENCE_SECONDS,
    *,
    poll_seconds: float = 0.05,
    told: Callable[[], object] = lambda: "",
) -> Found:
    """What ``holds`` returns when it is true at last.

    Args:
        holds: is asked again and again.
        what: is waited for, as a noun.
        seconds: after which it is waited for no more.
        poll_seconds: between two questions.
        told: says what is known then.

    Raises:
        AssertionError: it did not come; with ``what`` and ``told``.
    """
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, f"{what}: not within {seconds:g} s\n{told()}"
        time.sleep(poll_seconds)
    return found


def alive(process: psutil.Process | int) -> bool:
    """Whether a process is there and no zombie, also of one that ends while it is looked at."""
    try:
        process = psutil.Process(process) if isinstance(process, int) else process
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
