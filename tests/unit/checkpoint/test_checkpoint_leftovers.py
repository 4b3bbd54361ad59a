"""Folders that are in the way of nothing: what killed saves left, and what cannot be removed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from privileges import without_privileges
from tensors import keep, names

from distill.checkpoint import SaveFailed, check_space
from distill.checkpoint.space import bytes_to_come
from distill.config.tree import CheckpointConfig
from distill.errors import UserError


def test_what_cannot_be_removed_is_told_once_and_keeps_no_save_from_its_disk(save_steps, tmp_path):
    """As files on NFS that another process has open."""
    paths = save_steps(1, 2, 3)
    held, half = tmp_path / ".removing-step-00000001", tmp_path / ".partial-step-00000004"
    with without_privileges():
        paths[0].chmod(0o500)
        with pytest.raises(PermissionError):
            keep(tmp_path, paths[2])
        assert names(tmp_path) == [held.name, "step-00000003"]
        (newer,) = save_steps(4)
        assert keep(tmp_path, newer) == [paths[2]]
        save_steps(1)  # a run that began anew comes to the same step
        assert keep(tmp_path, newer) == [paths[0]]
        assert names(tmp_path) == [held.name, "step-00000004"]
        save_steps(1)
        paths[0].chmod(0o500)
        with pytest.raises(PermissionError):
            keep(tmp_path, newer)
        assert names(tmp_path) == [held.name, f"{held.name}-2", "step-00000004"]
        newer.rename(half)
        half.chmod(0o500)
        with pytest.raises(SaveFailed, match="Permission denied"):
            save_steps(4)  # nothing is mixed with what an earlier save of this step left
        assert keep(tmp_path, *save_steps(5)) == []
    for path in tmp_path.iterdir():
        path.chmod(0o700)
    save_steps(6)
    assert names(tmp_path) == ["step-00000005", "step-00000006"]


def test_what_killed_saves_left_is_room_for_a_start(save_steps, engine_of, tmp_path, monkeypatch):
    half, held = tmp_path / ".partial-step-00000001", tmp_path / ".removing-step-00000002"
    for step, name in ((1, half), (2, held)):
        (path,) = save_steps(step)
        path.rename(name)
    settings = (engine_of(1), CheckpointConfig(), 9)
    size = bytes_to_come(tmp_path, *settings)

    def usage(_):  # of a file system with room for what will be saved
        files = [file for file in tmp_path.rglob("*") if file.is_file()]
        return SimpleNamespace(free=size - sum(file.stat().st_size for file in files))

    monkeypatch.setattr("shutil.disk_usage", usage)
    with without_privileges():
        held.chmod(0o500)
        with pytest.raises(UserError, match=rf"are free \({held.name} cannot be removed\)"):
            check_space(tmp_path, *settings)
    assert names(tmp_path) == [held.name]
    held.chmod(0o700)
    check_space(tmp_path, *settings)
    assert names(tmp_path) == []
