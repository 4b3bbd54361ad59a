"""Results on standard output, all else on standard error; a reader that leaves, a full disk."""

from __future__ import annotations

import os
import pty
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
        "name": lambda: say("\u674e"),
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
        encoding="utf-8",
        check=False,
        **{
            "env": os.environ | {"WAY": way},
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            **streams,
        },  # type: ignore[call-overload]
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


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", "\\u674e"), ("utf-8", "李")])
def test_a_name_that_the_terminal_has_no_letters_for_is_escaped(encoding: str, shown: str) -> None:
    done = prints("name", env=os.environ | {"WAY": "name", "PYTHONIOENCODING": encoding})
    assert (done.returncode, done.stdout) == (0, f"{shown}\n"), done.stderr


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


CLOSED = """
import os, sys
os.closerange(0, 3)
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1], *sys.argv[2:]])
"""
OPENS = """
import contextlib, distill.__main__, os, sys
sys.argv = ["pairdistill", "--version"]
try:
    distill.__main__.main()
finally:
    with open(os.environ["FILE"], "w") as file:
        for number in (1, 2):
            with contextlib.suppress(OSError):  # what was taken is for reading alone
                os.write(number, b"of a library")
        print("read:", sys.stdin.read(), file=file)
"""


TAKES = "import os; taken = os.open('/', os.O_RDONLY)\n"
"""As libffi opens itself in Python 3.14, before anything of ours runs."""


@pytest.mark.parametrize("before", ["", TAKES], ids=["all free", "one taken"])
def test_closed_streams_lead_nowhere_and_no_file_takes_their_place(
    tmp_path: Path, before: str
) -> None:
    file = tmp_path / "file"
    program = [sys.executable, "-c", CLOSED, before + OPENS]
    done = subprocess.run(program, env=os.environ | {"FILE": str(file)}, check=False)
    assert (done.returncode, file.read_text()) == (0, "read: \n")


LIVES_ON = """
import os, signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as after `disown`
from distill.console import progress_bar, say
from distill.cli.pipes import results

with results():
    with progress_bar("works", 2) as bar:
        bar.advance()
        while os.isatty(0):
            time.sleep(0.05)
        bar.advance()
    say("done")
"""


def test_work_that_outlives_its_terminal_ends_well() -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-c", LIVES_ON])
    while b"works" not in os.read(terminal, 1024):
        pass
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
