"""Work done by several processes, its results in order; whatever fails ends at once and whole.

Workers are spawned (detectors run OpenMP threads, which a fork would break), do not see Ctrl-C
(their parent ends them) and end by themselves when their parent is gone, however it went.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import connection, get_context, parent_process
from typing import Any, TypeVar

import cv2
from threadpoolctl import threadpool_limits

from distill.errors import UserError
from distill.variables import variable

Task = TypeVar("Task")
Result = TypeVar("Result")

_CHUNK, _CHUNK_SECONDS = 32, 0.05
"""Most tasks sent at a time, and how long they take: enough to amortise a message, few enough to
stop within a second and to be done at about the same time."""
_AHEAD = 4
"""Messages for each process that are under way."""


class Team:
    """Processes that do the same work on many tasks.

    Args:
        executor: of spawned processes, or None to work in this process.
        processes: how many there are.
    """

    def __init__(self, executor: ProcessPoolExecutor | None, processes: int) -> None:
        self._executor = executor
        self._window = _AHEAD * processes

    def do(
        self,
        work: Callable[..., Result],
        tasks: Iterable[Task],
        *shared: object,
        name: Callable[[Task], str],
    ) -> Iterator[tuple[Task, Result]]:
        """Each task with its result, in the order of the tasks; few are under way at a time.

        Args:
            work: a function of a module, called with a task and ``shared``.
            tasks: consumed as results are taken.
            shared: further arguments, the same for all.
            name: what an error message calls a task.

        Raises:
            UserError: a worker process was killed, or ``work`` raised something.
        """
        for some, results in self.do_many(_each, tasks, work, *shared, name=name):
            yield from zip(some, results, strict=True)

    def do_many(
        self,
        work: Callable[..., list[Result]],
        tasks: Iterable[Task],
        *shared: object,
        name: Callable[[Task], str],
    ) -> Iterator[tuple[list[Task], list[Result]]]:
        """The same for work on several tasks at once, which ``work`` gets and gives as lists."""
        size = _Size()
        chunks = _chunks(tasks, size)
        if self._executor is None:
            yield from ((chunk, work(chunk, *shared)) for chunk in chunks)
            return
        pending: deque[tuple[list[Task], Future[tuple[list[Result], float]]]] = deque()
        for chunk in chunks:
            pending.append((chunk, _submit(self._executor, _timed, work, chunk, shared)))
            if len(pending) >= self._window:
                yield _finished(*pending.popleft(), name, size)
        while pending:
            yield _finished(*pending.popleft(), name, size)


@contextmanager
def team(processes: int) -> Iterator[Team]:
    """A team of ``processes``; one means this process itself. None is left when the block ends."""
    # For what is loaded meanwhile, here or in a process started here: OpenMP reads it then.
    with variable("OMP_NUM_THREADS", "1"):
        if processes == 1:
            with single_threaded():
                yield Team(None, 1)
            return
        executor = ProcessPoolExecutor(
            processes, mp_context=get_context("spawn"), initializer=_start_worker
        )
        try:
            yield Team(executor, processes)
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


class _Size:
    """How many tasks are sent at a time, by how long the last ones took."""

    def __init__(self) -> None:
        self.tasks = 4

    def took(self, tasks: int, seconds: float) -> None:
        """Takes in what some tasks took."""
        self.tasks = min(max(int(_CHUNK_SECONDS * tasks / max(seconds, 1e-6)), 1), _CHUNK)


def _chunks(tasks: Iterable[Task], size: _Size) -> Iterator[list[Task]]:
    stream = iter(tasks)
    while chunk := list(islice(stream, size.tasks)):
        yield chunk


def _submit(executor: ProcessPoolExecutor, *call: Any) -> Future[Any]:
    """Hands over some work; processes started by it inherit a mask that hides Ctrl-C from them.

    Raises:
        UserError: a worker process was killed.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return executor.submit(*call)
    except BrokenProcessPool as error:
        raise _killed("its work") from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _finished(
    chunk: list[Task],
    future: Future[tuple[list[Result], float]],
    name: Callable[[Task], str],
    size: _Size,
) -> tuple[list[Task], list[Result]]:
    """Tasks with their results, or the one error that says what went wrong where."""
    error = future.exception()
    if isinstance(error, BrokenProcessPool):
        raise _killed(name(chunk[0])) from error
    if isinstance(error, UserError):
        raise error
    if error is not None:
        raise UserError(
            f"a worker failed near {name(chunk[0])}: {type(error).__name__}: {error}",
            fix="leave that photograph out, and report this",
        ) from error
    results, seconds = future.result()
    size.took(len(chunk), seconds)
    return chunk, results


def _killed(near: str) -> UserError:
    return UserError(
        f"a worker process was killed near {near} (out of memory?)",
        fix="pack again with fewer --workers",
    )


def _each(tasks: list[Any], work: Callable[..., Result], *shared: object) -> list[Result]:
    """Work on one task after the other."""
    return [work(task, *shared) for task in tasks]


def _timed(
    work: Callable[..., list[Result]], tasks: list[Any], shared: tuple[Any, ...]
) -> tuple[list[Result], float]:
    """One chunk, in a worker, and the seconds it took."""
    began = time.perf_counter()
    return work(tasks, *shared), time.perf_counter() - began


def _start_worker() -> None:
    """The first thing a worker does."""
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


@contextmanager
def single_threaded() -> Iterator[None]:
    """One thread, as each of several workers has: detectors are slow when their threads compete."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with threadpool_limits(1, user_api="openmp"):
            yield
    finally:
        cv2.setNumThreads(before)
