"""Ctrl-C: one line and status 130, also where an import would turn it into another error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

INTERRUPTED = 130
FAILING = """
import os, signal, sys
from distill import __main__ as program
import distill.cli.app as app

def command() -> None:
    '''Fail as libraries do when they are interrupted.'''
    try:
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        if what == "library":
            raise RuntimeError("wait failed")
        if what == "mistake":
            raise app.UserError("a worker was killed")

what = sys.argv.pop(1)
app.COMMANDS["doctor"] = command
program.main()
"""
IN_A_RANK = """
import os, signal
from distill.processes.spawn import spawned_rank
with spawned_rank():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        print("waits for ever")
"""
THRICE = """
import os, signal
from distill.processes.interrupt import watch_for_interrupts
watch_for_interrupts()
for _ in range(3):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        print("cleaning up", flush=True)
"""
IMPORTED = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    raise ImportError("cannot load module more than once per process") from None
"""


def run(code: str, *words: str, **variables: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("what", ["nothing", "library", "mistake"])
def test_whatever_fails_after_ctrl_c_was_interrupted(what: str) -> None:
    assert run(FAILING, what, "doctor") == (INTERRUPTED, "", "error: interrupted\n")


def test_no_library_sees_ctrl_c_in_an_import(tmp_path: Path) -> None:
    (tmp_path / "compiled.py").write_text(IMPORTED)
    code = "from distill.processes.interrupt import watch_for_interrupts as w; w(); import compiled"
    done = run(code, PYTHONPATH=str(tmp_path))
    assert done == (INTERRUPTED, "", "error: interrupted\n")


def test_a_rank_leaves_at_once_and_cleans_nothing_up(tmp_path: Path) -> None:
    notes = {"PAIRDISTILL_NOTES": str(tmp_path), "PAIRDISTILL_PARENT": str(os.getpid())}
    assert run(IN_A_RANK, RANK="0", **notes) == (INTERRUPTED, "", "error: interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_the_third_ctrl_c_does_not_wait_for_a_clean_up() -> None:
    done = run(THRICE)
    assert done == (INTERRUPTED, "cleaning up\n" * 2, "error: interrupted\n")


def test_jobs_in_the_background_stay_deaf_to_ctrl_c() -> None:
    code = (
        "import os, signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from distill.processes.interrupt import watch_for_interrupts as w; w()\n"
        "os.kill(os.getpid(), signal.SIGINT); print('still here')"
    )
    assert run(code) == (0, "still here\n", "")
