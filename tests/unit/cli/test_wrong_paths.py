"""Paths that are something else: each is one line that says what to give instead."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from distill.cli.app import build_app
from distill.data.manifest import read_pack
from distill.errors import UserError


def mistake(*words: str | Path) -> str:
    done = CliRunner().invoke(build_app(), [str(word) for word in words])
    assert isinstance(done.exception, UserError), done.exception
    return str(done.exception)


@pytest.mark.parametrize("command", ["classify", "embed"])
def test_a_folder_is_no_file_to_write(tmp_path: Path, command: str) -> None:
    """Found before any weights are read."""
    said = mistake(command, tmp_path / "run", tmp_path, "--out", tmp_path)
    assert said == f"{tmp_path}: a folder; name a file"
    assert mistake(command, "run", tmp_path, "--out", ".") == ".: a folder; name a file"


def test_a_folder_of_packs_names_its_parts(tmp_path: Path) -> None:
    for part in ("train", "evaluation"):
        (tmp_path / part).mkdir()
    with pytest.raises(UserError, match="no pack there") as raised:
        read_pack(tmp_path)
    assert raised.value.fix == f"give one of its parts: {tmp_path}/train or {tmp_path}/evaluation"


def test_nothing_to_evaluate_on(tmp_path: Path) -> None:
    """It may have been meant for either kind."""
    said = mistake("evaluate", tmp_path, tmp_path / "IJBX")
    assert said.startswith(f"{tmp_path}/IJBX: No such file or folder; give the evaluation part of")


def test_a_file_of_a_pack_is_not_the_pack(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    said = mistake("verify", tmp_path / "manifest.json")
    assert said == f"{tmp_path}/manifest.json: a file; give the folder of a pack"


@pytest.mark.parametrize(("command", "remedy"), [("logs", "on the terminal"), ("cancel", "Ctrl-C")])
def test_a_run_that_was_not_submitted(tmp_path: Path, command: str, remedy: str) -> None:
    (tmp_path / "config.toml").write_text("")
    said = mistake(command, tmp_path)
    assert "no job was submitted for it; " in said and remedy in said
