"""Retention, failed saves, and processes killed in the middle of one."""

from __future__ import annotations

import json
import math
import os
import random
import resource
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensors import keep, lines_of_a_save, names

from distill.checkpoint import (
    SaveFailed,
    TrainState,
    add_metrics,
    latest_verified,
    load,
    save,
)
from distill.checkpoint.manifest import Manifest, _digest
from distill.checkpoint.shard import ShardWriter
from distill.errors import UserError


def test_the_newest_and_the_best_stay(save_steps, tmp_path):
    paths = save_steps(1, 2, 3, 4, 5, metrics={1: 0.5, 2: 0.9, 3: 0.7, 4: 0.9})
    removed = keep(tmp_path, paths[-1], keep_last=2, keep_best=1)
    assert names(tmp_path) == ["step-00000004", "step-00000005"]  # of equals the newest
    assert sorted(removed) == paths[:3]


@pytest.mark.parametrize("seed", range(8))
def test_the_last_and_best_are_those_that_a_sort_gives(save_steps, tmp_path, seed):
    draw = random.Random(seed)
    metrics = {step: draw.choice([0.1, 0.2, 0.3, 0.4]) for step in draw.sample(range(1, 8), 5)}
    paths = dict(enumerate(save_steps(*range(1, 8), metrics=metrics), 1))
    keep_last, keep_best = draw.randint(0, 2), draw.randint(0, 4)
    removed = keep(tmp_path, paths[1], keep_last=keep_last, keep_best=keep_best)
    best = sorted(metrics, key=lambda step: (metrics[step], step))[5 - keep_best :]
    stay = {1, *range(8 - keep_last, 8), *best}
    assert names(tmp_path) == sorted(paths[step].name for step in stay)
    assert sorted(removed) == sorted(paths[step] for step in paths.keys() - stay)


def test_all_is_on_the_disk_before_a_checkpoint_has_its_name(save_steps, tmp_path, monkeypatch):
    """As a machine that loses its power would leave it: what was not synced is not there."""
    done, sync, rename = [], os.fsync, Path.rename

    def told_sync(handle):
        sync(handle)
        state = os.fstat(handle)
        done.append((state.st_ino, state.st_size))

    def told_rename(self, target):
        done.append("named")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", told_sync)
    monkeypatch.setattr(Path, "rename", told_rename)
    (path,) = save_steps(1)
    before, after = done[: done.index("named")], done[done.index("named") + 1 :]
    for file in (path, *path.iterdir()):
        assert (file.stat().st_ino, file.stat().st_size) in before
    assert [inode for inode, _ in after] == [tmp_path.stat().st_ino]


def test_the_verified_one_stays_also_when_newer_ones_exist(save_steps, tmp_path):
    paths = save_steps(1, 2, 3)
    keep(tmp_path, paths[0])
    assert names(tmp_path) == ["step-00000001", "step-00000003"]


def test_one_that_is_measured_later_may_be_the_best(save_steps, engine_of, facts, tmp_path):
    """Saved by a stop, measured by the next start: the numbers come in whole, or not at all."""
    metrics = {1: 0.5, 2: 0.6, 4: 0.7}
    paths = save_steps(1, 2, 3, 4, 5, metrics=metrics)
    measured = TrainState(3, metrics={"clean/top1": 0.9, "clean/top5": math.nan})
    files = {file: file.read_bytes() for file in paths[2].iterdir()}
    full = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, full[1]))
    try:
        with pytest.raises(UserError, match=r"manifest\.json: disk full"):
            add_metrics(paths[2], measured)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, full)
    assert {file: file.read_bytes() for file in paths[2].iterdir()} == files
    assert keep(tmp_path, paths[4], keep_best=2) == [paths[2], paths[0]]
    (again,) = save_steps(3)
    add_metrics(again, measured)
    assert keep(tmp_path, paths[4], keep_best=2) == [paths[1]]
    paths[4].rename(tmp_path.parent / f"{tmp_path.name}-5")
    paths[3].rename(tmp_path.parent / f"{tmp_path.name}-4")
    found = latest_verified(tmp_path)
    engine = engine_of(50)
    state = load(found, engine, facts)
    assert (state.step, state.order, state.metrics) == (3, (3, 7), {"clean/top1": 0.9})
    assert engine.same_as(engine_of(3))


def test_damaged_ones_are_not_counted_as_kept(save_steps, tmp_path):
    paths = save_steps(1, 2, 3)
    (paths[2] / "manifest.json").unlink()
    keep(tmp_path, paths[1])
    assert names(tmp_path) == ["step-00000002", "step-00000003"]
    assert latest_verified(tmp_path).step == 2


def test_a_manifest_is_read_again_only_where_its_file_has_changed(
    save_steps, tmp_path, monkeypatch
):
    read, real = [], Manifest.read.__func__
    monkeypatch.setattr(
        Manifest, "read", classmethod(lambda cls, path: (read.append(path), real(cls, path))[1])
    )
    wanted = {"keep_last": 1, "keep_best": 2}
    paths = save_steps(1, 2, 3, metrics={1: 0.5, 2: 0.6})
    read.clear()
    assert keep(tmp_path, paths[2], **wanted) == []
    assert sorted(read) == paths
    (newer,) = save_steps(4, metrics={4: 0.4})
    read.clear()
    assert keep(tmp_path, newer, **wanted) == [paths[2]]
    assert read == [newer]
    with_its_times(paths[1], lambda text: text.replace('"clean/top1": 0.6', '"clean/top1": 0.3'))
    read.clear()
    assert keep(tmp_path, newer, **wanted) == []  # altered: not counted, and not removed
    assert keep(tmp_path, newer, **wanted) == []
    assert read == [paths[1], paths[1]]
    with_its_times(paths[1], lambda text: resealed(text))
    assert keep(tmp_path, newer, **wanted) == [paths[1]]  # whole again, and the third best


def with_its_times(path, change):
    """Change a manifest as one who hides it would: as many bytes, and the time of before."""
    file = path / "manifest.json"
    before, text = file.stat(), file.read_text()
    file.write_text(change(text))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert file.read_text() != text


def resealed(text):
    data = json.loads(text)
    return text.replace(data["digest"], _digest(data))


def test_nothing_else_is_ever_removed(save_steps, tmp_path):
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    paths = save_steps(1, 2)
    (tmp_path / "step-00000000").symlink_to(outside)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "step-abc").mkdir()
    (tmp_path / "step-00000009").write_text("a file")
    keep(tmp_path, paths[1])
    assert (outside / "precious").exists()
    assert names(tmp_path) == [
        "notes.txt", "step-00000000", "step-00000002", "step-00000009", "step-abc",
    ]  # fmt: skip


def test_saving_the_same_step_again_keeps_the_good_one(save_steps, tmp_path):
    (path,) = save_steps(1)
    before = path.stat().st_ino
    save_steps(1)
    assert path.stat().st_ino == before
    (path / "manifest.json").unlink()
    save_steps(1)
    assert names(tmp_path) == ["step-00000001", "step-00000001.corrupt"]
    assert latest_verified(tmp_path).step == 1


def test_too_small_a_disk_is_seen_before_anything_is_written(save_steps, tmp_path, monkeypatch):
    save_steps(1)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(SaveFailed, match="MB are needed"):
        save_steps(2)
    assert names(tmp_path) == ["step-00000001"]


@pytest.mark.parametrize(
    ("error", "said"),
    [(OSError(28, "No space left on device"), "No space left"), (OSError(), "OSError")],
)
def test_a_disk_that_fills_up_leaves_the_old_ones(save_steps, tmp_path, monkeypatch, error, said):
    """Also where the system does not say why."""
    save_steps(1)

    def full(self: ShardWriter, data: Any) -> None:
        raise error

    monkeypatch.setattr(ShardWriter, "write", full)
    with pytest.raises(SaveFailed, match=rf"rank 0.*{said}"):
        save_steps(2)
    assert names(tmp_path) == ["step-00000001"]


def test_bytes_that_come_back_changed_are_not_published(save_steps, tmp_path, monkeypatch):
    save_steps(1)
    original = ShardWriter.close

    def close_and_corrupt(self: ShardWriter) -> None:
        original(self)
        (tmp_path / ".partial-step-00000002" / "shard-00000-of-00001.safetensors").write_bytes(b"x")

    monkeypatch.setattr(ShardWriter, "close", close_and_corrupt)
    with pytest.raises(SaveFailed, match="bytes instead of"):
        save_steps(2)
    assert names(tmp_path) == ["step-00000001"]


def test_a_folder_that_cannot_be_made(engine_of, facts, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(SaveFailed, match="rank 0"):
        save(tmp_path / "file" / "checkpoints", engine_of(1), TrainState(1), facts)


def test_killed_anywhere_in_a_save_the_one_before_or_the_new_one_is_whole(
    engine_of, facts, save_steps, tmp_path
):
    save_steps(1)
    total = lines_of_a_save(lambda: save_steps(2))
    points = [*random.Random(5).sample(range(1, total), 20), total - 2]
    seen = set()
    for point in sorted(points):
        for path in tmp_path.glob("*step-00000002*"):
            path.rename(tmp_path.parent / f"{tmp_path.name}-{point}{path.name}")
        child = os.fork()
        if child == 0:
            lines_of_a_save(lambda: save_steps(2), stop_at=point)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), point
        found = latest_verified(tmp_path)
        assert not found.set_aside
        engine = engine_of(50)
        load(found, engine, facts)
        assert engine.same_as(engine_of(found.step))
        seen.add(found.step)
        save_steps(3)
        assert latest_verified(tmp_path).step == 3
        assert not list(tmp_path.glob(".*"))
        (tmp_path / "step-00000003").rename(tmp_path.parent / f"{tmp_path.name}-3-{point}")
    assert seen == {1, 2}
