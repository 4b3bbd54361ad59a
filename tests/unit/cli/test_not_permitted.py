"""What is of somebody else is an error in one line, whoever looks at it first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from privileges import without_privileges
from typed import run


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
