"""Processes of a pool that end with it, and whose loss their pool always hears of.

All workers write their results into one pipe. Of one that is killed in the middle of a result the
rest never comes, and as the others, and the pool itself, could still write, the pool would read for
ever: so `Spawning.end_if_one_is_lost` ends them all, and the pipe.
"""

from __future__ import annotations

import os
import threading
from multiprocessing import connection, parent_process
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.queues import SimpleQueue
from typing import Any

import cv2


class Spawning(SpawnContext):
    """Starts processes anew, and remembers them; of one `ProcessPoolExecutor`.

    Attributes:
        started: the processes, in the order of their start.
    """

    def __init__(self) -> None:
        super().__init__()
        self.started: list[SpawnProcess] = []
        self._results: list[_Results] = []

    def Process(  # type: ignore[override]  # noqa: N802  (what a pool asks a context for)
        self, *what: Any, **more: Any
    ) -> SpawnProcess:
        """A process, not started yet."""
        self.started.append(SpawnProcess(*what, **more))
        return self.started[-1]

    def SimpleQueue(self) -> SimpleQueue[Any]:  # noqa: N802  (the same)
        """The pipe for results."""
        self._results.append(_Results(ctx=self.get_context()))
        return self._results[-1]

    def end_if_one_is_lost(self) -> None:
        """Where a process has ended, end the others, and whatever waits for their results."""
        running = [one for one in self.started if one.pid is not None]
        if connection.wait([one.sentinel for one in running], 0):
            for one in running:
                one.terminate()
            for results in self._results:
                results.end()


class _Results(SimpleQueue[Any]):
    """Results of all workers, one after the other."""

    def end(self) -> None:
        """Nobody writes here any more: whoever reads is told once the workers are gone."""
        self._writer.close()  # type: ignore[attr-defined]


def start_worker() -> None:
    """The first thing a worker does."""
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
