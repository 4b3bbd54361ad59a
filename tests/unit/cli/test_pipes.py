"""Results on standard output, all else on standard error; a reader that leaves, a full disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PRINTS = """
import os, sys
from rich.table import Table
from distill.cli import app
from distill.console import note, progress_bar, say, show, warn

def command() -> None:
    '''Work, then answer.'''
    note("begins")
    with progress_bar("works", 10) as bar:
        for _ in range(10):
            bar.advance()
    warn("odd")
    table = Table("row", *["1234567890" * 9] * 9)
    for number in range(200):
        table.add_row(str(number))
    ways = {
        "table": lambda: show(table),
        "line": lambda: say("done"),
        "bytes": lambda: sys.stdout.buffer.write(b"done\\n"),
        "other": lambda: os.write(os.open("/dev/full", os.O_WRONLY), b"not of stdout"),
    }
    ways[os.environ["WAY"]]()
    if os.environ["WAY"] == "bytes":
        raise app.typer.Exit(1)

app.COMMANDS["doctor"] = command
app.main()
"""


def prints(way: str, **streams: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PRINTS, "doctor"],
        env=os.environ | {"WAY": way},
        text=True,
        check=False,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},  # type: ignore[call-overload]
    )


def test_only_results_are_on_standard_output() -> None:
    done = prints("line")
    assert (done.returncode, done.stdout) == (0, "done\n")
    lines = done.stderr.splitlines()
    assert lines == ["begins", *(f"works: {n}/10" for n in range(1, 11)), "warning: odd"]


@pytest.mark.parametrize("way", ["table", "line", "bytes"])
def test_a_reader_that_has_gone_ends_the_program_without_a_word(way: str) -> None:
    read, write = os.pipe()
    os.close(read)
    done = prints(way, stdout=write)
    os.close(write)
    assert done.returncode == 141
    assert done.stderr.splitlines()[-1] == "warning: odd"


def test_nobody_need_read_the_progress() -> None:
    read, write = os.pipe()
    os.close(read)
    done = prints("line", stderr=write)
    os.close(write)
    assert (done.returncode, done.stdout) == (0, "done\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("way", ["table", "line", "bytes"])
def test_a_disk_that_is_full_is_a_mistake_in_a_line(way: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = prints(way, stdout=full)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-2:]
    assert last[0] == "warning: odd"
    assert last[1].startswith("error: standard output: disk full (No space left on device)")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_other_errors_are_not_taken_for_that() -> None:
    done = prints("other")
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "No space left" in done.stderr
