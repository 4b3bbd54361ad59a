"""A watchdog for ranks that hang: it names rank, step and phase, shows stacks, and ends the run.

Every rank marks its progress, and a thread of it writes the newest mark to a small file in the run
folder, again and again:

    RUN/ranks/rank00001.json    {"step": 7, "phase": "forward", "marks": 29, "seen": ..., ...}

A rank that has made no progress for ``train.hang_timeout_min`` writes the stacks of its threads to
standard error, reads what the others wrote, and says who is to blame: ranks that give no sign of
life (stopped, or their node is gone), else those with the fewest marks, since the others wait for
them in a collective. All ranks mark equally often; where they have unequal numbers of batches they
touch, which counts until the next mark alone. Then it leaves with status `HUNG`, without waiting
for any other thread. Ranks that wait for one that works for all rest: they are not blamed, and do
not judge while that one gives signs of life.

A rank whose interpreter itself is stuck, or that was stopped, cannot run that thread: a timer of
`faulthandler`, in C, shows its stacks and ends it as soon as it runs again.
"""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import json
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from distill.processes.notes import leave

_STANDARD_ERROR = 2
"""The descriptor: what a notebook, or a test, puts in place of `sys.stderr` has none."""
HUNG = 4
"""Exit status of a run that a watchdog ended."""
_LOOKS_PER_TIMEOUT = 8
_LONGEST_LOOK_SECONDS = 5.0
_BEATS_PER_SECOND = 10
"""Files that all ranks together write in a second, at most: the run folder is on a file system that
others use, too, and hundreds of ranks would write in step."""


@dataclass(frozen=True)
class Beat:
    """What a rank last said of itself.

    Attributes:
        rank: the rank.
        host: its machine.
        pid: its process there.
        step: optimizer steps made.
        phase: what it does.
        marks: how often it has made progress.
        since: when it did so last, seconds since the epoch.
        seen: when this was written, seconds since the epoch.
        touches: signs of progress since the last mark.
        waits_for: the rank that works for all meanwhile, where that is another one.
    """

    rank: int
    host: str
    pid: int
    step: int
    phase: str
    marks: int
    since: float
    seen: float
    touches: int = 0
    waits_for: int | None = None

    def write(self, folder: Path) -> None:
        """Replace what this rank said before."""
        path = beat_path(folder, self.rank)
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps(asdict(self)), encoding="utf-8")
        partial.replace(path)


def beat_path(folder: Path, rank: int) -> Path:
    """Where a rank writes its beats."""
    return folder / f"rank{rank:05d}.json"


def read_beats(folder: Path, world_size: int) -> list[Beat]:
    """The newest beat of each rank that has written one."""
    beats = []
    for rank in range(world_size):
        with contextlib.suppress(OSError, ValueError, TypeError):  # none yet, or of another version
            beats.append(Beat(**json.loads(beat_path(folder, rank).read_text(encoding="utf-8"))))
    return beats


def blame(beats: list[Beat], now: float, silence_seconds: float) -> str:
    """Who holds the others up, in one line.

    Args:
        beats: of all ranks.
        now: time of the judgement, seconds since the epoch.
        silence_seconds: a rank without a beat for longer does not run at all.
    """
    silent = [beat for beat in beats if now - beat.seen > silence_seconds]
    watched = [beat for beat in beats if beat.waits_for is None]
    fewest = min(((beat.marks, beat.touches) for beat in watched), default=None)
    blamed = silent or [beat for beat in watched if (beat.marks, beat.touches) == fewest]
    life = ", without a sign of life" if silent else ""
    return "; ".join(
        f"rank {beat.rank} (process {beat.pid} on {beat.host}) hangs{life}:"
        f" in step {beat.step + 1}, phase {beat.phase!r}, no progress for {now - beat.since:.0f} s"
        for beat in blamed
    )


def looks_per_beat(world_size: int, look_seconds: float, timeout_seconds: float) -> int:
    """Looks from one beat of a rank to its next; the ranks take turns.

    A rank is heard of within a look and a part of its timeout, however many there are.
    """
    wanted_seconds = min(world_size / _BEATS_PER_SECOND, timeout_seconds / _LOOKS_PER_TIMEOUT)
    return max(1, int(wanted_seconds / look_seconds))


class Watchdog:
    """Watches this rank while its ``with`` block runs.

    Args:
        folder: where all ranks write their beats; made where it is missing.
        rank: this rank.
        world_size: number of ranks.
        timeout_seconds: time without progress after which a rank hangs.
    """

    def __init__(self, folder: Path, rank: int, world_size: int, timeout_seconds: float) -> None:
        self._folder, self._world_size, self._timeout = folder, world_size, timeout_seconds
        self._look = min(_LONGEST_LOOK_SECONDS, timeout_seconds / _LOOKS_PER_TIMEOUT)
        self._looks_per_beat = looks_per_beat(world_size, self._look, timeout_seconds)
        now = time.time()
        self._beat = Beat(rank, socket.gethostname(), os.getpid(), 0, "start", 0, now, now)
        self._marked = time.monotonic()  # the clock of the day may be set, and a laptop sleeps
        self._due = math.inf
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        with contextlib.suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._say()
        self._set_timer()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._say()  # steps were made since the last look: failures at the same step are counted
        faulthandler.cancel_dump_traceback_later()

    def mark(self, phase: str, step: int | None = None) -> None:
        """Note progress: ``phase`` begins, in step ``step`` (counted from 0) or the one before.

        All ranks must call it equally often.
        """
        last = self._beat
        self._beat = replace(
            last,
            phase=phase,
            step=last.step if step is None else step,
            marks=last.marks + 1,
            since=time.time(),
            touches=0,
        )
        self._marked = time.monotonic()

    def touch(self) -> None:
        """Note progress within a phase, of which ranks may make unequal numbers of signs."""
        last = self._beat
        self._beat = replace(last, since=time.time(), touches=last.touches + 1)
        self._marked = time.monotonic()

    @contextlib.contextmanager
    def waiting_for(self, rank: int) -> Iterator[None]:
        """Rest while ``rank`` works for all, and touches; all ranks may call it, that one too."""
        if rank != self._beat.rank:
            self._beat = replace(self._beat, waits_for=rank)
        try:
            yield
        finally:
            self._beat = replace(self._beat, waits_for=None)
            self.touch()

    def _rests(self) -> bool:
        """Whether this rank waits for one that is alive: that one's progress is its own affair."""
        return any(
            beat.rank == self._beat.waits_for and time.time() - beat.seen <= self._timeout / 2
            for beat in read_beats(self._folder, self._world_size)
        )

    def _watch(self) -> None:
        for look in itertools.count(self._beat.rank):
            if self._over.wait(self._look):
                return
            if time.monotonic() > self._due:
                # Stopped meanwhile: the timer in C goes off right now. It cannot read the stack of
                # a thread that runs (the process would die of it), so this one stands still.
                time.sleep(self._look)
            hangs = time.monotonic() - self._marked > self._timeout
            if hangs and self._rests():  # asked once in a timeout
                self._marked, hangs = time.monotonic(), False
            if hangs or look % self._looks_per_beat == 0:
                self._say()
            self._set_timer()
            if hangs:
                self._bark()

    def _set_timer(self) -> None:
        """Goes off only where `_watch` does not come round any more."""
        patience = self._timeout + self._look
        faulthandler.dump_traceback_later(patience, exit=True, file=_STANDARD_ERROR)
        self._due = time.monotonic() + patience

    def _say(self) -> None:
        # A full disk must not end a run; a rank that cannot write looks silent if another hangs.
        with contextlib.suppress(OSError):
            replace(self._beat, seen=time.time()).write(self._folder)

    def _bark(self) -> None:
        beats = read_beats(self._folder, self._world_size)
        text = f"error: {blame(beats, time.time(), self._timeout / 2)}"
        mine = self._beat
        sys.stderr.write(f"{text}\nrank {mine.rank} is in phase {mine.phase!r}; its stacks:\n")
        sys.stderr.flush()
        faulthandler.dump_traceback(all_threads=True)
        time.sleep(2 * self._look)  # the others show theirs, before the first to leave ends them
        leave(text, HUNG)
