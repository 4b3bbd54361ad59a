"""What is of somebody else is an error in one line, whoever looks at it first."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from privileges import without_privileges
from rank_processes import on_ranks
from typed import run

from distill.errors import as_user_error

TRAIN = """
import sys
from privileges import without_privileges
from distill.cli.app import main

sys.argv[1:1] = ["train"]
with without_privileges():  # a program that is started has them again
    main()
"""


@pytest.fixture
def theirs(tmp_path: Path) -> Iterator[Path]:
    """A folder in one that may not be read, by root neither."""
    (tmp_path / "theirs" / "mine").mkdir(parents=True)
    (tmp_path / "theirs").chmod(0)
    with without_privileges():
        yield tmp_path / "theirs" / "mine"
    (tmp_path / "theirs").chmod(0o700)


@pytest.mark.parametrize("command", ["verify", "classify", "evaluate", "inspect", "forget"])
def test_a_folder_that_is_not_given_to_read(
    capfd: pytest.CaptureFixture[str], theirs: Path, command: str
) -> None:
    names = ["ann"] if command == "forget" else []
    packs = [theirs] if command in ("classify", "evaluate") else []
    status, _, trouble = run(capfd, command, *names, theirs, *packs)
    said = " ".join(trouble.split())
    assert status == 2 and said.startswith(f"error: {theirs}"), said
    assert "Permission denied; if it is somebody else's, ask for `chmod -R g+rX`" in said


def test_ranks_say_so_too(tmp_path: Path, theirs: Path) -> None:
    script, config = tmp_path / "train.py", tmp_path / "run.toml"
    script.write_text(TRAIN)
    config.write_text(f'data.train = ["{theirs}"]\n[run]\ndir = "{tmp_path}/run"\ndevice = "cpu"\n')
    done = on_ranks(script, config, ranks=2)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"error: {theirs}") and "chmod -R g+rX" in done.stderr
    assert done.stderr.count("\n") == 1


def test_nobody_is_asked_for_what_may_be_read(tmp_path: Path) -> None:
    """A program that is none, and a file that may not be made."""
    program, folder = tmp_path / "program", tmp_path / "folder"
    program.write_text("")
    folder.mkdir(0o500)
    with without_privileges():
        with pytest.raises(PermissionError) as start:
            subprocess.run([program])
        with pytest.raises(PermissionError) as make:
            (folder / "file").touch()
        told = [as_user_error(refused.value) for refused in (start, make)]
    assert [str(error) for error in told] == [
        f"{program}: Permission denied", f"{folder / 'file'}: Permission denied"
    ]  # fmt: skip
    assert as_user_error(PermissionError("of no file")) is None
