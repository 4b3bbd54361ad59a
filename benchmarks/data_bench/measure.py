"""Wall time and processor time of several ways, measured in turn.

Every round measures every way once, one after the other, so that what else the machine does meets
all of them alike. Processor time, of all threads and processes of a way, hardly depends on what
else runs: where the cores are what bounds a way, its ratio is that of the wall times at rest.
"""

from __future__ import annotations

import contextlib
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, Self

import psutil


class Times(NamedTuple):
    """Seconds that something took.

    Attributes:
        wall: on the wall.
        cpu: of processor time, of this process and its children.
        own: of processor time, of this process.
    """

    wall: float
    cpu: float
    own: float


class Speed(NamedTuple):
    """What one way reached in one round.

    Attributes:
        per_second: items a second of wall time.
        cpu_us: microseconds of processor time an item, of all cores together.
        own_us: of these, what this process did, without its children.
    """

    per_second: float
    cpu_us: float
    own_us: float

    @classmethod
    def of(cls, items: int, times: Times) -> Self:
        """Of so many items that took so long."""
        return cls(items / times.wall, 1e6 * times.cpu / items, 1e6 * times.own / items)


class Clock:
    """Times since the clock was made."""

    def __init__(self) -> None:
        self._began = _now()

    def times(self) -> Times:
        """What has passed so far."""
        return Times(*(now - then for now, then in zip(_now(), self._began, strict=True)))


def _now() -> Times:
    """With the children that have ended, and those that run."""
    own, ended = time.process_time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    total = own + ended.ru_utime + ended.ru_stime
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = child.cpu_times()
            total += times.user + times.system
    return Times(time.perf_counter(), total, own)


def stream_speed(
    way: Callable[[], Iterator[object]], seconds: float, items: int, warm_up: int
) -> Speed:
    """Opens an endless stream, warms it up, takes from it for a while, and closes it.

    Args:
        way: opens the stream.
        seconds: how long to take.
        items: in each thing that is taken.
        warm_up: things taken before.
    """
    stream = way()
    for _ in range(warm_up):
        next(stream)
    clock, taken, end = Clock(), 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        next(stream)
        taken += items
    times = clock.times()
    stream.close()  # type: ignore[attr-defined]
    return Speed.of(taken, times)


def in_turn(rounds: int, ways: dict[str, Callable[[], Speed]]) -> dict[str, list[Speed]]:
    """What each way reached in each round; every round begins with another way."""
    found: dict[str, list[Speed]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(ways[name]())
            speed = found[name][-1]
            print(f"  round {number + 1}, {name}: {speed.per_second:.0f}/s, {speed.cpu_us:.0f} us")
    return found


class Ratio(NamedTuple):
    """One way over another, by rounds.

    Attributes:
        wall: of items a second.
        cpu: of items a second of processor time.
    """

    wall: list[float]
    cpu: list[float]

    @classmethod
    def of(cls, found: dict[str, list[Speed]], name: str, to: str) -> Ratio:
        """``name`` over ``to``; empty where ``to`` was not measured."""
        both = list(zip(found[name], found.get(to, []), strict=to in found))
        return cls(
            [a.per_second / b.per_second for a, b in both], [b.cpu_us / a.cpu_us for a, b in both]
        )

    def medians(self) -> tuple[float, float]:
        """Of wall and of processor time; not a number where nothing was measured."""
        wall, cpu = (statistics.median(part) if part else float("nan") for part in self)
        return wall, cpu
