"""Damaged, foreign and missing checkpoints."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from tensors import weights_at

from distill.checkpoint import (
    TrainState,
    export_weights,
    find,
    latest_verified,
    load,
    open_weights,
    save,
)
from distill.checkpoint.find import reason_against
from distill.checkpoint.load import _pack_differences
from distill.errors import UserError

SHARD = "shard-00000-of-00001.safetensors"


def flip_a_byte(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 0x10
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


DAMAGE = {
    "a flipped byte in a shard": (lambda p: flip_a_byte(p / SHARD, -200), "digest"),
    "a flipped byte in a shard's header": (lambda p: flip_a_byte(p / SHARD, 20), "shard-00000"),
    "a flipped byte in the manifest": (lambda p: flip_a_byte(p / "manifest.json", 400), "manifest"),
    "a truncated shard": (lambda p: truncate(p / SHARD), "shard-00000"),
    "a truncated manifest": (lambda p: truncate(p / "manifest.json"), "manifest"),
    "an empty shard": (lambda p: (p / SHARD).write_bytes(b""), "shard-00000"),
    "a missing shard": (lambda p: (p / SHARD).unlink(), "missing"),
    "a missing manifest": (lambda p: (p / "manifest.json").unlink(), "missing"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_newest_damaged_is_set_aside_and_the_one_before_used(save_steps, tmp_path, kind):
    save_steps(1, 2)
    damage, word = DAMAGE[kind]
    damage(tmp_path / "step-00000002")
    found = latest_verified(tmp_path)
    assert found.step == 1
    ((moved, reason),) = found.set_aside
    assert moved == str(tmp_path / "step-00000002.corrupt")
    assert Path(moved).is_dir()
    assert word in reason
    assert latest_verified(tmp_path).set_aside == ()


def test_weights_that_are_not_the_newest_are_told(save_steps, tmp_path, capsys):
    save_steps(1, 2)
    truncate(tmp_path / "step-00000002" / SHARD)
    with ExitStack() as stack:
        assert open_weights(tmp_path, stack).step == 1
    told = " ".join(capsys.readouterr().err.split())
    assert f"warning: checkpoint damaged and set aside: {tmp_path}/step-00000002.corrupt" in told
    assert told.endswith("taking that of step 1 in its place")


def test_shards_that_were_compared_a_moment_ago_are_not_read(save_steps, tmp_path, monkeypatch):
    save_steps(1)
    step = tmp_path / "step-00000001"
    monkeypatch.setattr(find, "verify_file", None)
    with ExitStack() as stack:
        assert open_weights(step, stack, compared=True).step == 1
        (step / "manifest.json").unlink()
        with pytest.raises(UserError, match=r"no checkpoint there"):
            open_weights(step, stack, compared=True)
    (step / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json is truncated"), ExitStack() as stack:
        open_weights(step, stack, compared=True)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(place=st.integers(0, 10**6), name=st.sampled_from([SHARD, "manifest.json"]))
def test_no_flipped_byte_goes_unseen(save_steps, tmp_path, place, name):
    path = tmp_path / "step-00000001"
    if not path.exists():
        save_steps(1)
    file = path / name
    before = file.read_bytes()
    flip_a_byte(file, place)
    assert reason_against(path)
    file.write_bytes(before)
    assert not reason_against(path)


def test_all_that_was_ever_set_aside_of_a_step_stays(save_steps, tmp_path):
    save_steps(1)
    for number in range(3):
        (path,) = save_steps(2)
        (path / "manifest.json").write_text(f"{number}")
        assert latest_verified(tmp_path).step == 1
    kept = {folder.name: folder / "manifest.json" for folder in tmp_path.glob("*.corrupt*")}
    names = ["step-00000002.corrupt", "step-00000002.corrupt-2", "step-00000002.corrupt-3"]
    assert [kept[name].read_text() for name in names] == ["0", "1", "2"] and len(kept) == 3


def test_all_damaged_is_an_error_and_stays_one(save_steps, tmp_path):
    for path in save_steps(1, 2):
        truncate(path / SHARD)
    for _ in range(2):
        with pytest.raises(UserError, match="none of them is good"):
            latest_verified(tmp_path)
    assert len(list(tmp_path.glob("*.corrupt"))) == 2


def test_nothing_there_is_a_fresh_start(tmp_path):
    assert latest_verified(tmp_path / "absent") is None
    (tmp_path / ".partial-step-00000004").mkdir()
    assert latest_verified(tmp_path) is None


@pytest.mark.parametrize("other", ["step", "run"])
def test_a_shard_of_another_step_or_run_is_named(save_steps, engine_of, facts, tmp_path, other):
    first, second = save_steps(1, 2)
    if other == "run":
        elsewhere = replace(facts, run_id="run-b")
        first = save(tmp_path / "b", engine_of(2), TrainState(2), elsewhere)
    shutil.copy(first / SHARD, second / SHARD)
    assert latest_verified(tmp_path).step == 1
    (path,) = tmp_path.glob("*.corrupt")
    expected = "of step 1, not 2" if other == "step" else "of run_id run-b, not run-a"
    assert expected in reason_against(path)


CHANGES = {
    "classes: 4 there -> 2 here": {"identities": ["ann", "bob"]},
    "label 1: 'bob' there -> 'rob' here": {"identities": ["ann", "rob", "çelik", "dee"]},
    "training pack: digest-1 there -> digest-2 here": {"data_digest": "digest-2"},
    "model.name: 'tiny' there -> 'vit' here": {
        "config": {"model": {"name": "vit", "dropout": 0.1}, "head": {"kind": "linear"}}
    },
    "head.kind: 'linear' there -> 'cosine' here": {
        "config": {"model": {"name": "tiny", "dropout": 0.1}, "head": {"kind": "cosine"}}
    },
}


@pytest.mark.parametrize("difference", CHANGES)
def test_a_checkpoint_of_something_else_is_refused(
    save_steps, engine_of, facts, tmp_path, difference
):
    save_steps(1)
    engine = engine_of(9)
    with pytest.raises(UserError) as caught:
        load(latest_verified(tmp_path), engine, replace(facts, **CHANGES[difference]))
    assert difference in str(caught.value)
    assert "another run.dir" in caught.value.fix
    assert engine.same_as(engine_of(9))


@pytest.mark.parametrize(
    ("there", "here", "said"),
    [
        ("a+b+c", "c+a+b", "order of the training packs: 1 to 3 there -> 3, 1, 2 here"),
        ("a+b", "a+x", "training pack 2 of 2: b there -> x here"),
        ("a", "a+b", "training packs: 1 there -> 2 here"),
        ("a+b", "a", "training packs: 2 there -> 1 here"),
    ],
)
def test_other_training_packs_are_told_apart(there, here, said):
    assert list(_pack_differences(there, here)) == [said]
    assert list(_pack_differences(there, there)) == []


def test_differences_allowed_by_name_pass(save_steps, engine_of, facts, tmp_path):
    save_steps(1)
    other = replace(facts, data_digest="x", identities=["a", "b", "c", "d"])
    engine = engine_of(9)
    load(latest_verified(tmp_path), engine, other, allow={"data", "identities"})
    assert engine.same_as(engine_of(1))


def test_another_network_or_optimizer_is_refused(save_steps, engine_of, facts, tmp_path):
    save_steps(1)
    found = latest_verified(tmp_path)
    with pytest.raises(UserError, match=r"head\.weight: \(4, 5\) there -> \(6, 5\) here"):
        shapes = {**engine_of(1).shapes, "head.weight": (6, 5)}
        load(found, engine_of(1, shapes), facts)
    sgd = engine_of(1)
    sgd.moments = ("momentum_buffer",)
    with pytest.raises(UserError, match="optimizer state"):
        load(found, sgd, facts)


def test_weights_refuse_what_is_damaged_or_foreign(save_steps, tmp_path):
    (path,) = save_steps(1)
    with pytest.raises(UserError, match="no checkpoint there"):
        weights_at(tmp_path / "absent")
    flip_a_byte(path / SHARD, -200)
    with pytest.raises(UserError, match="digest"):
        weights_at(path)
    stray = tmp_path / "stray.safetensors"
    stray.write_bytes(b"\x80\x04no pickle is ever loaded")
    with pytest.raises(UserError, match="safetensors"):
        weights_at(stray)
    for metadata in (None, {"format": "pt"}):
        save_file({"weight": torch.ones(2)}, stray, metadata)
        with pytest.raises(UserError, match="holds no exported weights of this program"):
            weights_at(stray)


def test_weights_and_export(save_steps, engine_of, facts, tmp_path):
    save_steps(1, 2)
    exported = export_weights(tmp_path, tmp_path / "model.safetensors")
    for path in (tmp_path, tmp_path / "step-00000002", exported):
        weights, tensors = weights_at(path)
        assert weights.step == 2
        assert weights.identities == list(facts.identities)
        assert weights.config == facts.config
        engine = engine_of(2)
        expected = {n: t for (k, n), t in engine.state.items() if k == "weight"} | engine.buffers
        assert tensors.keys() == expected.keys()
        assert all((tensors[n] == t).all() for n, t in expected.items())


def test_export_to_a_bad_place_leaves_nothing(save_steps, tmp_path):
    (path,) = save_steps(1)
    with pytest.raises(UserError, match="cannot be written"):
        export_weights(path, tmp_path / "absent" / "model.safetensors")
