"""Work done by several processes, its results in order; whatever fails ends at once and whole.

Workers are spawned (detectors run OpenMP threads, which a fork would break), do not see Ctrl-C
(their parent ends them) and end by themselves when their parent is gone, however it went.
"""

from __future__ import annotations

import os
import signal
import threading
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

Task = TypeVar("Task")
Result = TypeVar("Result")

_CHUNK = 4
"""Tasks sent at a time: enough to amortise a message, few enough to stop within a second."""


class Team:
    """Processes that do the same work on many tasks.

    Args:
        executor: of spawned processes, or None to work in this process.
        processes: how many there are.
    """

    def __init__(self, executor: ProcessPoolExecutor | None, processes: int) -> None:
        self._executor = executor
        self._window = 4 * processes

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
        if self._executor is None:
            yield from ((task, work(task, *shared)) for task in tasks)
            return
        pending: deque[tuple[list[Task], Future[list[Result]]]] = deque()
        for chunk in _chunks(tasks):
            pending.append((chunk, _submit(self._executor, _do_all, work, chunk, shared)))
            if len(pending) >= self._window:
                yield from _finished(*pending.popleft(), name)
        while pending:
            yield from _finished(*pending.popleft(), name)


@contextmanager
def team(processes: int) -> Iterator[Team]:
    """A team of ``processes``; one means this process itself. None is left when the block ends."""
    with _one_openmp_thread():
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


def _chunks(tasks: Iterable[Task]) -> Iterator[list[Task]]:
    stream = iter(tasks)
    while chunk := list(islice(stream, _CHUNK)):
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
    chunk: list[Task], future: Future[list[Result]], name: Callable[[Task], str]
) -> Iterator[tuple[Task, Result]]:
    """Tasks with their results, or the one error that says what went wrong where."""
    error = future.exception()
    if isinstance(error, BrokenProcessPool):
        raise _killed(name(chunk[0])) from error
    if error is not None:
        raise UserError(
            f"a worker failed near {name(chunk[0])}: {type(error).__name__}: {error}",
            fix="leave that photograph out, and report this",
        ) from error
    return zip(chunk, future.result(), strict=True)


def _killed(near: str) -> UserError:
    return UserError(
        f"a worker process was killed near {near} (out of memory?)",
        fix="pack again with fewer --workers",
    )


def _do_all(work: Callable[..., Result], tasks: list[Any], shared: tuple[Any, ...]) -> list[Result]:
    """One chunk, in a worker."""
    return [work(task, *shared) for task in tasks]


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


@contextmanager
def _one_openmp_thread() -> Iterator[None]:
    """For what is loaded meanwhile, here or in a process started here: OpenMP reads it then."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
