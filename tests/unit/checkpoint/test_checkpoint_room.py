"""Room that a run asks for before it starts, against what it writes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from distill.checkpoint import TrainState, check_space, export_weights, save
from distill.checkpoint.space import bytes_to_come
from distill.config.tree import CheckpointConfig
from distill.errors import UserError


def test_room_for_what_is_not_there_yet(save_steps, engine_of, tmp_path):
    """As many as are kept and one in the making, less those that are there; against real sizes."""
    keep = CheckpointConfig(keep_last=2, keep_best=1)
    one = bytes_to_come(tmp_path, engine_of(1), keep, 10**6) / 4
    for saved, missing in ((1, 3), (2, 2), (3, 1), (4, 1)):
        (path,) = save_steps(saved)
        assert bytes_to_come(tmp_path, engine_of(1), keep, 10**6) == missing * one
    size = sum(file.stat().st_size for file in path.iterdir())
    assert size <= one < 20 * size


def bytes_below(folder: Path) -> int:
    """Of real files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize("every", [0, 1, 2, 3, 8, 9, 100])
@pytest.mark.parametrize("before", [0, 4])
def test_a_run_that_keeps_all_has_room_for_what_it_saves_and_its_weights(
    engine_of, facts, tmp_path, every, before
):
    """Nine steps, of which ``before`` are behind it; the last one is always saved."""
    shapes = {"head.weight": (2000, 100)}
    keep = CheckpointConfig(every_steps=every, keep_last=10**9)
    steps = [*(step for step in range(1, 9) if every and step % every == 0), 9]
    for step in (*(s for s in steps if s <= before), None, *(s for s in steps if s > before)):
        if step is None:
            there = bytes_below(tmp_path)
            asked = bytes_to_come(tmp_path, engine_of(1, shapes), keep, 9)
        else:
            path = save(tmp_path, engine_of(1, shapes), TrainState(step), facts)
    export_weights(path, tmp_path / "model.safetensors")
    needed = bytes_below(tmp_path) - there
    assert needed <= asked < needed + 10**5 * (len(steps) + 1)


@pytest.mark.parametrize("keep_last", [1, 10**9])
def test_once_the_last_step_is_saved_only_the_weights_need_room(
    engine_of, facts, tmp_path, keep_last
):
    """Of a run that was stopped in its last evaluation, on a disk that is almost full."""
    engine = engine_of(1, {"head.weight": (2000, 100)})
    path = save(tmp_path, engine, TrainState(9), facts)
    asked = bytes_to_come(tmp_path, engine, CheckpointConfig(keep_last=keep_last), 9)
    written = export_weights(path, tmp_path / "model.safetensors").stat().st_size
    assert written <= asked < written + 10**5
    assert bytes_to_come(tmp_path, engine, CheckpointConfig(every_steps=1), 10) > 2 * asked


@pytest.mark.parametrize(
    ("needed", "said"), [(123_456_789, "0.12 GB"), (12_345_678, "12.35 MB"), (10**8, "0.10 GB")]
)
def test_a_run_starts_where_its_checkpoints_just_fit(
    engine_of, tmp_path, monkeypatch, needed, said
):
    monkeypatch.setattr("distill.checkpoint.space.bytes_to_come", lambda *_: needed)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=needed))
    check_space(tmp_path / "checkpoints", engine_of(1), CheckpointConfig(), 9)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=needed - 1))
    with pytest.raises(UserError, match=f"need {said}, and .* are free"):
        check_space(tmp_path / "checkpoints", engine_of(1), CheckpointConfig(), 9)
