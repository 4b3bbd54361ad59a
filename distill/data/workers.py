"""Work done by several processes, its results in order; whatever fails ends at once and whole.

Workers are spawned (detectors run OpenMP threads, which a fork would break), do not see Ctrl-C
(their parent ends them) and end by themselves when their parent is gone, however it went.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import cv2
from threadpoolctl import threadpool_limits

from distill.data.worker_processes import Spawning, start_worker
from distill.errors import UserError, signal_name
from distill.processes.variables import variable

Task = TypeVar("Task")
Result = TypeVar("Result")

_CHUNK, _CHUNK_SECONDS = 32, 0.05
"""Most tasks sent at a time, and how long they take: enough to amortise a message, few enough to
stop within a second and to be done at about the same time."""
_AHEAD = 4
"""Messages for each process that are under way."""
_LOOK_SECONDS = 1.0
"""Between looks whether all workers are alive, where a result takes long."""


class Team:
    """Processes that do the same work on many tasks.

    Args:
        executor: of spawned processes, or None to work in this process.
        processes: how many there are.
        spawning: what started them, in which ends are looked up.
    """

    def __init__(
        self,
        executor: ProcessPoolExecutor | None,
        processes: int,
        spawning: Spawning | None = None,
    ) -> None:
        self._executor, self._spawning = executor, spawning or Spawning()
        self._window = _AHEAD * processes
        self._worked = False

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
            UserError: a worker process ended or was killed, or ``work`` raised something.
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
            with self._watching(name(chunk[0])):
                future = _submit(self._executor, _timed, work, chunk, shared)
            future.add_done_callback(self._note)
            pending.append((chunk, future))
            if len(pending) >= self._window:
                yield self._finished(*pending.popleft(), name, size)
        while pending:
            yield self._finished(*pending.popleft(), name, size)

    def _finished(
        self,
        chunk: list[Task],
        future: Future[tuple[list[Result], float]],
        name: Callable[[Task], str],
        size: _Size,
    ) -> tuple[list[Task], list[Result]]:
        """Tasks with their results, or the one error that says what went wrong where."""
        near = name(chunk[0])
        try:
            with self._watching(near):
                while not wait([future], _LOOK_SECONDS).done:
                    self._spawning.end_if_one_is_lost()
                results, seconds = future.result()
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"a worker failed near {near}: {type(error).__name__}: {error}",
                fix="leave that photograph out, and report this",
            ) from error
        size.took(len(chunk), seconds)
        return chunk, results

    def _note(self, future: Future[Any]) -> None:
        """Some work is done, whether or not anybody has taken it yet."""
        self._worked |= not future.cancelled() and future.exception() is None

    @contextmanager
    def _watching(self, near: str) -> Iterator[None]:
        """Turns the loss of a worker into the error that says how it went.

        Raises:
            UserError: a worker process has ended or was killed.
        """
        try:
            yield
        except BrokenProcessPool as error:
            assert self._executor is not None, "this process does no work of a pool"
            self._executor.shutdown(wait=True, cancel_futures=True)  # then all have an exit code
            codes = [one.exitcode or 0 for one in self._spawning.started]
            raise _lost(codes, near, self._worked) from error


@contextmanager
def team(processes: int) -> Iterator[Team]:
    """A team of ``processes``; one means this process itself. None is left when the block ends."""
    # For what is loaded meanwhile, here or in a process started here: OpenMP reads it then.
    with variable("OMP_NUM_THREADS", "1"):
        if processes == 1:
            with single_threaded():
                yield Team(None, 1)
            return
        spawning = Spawning()
        with _starting():
            executor = ProcessPoolExecutor(processes, mp_context=spawning, initializer=start_worker)
        try:
            yield Team(executor, processes, spawning)
        finally:
            spawning.end_if_one_is_lost()
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
    """Hands over some work; processes started by it inherit a mask that hides Ctrl-C from them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with _starting():
            return executor.submit(*call)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _starting() -> Iterator[None]:
    """Says what the operating system refuses; where results are written, it would seem theirs.

    Raises:
        UserError: it has no room for a process, its pipes or its locks.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"a worker process cannot be started ({error.strerror or error})",
            fix="try again with fewer --workers, or raise what `ulimit -a` shows",
        ) from error


def _lost(codes: Sequence[int], near: str, worked: bool) -> UserError:
    """What to say of workers of which one has ended.

    Args:
        codes: exit status of each, or the number of the signal that ended it, negative; once one is
            lost, the pool ends the others by SIGTERM.
        near: where the work stood.
        worked: whether any has done some.
    """
    code = next((code for code in codes if code not in (0, -signal.SIGTERM)), 0)
    code = code or next((code for code in codes if code), 0)
    where = f"near {near}" if worked else f"before any work was done (the first: {near})"
    if code < 0:
        memory = ": out of memory?" if code == -signal.SIGKILL else ""
        return UserError(
            f"a worker process was killed by {signal_name(-code)} {where}{memory}",
            fix="try again with fewer --workers",
        )
    what = f"a worker process ended with exit status {code} {where}"
    if worked:
        return UserError(what, fix="try again with --workers 1, which shows what ends it")
    return UserError(
        f"{what}: it could not load the program that started it; its own error stands above",
        fix='start it in a file, under `if __name__ == "__main__":`, or with one worker',
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
