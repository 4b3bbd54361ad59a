"""Tensors that stand in ranges of rows, and checkpoints from before there were any."""

from __future__ import annotations

import json
from contextlib import ExitStack

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from tensors import weights_at

from distill.checkpoint import Manifest, latest_verified, load
from distill.checkpoint.find import reason_against
from distill.checkpoint.manifest import _digest, parts_of
from distill.checkpoint.reader import Place, Reader

BOUNDS = st.lists(st.integers(1, 5), min_size=1, max_size=5)


class InMemory(Reader):
    """A tensor cut into ranges, without files."""

    def __init__(self, whole, sizes):
        self.whole_tensor = whole
        bounds = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
        self.cut = {part.key: part for part in parts_of("weight/w", bounds)}

    def parts(self, key):
        return list(self.cut.values())

    def tensor(self, key):
        return self.whole_tensor[self.cut[key].first : self.cut[key].stop]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(BOUNDS, st.sampled_from([(), (3,), (2, 2)]), st.data())
def test_elements_and_rows_are_those_of_the_whole(sizes, rest, data):
    rows = sum(sizes)
    whole = torch.randn(rows, *rest)
    reader = InMemory(whole, sizes)
    start = data.draw(st.integers(0, whole.numel()))
    out = torch.empty(data.draw(st.integers(0, whole.numel() - start)))
    reader.copy_elements("weight/w", start, out)
    assert torch.equal(out, whole.view(-1)[start : start + len(out)])
    numbers = torch.tensor(data.draw(st.lists(st.integers(0, rows - 1))), dtype=torch.int64)
    assert torch.equal(reader.rows("weight/w", numbers), whole[numbers])


def test_files_of_other_rows_are_not_opened(tmp_path, monkeypatch):
    """But for the first, which has the width of a row: a thousand ranks would open a million."""
    whole, opened = torch.randn(12, 3), []
    parts = parts_of("weight/w", range(0, 13, 2))
    for part in parts:
        save_file({part.key: whole[part.first : part.stop].clone()}, tmp_path / str(part.first))
    places = {part.key: Place(tmp_path / str(part.first), part.key) for part in parts}

    def open_and_count(file, *words):
        opened.append(int(file.name))
        return safe_open(file, *words)

    monkeypatch.setattr("distill.checkpoint.reader.safe_open", open_and_count)
    with ExitStack() as stack:
        reader = Reader(tmp_path, places, lambda _: parts, stack)
        out = torch.empty(5)
        reader.copy_elements("weight/w", 20, out)  # of rows 6 to 8
        assert torch.equal(out, whole.view(-1)[20:25])
        assert opened == [0, 6, 8]
        numbers = torch.tensor([11, 0, 10])
        assert torch.equal(reader.rows("weight/w", numbers), whole[numbers])
        assert opened == [0, 6, 8, 10]


def by_classes(engine):
    engine.class_bounds = {"head.weight": (0, 4)}
    return engine


def test_a_part_has_its_rows_in_its_name_and_comes_back(engine_of, facts, tmp_path, monkeypatch):
    from distill.checkpoint import TrainState, gather, save

    monkeypatch.setattr(gather, "WINDOW_ELEMENTS", 7)  # windows that cut rows
    path = save(tmp_path, by_classes(engine_of(3)), TrainState(3), facts)
    manifest = Manifest.read(path)
    assert manifest.ranges["weight/head.weight"] == [0, 4]
    assert manifest.tensors["weight/head.weight[0:4]"].shape == [4, 5]
    assert "weight/head.weight" not in manifest.tensors
    assert torch.equal(
        weights_at(path)[1]["head.weight"], engine_of(3).state["weight", "head.weight"]
    )
    for fresh in (engine_of(9), by_classes(engine_of(9))):
        load(latest_verified(tmp_path), fresh, facts)
        assert fresh.same_as(engine_of(3))


@pytest.mark.parametrize("ranges", [[0, 3], [0, 2, 4], [0, 4, 6]])
def test_a_range_that_is_not_there_is_found(engine_of, facts, tmp_path, ranges):
    from distill.checkpoint import TrainState, save

    path = save(tmp_path, by_classes(engine_of(3)), TrainState(3), facts)
    manifest = Manifest.read(path)
    forged = manifest.ranges | {"weight/head.weight": ranges}
    manifest.model_copy(update={"ranges": forged}).sealed().write(path)
    assert "lacks a range" in reason_against(path)


def test_a_checkpoint_of_the_first_format_still_loads(engine_of, facts, save_steps, tmp_path):
    """As it was written before ranges, and before heads had a placement."""
    (path,) = save_steps(5)
    data = json.loads((path / "manifest.json").read_text())
    del data["ranges"]
    data["format"] = 1
    data["digest"] = _digest(data)
    (path / "manifest.json").write_text(json.dumps(data))
    newer = facts.config["head"] | {"placement": "sharded", "sample_rate": 0.5}
    facts.config["head"] = newer
    fresh = engine_of(77)
    load(latest_verified(tmp_path), fresh, facts)
    assert fresh.same_as(engine_of(5))
