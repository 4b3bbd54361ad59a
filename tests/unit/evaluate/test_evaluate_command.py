"""`pairdistill evaluate` as a user calls it."""

import json
import os

import numpy as np
import pytest
from drawn_people import assert_close, make_pack
from rank_processes import python
from typer.testing import CliRunner

from distill import trained
from distill.cli.app import build_app
from distill.errors import UserError
from distill.processes.spawn import PARENT


def here(*words):
    """The command in this process."""
    return CliRunner().invoke(build_app(), ["evaluate", *map(str, words)])


def test_two_ranks_and_one_agree(weights, pack, tmp_path):
    words = (weights, pack.path, "evaluate.batch_images=9", "--ranks", "2", "--out", tmp_path)
    two = python("-m", "distill", "evaluate", *map(str, words), COLUMNS="160")
    assert two.returncode == 0, two.stderr
    assert "step 12: 25 held-out photographs of 7 people" in two.stdout
    assert "TAR at FAR 0.01: needs 1000 impostor pairs" in two.stdout
    assert (tmp_path / "report.png").stat().st_size > 10_000
    assert ", rank 0's share: " in two.stderr
    one = here(weights, pack.path, "--json", "--out", tmp_path / "one")
    assert one.exit_code == 0, one.exception
    assert "rank 0" not in one.stderr
    alone, together = json.loads(one.stdout), json.loads((tmp_path / "report.json").read_text())
    assert (alone["ranks"], together["ranks"]) == (1, 2)
    assert alone["checkpoint"] == {"name": "model.safetensors", "step": 12}
    assert together["config"]["evaluate"]["batch_images"] == 9
    for mine, theirs in zip(alone["conditions"], together["conditions"], strict=True):
        assert_close(mine, theirs)


@pytest.mark.parametrize("ranks", ["1", "2"])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("purpose", "a training pack"),
        ("pack", "no pack there"),
        ("setting", "evaluate.batch_image"),
        ("set", "'lfw.bin' behind the pack"),
    ],
)
def test_mistakes_leave_nothing(weights, pack, tmp_path, spoil, words, ranks):
    """Found in the parent, before any rank starts."""
    folder, overrides = pack.path, []
    if spoil == "purpose":
        folder = make_pack(tmp_path / "train", np.array([0, 1]), purpose="train").path
    elif spoil == "pack":
        folder = tmp_path / "none"
        folder.mkdir()
    else:
        overrides = ["lfw.bin" if spoil == "set" else "evaluate.batch_image=3"]
    out = tmp_path / "report"
    result = here(weights, folder, *overrides, "--ranks", ranks, "--out", out)
    assert isinstance(result.exception, UserError) and words in str(result.exception)
    assert not out.exists()


def test_folder_that_cannot_be_written(weights, pack, tmp_path):
    (tmp_path / "file").write_text("")
    result = here(weights, pack.path, "--out", tmp_path / "file" / "report")
    assert isinstance(result.exception, UserError) and "file" in str(result.exception)


def test_ranks_inside_a_rank_are_refused(weights, pack, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = here(weights, pack.path, "--ranks", "2")
    assert "already" in str(result.exception)


@pytest.mark.parametrize("by_parent", [True, False])
def test_local_ranks_leave_digests_to_their_parent(weights, pack, tmp_path, monkeypatch, by_parent):
    told, real = [], trained.open_weights
    monkeypatch.setattr(
        trained, "open_weights", lambda *a, **k: (told.append(k["compared"]), real(*a, **k))[1]
    )
    if by_parent:
        monkeypatch.setenv(PARENT, "1")
    assert here(weights, pack.path, "--out", tmp_path).exit_code == 0
    assert told == [by_parent]


def test_a_folder_that_cannot_be_written_is_found_before_the_work(
    weights, pack, tmp_path, monkeypatch
):
    """Of a run of somebody else, or on a file system that is read-only."""
    monkeypatch.setattr("os.access", lambda path, how: (path, how) != (tmp_path, os.W_OK))
    monkeypatch.setattr("distill.cli.evaluate.measure", None)
    done = here(weights, pack.path, "--out", tmp_path)
    assert isinstance(done.exception, UserError)
    assert str(done.exception).startswith(f"{tmp_path}: not writable; choose a folder")


def test_numbers_that_cannot_be_written_are_shown(weights, pack, tmp_path, monkeypatch):
    def full(files):
        raise UserError(f"{next(iter(files))}: disk full")

    monkeypatch.setattr("distill.evaluate.folder.write_together", full)
    done = here(weights, pack.path, "--out", tmp_path)
    assert isinstance(done.exception, UserError) and "disk full" in str(done.exception)
    assert "step 12: 25 held-out photographs of 7 people" in done.stdout
