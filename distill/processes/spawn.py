"""N ranks of this program on this machine, looked after by the process that started them.

The parent computes nothing. It starts the ranks in process groups of their own (so that a Ctrl-C
in the terminal reaches the parent alone), passes stop signals on, and watches:

- one rank fails: the others get `GRACE_SECONDS` to leave, then are killed, and the error of the
  rank that failed FIRST is shown, once;
- Ctrl-C, TERM, USR2 or a hang-up: passed on as a stop request, so that the ranks save and leave
  (one that does not within `STOP_GRACE_SECONDS` of another is killed); a second Ctrl-C kills them;
- the parent itself is killed: the kernel kills the ranks (PR_SET_PDEATHSIG).

Ranks tell the parent why they failed through a note in a temporary folder (`spawned_rank`), with
the time of day; a rank that lost a peer says so, and yields to others. So do ranks that a batch
system started on several machines: `NOTES` names their folder.
Nothing here imports torch: the parent is up at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from distill.errors import as_user_error, one_line, signal_name
from distill.processes.cores import check_cores
from distill.processes.interrupt import leave_on_interrupt
from distill.processes.notes import (
    NOTES,
    Note,
    leave,
    lost_peer,
    notes_folder,
    own_rank,
    read_note,
)

GRACE_SECONDS = 5.0
"""Time the other ranks get to leave after one failed."""
STOP_GRACE_SECONDS = 30.0
"""Time they get after one left because it was asked to."""
LISTEN_FD = "PAIRDISTILL_LISTEN_FD"
"""Variable with the descriptor of the listening socket that rank 0 inherits."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
"""Signals that ask a run to save and leave; the exit status is then 128 + the signal."""

PARENT = "PAIRDISTILL_PARENT"
"""Variable with the process that a rank dies with."""
_POLL_SECONDS = 0.05
_PR_SET_PDEATHSIG = 1


def as_stop(number: int) -> signal.Signals:
    """The stop signal that a signal counts as: a hang-up, after which nobody reads, is a TERM."""
    return signal.SIGTERM if number == signal.SIGHUP else signal.Signals(number)


@dataclass
class _Family:
    """The ranks that were started, and what was asked of them."""

    children: list[subprocess.Popen[bytes]]
    notes: Path
    files: contextlib.ExitStack
    logs: dict[int, BinaryIO] = field(default_factory=dict)
    asked: list[signal.Signals] = field(default_factory=list)
    killed: set[int] = field(default_factory=set)

    def send(self, number: signal.Signals) -> None:
        for child in self.children:
            if child.poll() is None:
                child.send_signal(number)

    def kill(self) -> None:
        for rank, child in enumerate(self.children):
            if child.poll() is None:
                self.killed.add(rank)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()

    @property
    def running(self) -> bool:
        return any(child.poll() is None for child in self.children)

    def grace(self) -> float | None:
        """Seconds that ranks which still run get, now that another has ended; None if none has to.

        One that was asked to stop while it met the others or waited for them may never leave.
        """
        ended = {child.poll() for child in self.children} - {None}
        if ended - {0, *(128 + number for number in STOP_SIGNALS)}:
            return GRACE_SECONDS
        return STOP_GRACE_SECONDS if ended - {0} or (ended and self.asked) else None


def spawn_local(
    argv: Sequence[str],
    ranks: int,
    *,
    program: Sequence[str] = (sys.executable, "-m", "distill"),
) -> int:
    """Run ``program argv`` as ``ranks`` local ranks and wait for them.

    Args:
        argv: arguments of every rank.
        ranks: number of processes.
        program: what to start; this program by default.

    Raises:
        UserError: far more ranks than cores.

    Returns:
        0, or the exit status of the first failure (128 + signal for a rank that was killed), whose
        error has been written to standard error; 128 + signal where a stop request ended one.
    """
    check_cores(ranks)
    with (
        notes_folder() as folder,
        contextlib.ExitStack() as files,
        socket.create_server(("127.0.0.1", 0), backlog=2 * ranks) as door,
    ):
        family = _Family([], folder, files)
        with _stop_signals(family):
            try:
                _start(family, [*program, *argv], ranks, door)
                _watch(family)
            finally:
                family.kill()
        return _verdict(family)


def _start(family: _Family, command: list[str], ranks: int, door: socket.socket) -> None:
    """Start the ranks, who inherit a mask that keeps Ctrl-C waiting until they have a handler."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        _start_all(family, command, ranks, door)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_all(family: _Family, command: list[str], ranks: int, door: socket.socket) -> None:
    for rank in range(ranks):
        if rank:  # its offset is that of the rank, who writes to the end wherever that stands
            log = (family.notes / f"rank{rank}.log").open("a+b")
            family.logs[rank] = family.files.enter_context(log)
        family.children.append(
            subprocess.Popen(
                command,
                env=os.environ | _environment(rank, ranks, door, family.notes),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if rank else None,
                stderr=family.logs.get(rank),
                pass_fds=() if rank else (door.fileno(),),
                process_group=0,
            )
        )


def _environment(rank: int, ranks: int, door: socket.socket, notes: Path) -> dict[str, str]:
    host, port = door.getsockname()
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": host,
        "MASTER_PORT": str(port),
        LISTEN_FD: str(door.fileno()),
        PARENT: str(os.getpid()),
        NOTES: str(notes),
    }


def _watch(family: _Family) -> None:
    """Return when all ranks have ended, or their grace is over, or Ctrl-C came twice."""
    deadline: float | None = None
    while family.running:
        if family.asked.count(signal.SIGINT) > 1:
            return
        if deadline is None and (grace := family.grace()) is not None:
            deadline = time.monotonic() + grace
        if deadline is not None and time.monotonic() > deadline:
            return
        time.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def _stop_signals(family: _Family) -> Iterator[None]:
    """Pass stop signals on to the ranks while the block runs."""

    def forward(number: int, _frame: object) -> None:
        asked = as_stop(number)
        family.asked.append(asked)
        family.send(asked)

    before = {number: signal.getsignal(number) for number in (*STOP_SIGNALS, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # nohup
            signal.signal(number, forward)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _verdict(family: _Family) -> int:
    """Exit status of the whole; the first cause is printed."""
    if not any(child.returncode for child in family.children):
        return 0  # a stop request that comes when all is done stops nothing
    failures = sorted(_failures(family), key=lambda note: (note.secondary, note.when_ns))
    if failures and not (family.asked and failures[0].secondary):
        sys.stderr.write(f"{failures[0].text}\n")
        return failures[0].status
    if family.asked:
        return 128 + family.asked[-1]
    return max(child.returncode for child in family.children)


def _failures(family: _Family) -> Iterator[Note]:
    for rank, child in enumerate(family.children):
        if note := read_note(family.notes / f"rank{rank}.json"):
            yield note
        elif rank not in family.killed and -child.returncode not in (0, *family.asked):
            yield from _silent_death(family, rank, child.returncode)


def _silent_death(family: _Family, rank: int, code: int) -> Iterator[Note]:
    """A rank that ended without a note: killed by a signal, or by a plain exit."""
    if code < 0:
        name = signal_name(-code) + (": out of memory?" if -code == signal.SIGKILL else "")
        text = f"error: rank {rank} was killed by {name}{_last_words(family, rank)}"
        # An abort is how a communication library ends a rank whose peer has gone.
        yield Note(rank, 0, 128 - code, text, secondary=-code == signal.SIGABRT)
    elif code - 128 not in (*STOP_SIGNALS, signal.SIGPIPE):  # `| head` had enough
        words = _last_words(family, rank)  # its note, where that could not be written
        text = f"error: rank {rank} ended with status {code}{words}"
        consequence = lost_peer(words.rpartition("\n")[2])
        yield Note(rank, 0 if words else 1, code, text, secondary=consequence)


def _last_words(family: _Family, rank: int) -> str:
    """The end of what a silenced rank wrote to standard error."""
    lines: list[str] = []
    if rank:  # the first one's went to the terminal
        family.logs[rank].seek(0)
        lines = family.logs[rank].read().decode(errors="replace").splitlines()
    return "".join(f"\n  rank {rank}: {one_line(line)}" for line in lines[-15:])


@contextlib.contextmanager
def spawned_rank() -> Iterator[None]:
    """What a rank does between start and end where `spawn_local` started it; else nothing.

    It dies with its parent, and leaves a note to the parent in place of an error message.
    """
    if NOTES not in os.environ:
        yield
        return
    _die_with_parent(int(os.environ[PARENT]))
    leave_on_interrupt()
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the parent shows the first of all ranks' errors
        if told := as_user_error(error):
            trace = traceback.format_exc() if "--debug" in sys.argv else ""
            leave(f"{trace}error: {told}", told.exit_status)
        text = f"{traceback.format_exc()}error: rank {own_rank()}: {one_line(repr(error))}"
        leave(text, 1, secondary=lost_peer(error))


def _die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent ends (Linux)."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the call
        os._exit(128 + signal.SIGKILL)
