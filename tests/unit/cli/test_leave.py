"""A program's end: what is owed is done, what only takes time is not."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import atexit, ctypes, os, sys, threading, time
from distill.processes.leave import run_and_leave

class Heavy:
    def __del__(self) -> None:
        os.write(2, b"destroyed ")

heavy = Heavy()

def late() -> None:
    time.sleep(0.2)
    print("thread", end=" ")

def program() -> None:
    atexit.register(lambda: print("handler", end=" "))
    threading.Thread(target=late).start()
    ctypes.CDLL(None).printf(b"from C ")
    print("said", end=" ")
    print("noted", end=" ", file=sys.stderr)
    exec(sys.argv[2])

run_and_leave(program) if sys.argv[1] == "quick" else program()
"""


def ends(how: str, way: str = "quick", stdout: int = subprocess.PIPE) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, way, how],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "how", ["pass", "sys.exit()", "sys.exit(0)", "sys.exit(3)", "sys.exit(True)", "sys.exit(258)"]
)
def test_all_is_said_and_nothing_is_destroyed(how: str) -> None:
    quick, slow = ends(how), ends(how, "slow")
    assert (quick[0], sorted(quick[1].split())) == (slow[0], sorted(slow[1].split()))
    assert sorted(quick[1].split()) == ["C", "from", "handler", "said", "thread"]
    assert (quick[2], slow[2]) == ("noted ", "noted destroyed ")


@pytest.mark.parametrize("how", ["sys.exit('what went wrong')", "raise RuntimeError('a bug')"])
def test_what_is_not_a_status_ends_as_ever(how: str) -> None:
    assert without_place(ends(how)) == without_place(ends(how, "slow"))
    assert ends(how)[0] == 1


def without_place(end: tuple[int, str, str]) -> tuple[int, list[str], str]:
    return end[0], sorted(end[1].split()), end[2].splitlines()[-1]


def test_a_full_disk_is_seen() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        quick = ends("pass", stdout=full)
        assert quick[0] == ends("pass", "slow", stdout=full)[0] != 0
        assert "No space left on device" in quick[2]
    finally:
        os.close(full)
