"""Processes that need the same compiled functions at the same time."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.data.compiled_once import idle_first
from distill.data.second.pixels import kinds

FUNCTIONS = """
from distill.data.compiled import compiled

@compiled
def inner(x):
    return x + 1

@compiled
def outer(x):
    return inner(x) * 2
"""
PROGRAM = """
import resource, sys, time
from numba.core import event
from distill.data.compiled import is_compiled_elsewhere
import functions

class Tell(event.Listener):
    def on_start(self, event):
        print(event.data["dispatcher"].py_func.__name__, flush=True)
        if sys.argv[1:] == ["for ever"]:
            time.sleep(1000)

    def on_end(self, event):
        time.sleep(0.3)  # before it is kept: others have the time to come too late

print("ready", is_compiled_elsewhere(functions.outer), is_compiled_elsewhere(functions.inner))
sys.stdout.flush()
input()
if sys.argv[1:] == ["no room"]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
with event.install_listener("numba:compile", Tell()):
    assert functions.outer(1) == 4
"""


class Started:
    """A process that is about to call a function, and tells which ones it compiles."""

    def __init__(self, folder: Path, *words: str) -> None:
        (folder / "functions.py").write_text(FUNCTIONS)
        os.utime(folder / "functions.py", (1, 1))  # what is kept is not stale
        cache = {"NUMBA_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": str(folder)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *words],
            env=os.environ | cache,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout and self.process.stdin
        self.said, self.asked = self.process.stdout, self.process.stdin

    def go(self) -> None:
        self.asked.write("\n")
        self.asked.flush()

    def compiled(self) -> list[str]:
        told = self.said.read().split()
        assert self.process.wait() == 0
        return told


def line(started: Started) -> str:
    return started.said.readline().strip()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[list[Started]]:
    started: list[Started] = []
    yield started
    for one in started:
        one.process.kill()
        one.process.wait()
        one.said.close()
        one.asked.close()


def test_each_function_is_compiled_by_one_of_three(start: list[Started], tmp_path: Path) -> None:
    start += [Started(tmp_path) for _ in range(3)]
    assert [line(one) for one in start] == ["ready False False"] * 3
    for one in start:
        one.go()
    assert sorted(name for one in start for name in one.compiled()) == ["inner", "outer"]
    kept = [path.suffix for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert sorted(kept) == [".nbc", ".nbc", ".nbi", ".nbi"]


def test_one_that_is_killed_leaves_it_to_the_next(start: list[Started], tmp_path: Path) -> None:
    start.append(Started(tmp_path, "for ever"))
    line(start[0])
    start[0].go()
    assert line(start[0]) == "outer"
    start.append(Started(tmp_path))
    assert line(start[1]) == "ready True False"
    start[1].go()
    start[0].process.kill()
    assert start[1].compiled() == ["outer", "inner"]
    assert not list((tmp_path / "cache").rglob("*.lock"))


def test_what_cannot_be_kept_is_used_all_the_same(start: list[Started], tmp_path: Path) -> None:
    """As on a full disk: the next process compiles anew."""
    for _ in range(2):
        start.append(Started(tmp_path, "no room"))
        line(start[-1])
        start[-1].go()
        assert start[-1].compiled() == ["outer", "inner"]
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.suffix == ".lock"]


def test_without_locks_every_process_compiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system that has none."""

    def refused(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refused)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "functions_alone.py").write_text(FUNCTIONS)
    import functions_alone

    assert functions_alone.outer(1) == 4
    assert not functions_alone.outer._cache.is_busy()


@given(st.lists(st.integers(0, 9), unique=True), st.data())
def test_who_is_idle_comes_first(items: list[int], data: st.DataObject) -> None:
    """At each moment the first that is idle, or the first of all; and each comes once."""
    left, busy = list(items), set()
    for item in idle_first(items, busy.__contains__):
        free = [one for one in left if one not in busy]
        assert item == (free or left)[0]
        left.remove(item)
        busy.clear()
        busy |= data.draw(st.sets(st.integers(0, 9)))
    assert not left


def test_kinds_that_another_process_compiles_come_last(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[object] = []

    def address(kind: kinds.Kind) -> int:
        order.append(kind._function)
        return 0

    busy = {kinds.pose, kinds.light}
    monkeypatch.setattr(kinds.Kind, "__wrapper_address__", address)
    monkeypatch.setattr(kinds.Kind, "is_compiled_elsewhere", lambda kind: kind._function in busy)
    kinds.pointers.__wrapped__(1 << kinds.POSE | 1 << kinds.LIGHT | 1 << kinds.BLUR)
    assert order == [kinds.blur, kinds.pose, kinds.light]
