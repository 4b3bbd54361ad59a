"""What is written, read back by other means than those that wrote it."""

from __future__ import annotations

import hashlib
import io
import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from distill.checkpoint import TrainState, gather, latest_verified, load, save
from distill.checkpoint.plan import plan_shards
from distill.checkpoint.shard import ShardLabel, ShardWriter
from distill.checkpoint.tensor_file import specs_of
from distill.data.batch import OrderState
from distill.ranks import Ranks


def test_files_are_safetensors_with_every_tensor_whole(engine_of, save_steps):
    (path,) = save_steps(3)
    assert sorted(p.name for p in path.iterdir()) == [
        "manifest.json",
        "shard-00000-of-00001.safetensors",
    ]
    tensors = load_file(path / "shard-00000-of-00001.safetensors")
    engine = engine_of(3)
    for (kind, name), expected in engine.state.items():
        assert torch.equal(tensors.pop(f"{kind}/{name}"), expected)
    for name, expected in engine.buffers.items():
        assert torch.equal(tensors.pop(f"buffer/{name}"), expected)
    assert list(tensors) == ["rng/0/cpu"]


def test_manifest_describes_files_and_tensors(save_steps):
    (path,) = save_steps(3)
    manifest = json.loads((path / "manifest.json").read_text())
    assert (manifest["format"], manifest["run_id"]) == (2, "run-a")
    assert manifest["step"] == 3
    assert manifest["identities"] == ["ann", "bob", "çelik", "dee"]
    assert manifest["train_state"]["order"] == [3, 7]
    for name, entry in manifest["files"].items():
        data = (path / name).read_bytes()
        assert entry["bytes"] == len(data)
        assert entry["sha256"] == hashlib.sha256(data).hexdigest()
    shape = manifest["tensors"]["weight/backbone.weight"]
    assert shape == {
        "file": "shard-00000-of-00001.safetensors",
        "dtype": "F32",
        "shape": [5, 3, 2],
    }


def test_every_tensor_is_aligned_to_its_type(save_steps):
    """So that readers can map the file as it is."""
    (path,) = save_steps(3)
    data = (path / "shard-00000-of-00001.safetensors").read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    tensors = json.loads(data[8:start])
    tensors.pop("__metadata__")
    assert {entry["dtype"] for entry in tensors.values()} == {"I64", "F32", "U8"}
    for key, entry in tensors.items():
        size = {"I64": 8, "F32": 4, "U8": 1}[entry["dtype"]]
        assert (start + entry["data_offsets"][0]) % size == 0, key


def test_folders_are_private(save_steps):
    (path,) = save_steps(1)
    assert path.stat().st_mode & 0o077 == 0


def test_load_brings_back_everything_bit_for_bit(engine_of, save_steps, facts, tmp_path):
    torch.manual_seed(11)
    save_steps(5)
    expected_draw = torch.rand(3)
    fresh = engine_of(77)
    torch.manual_seed(12)
    state = load(latest_verified(tmp_path), fresh, facts)
    assert fresh.same_as(engine_of(5))
    assert (state.step, state.order) == (5, OrderState(5, 7))
    assert torch.equal(torch.rand(3), expected_draw)


def test_odd_bits_survive(engine_of, facts, tmp_path):
    engine = engine_of(1)
    odd = engine.state["weight", "backbone.bias"]
    odd[:4] = torch.tensor([-0.0, math.nan, math.inf, 1e-45])
    save(tmp_path, engine, TrainState(1), facts)
    fresh = engine_of(2)
    load(latest_verified(tmp_path), fresh, facts)
    loaded = fresh.state["weight", "backbone.bias"]
    assert torch.equal(loaded.view(torch.int32), odd.view(torch.int32))


def test_small_windows_write_the_same_bytes(engine_of, facts, tmp_path, monkeypatch):
    torch.manual_seed(0)
    big = save(tmp_path / "big", engine_of(4), TrainState(4), facts)
    monkeypatch.setattr(gather, "WINDOW_ELEMENTS", 7)
    small = save(tmp_path / "small", engine_of(4), TrainState(4), facts)
    name = "shard-00000-of-00001.safetensors"
    assert (big / name).read_bytes() == (small / name).read_bytes()


def test_metrics_that_are_not_finite_stay_out_of_json():
    state = TrainState(2, metrics={"eer": math.nan, "auc": 0.5}, skipped=3)
    text = json.dumps(state.as_json(), allow_nan=False)
    assert TrainState.from_json(json.loads(text)) == TrainState(2, metrics={"auc": 0.5}, skipped=3)


def test_a_state_of_an_earlier_program_is_read():
    told = {"step": 2, "order": [1, 6], "best": 0.5, "metrics": {"auc": 0.5}, "skipped": 3}
    assert TrainState.from_json(told) == TrainState(2, OrderState(1, 6), {"auc": 0.5}, skipped=3)


shapes = st.dictionaries(
    st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=8),
    st.lists(st.integers(0, 6), max_size=3).map(tuple),
    min_size=1,
    max_size=6,
)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(shapes)
def test_any_names_and_shapes_are_read_by_the_library(tmp_path_factory, found):
    path = tmp_path_factory.mktemp("shard") / "shard-00000-of-00001.safetensors"
    tensors = {name: torch.randn(shape) for name, shape in found.items()}
    writer = ShardWriter(path, specs_of(tensors), ShardLabel("run", 1, 0, 1))
    for tensor in tensors.values():
        writer.add(tensor)
    writer.close()
    back = load_file(path)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


class AFewBytes(io.FileIO):
    """As where a disk is nearly full, or a signal comes."""

    def write(self, data):
        return super().write(data[:7])


def test_a_file_that_takes_a_few_bytes_at_a_time_is_written_whole(tmp_path, monkeypatch):
    tensors = {"a": torch.randn(40), "b": torch.arange(5)}
    path, whole = tmp_path / "few", tmp_path / "whole"
    for each in (whole, path):
        writer = ShardWriter(each, specs_of(tensors), ShardLabel("run", 1, 0, 1))
        for tensor in tensors.values():
            writer.add(tensor)
        size = each.stat().st_size
        writer.close()
        assert size == each.stat().st_size, "nothing may wait in memory when the file is synced"
        monkeypatch.setattr(Path, "open", lambda each, mode, **_: AFewBytes(each, "x"))
    monkeypatch.undo()
    assert path.read_bytes() == whole.read_bytes()
    assert writer.entry.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.dictionaries(st.text(min_size=1), st.integers(1, 50), max_size=12), st.integers(1, 5))
def test_plan_holds_every_tensor_once_and_is_balanced(sizes, world_size):
    class Shapes:
        moments = ("momentum_buffer",)
        class_bounds: dict[str, tuple[int, ...]] = {}
        shapes = {name: (size,) for name, size in sizes.items()}
        ranks = Ranks(0, world_size, 0, 1, torch.device("cpu"))

    plan = plan_shards(Shapes())
    keys = [spec.key for shard in plan for spec in shard]
    expected = {f"{kind}/{name}" for name in sizes for kind in ("weight", "momentum_buffer")}
    assert set(keys) == expected
    assert len(keys) == len(expected)
    loads = [sum(spec.nbytes for spec in shard) for shard in plan]
    # Largest first, to the least loaded: no two shards differ by more than one tensor.
    largest = max((spec.nbytes for shard in plan for spec in shard), default=0)
    assert max(loads) - min(loads) <= largest


@pytest.mark.parametrize("attribute", ["run_id", "step"])
def test_label_is_in_the_shard_itself(save_steps, attribute):
    from safetensors import safe_open

    (path,) = save_steps(9)
    with safe_open(path / "shard-00000-of-00001.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata == {"run_id": "run-a", "step": "9", "rank": "0", "world_size": "1"}
    assert metadata[attribute]
