"""Whole runs with class-sharded heads on two ranks: the numbers of a replicated head, and beyond.

All runs but one are played by one pair of processes, one after the other.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
import torch
from rank_processes import on_ranks, python
from safetensors.numpy import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from distill.classify import classify
from distill.data.manifest import read_pack
from distill.data.pack_writer import EncodedPair, write_pack
from distill.evaluate import evaluate, scalars
from distill.ranks import Ranks
from distill.run_dir import RunDir
from distill.trained import restore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ALONE = Ranks(0, 1, 0, 1, torch.device("cpu"))
NAMES = ["ann", "bob", "cat", "dan", "eve"]  # three of one rank, two of the other
OTHERS = ["zoe", "eve", "bob", "max", "kim", "ann"]
STEPS = 6
SHARDED = ["head.placement=sharded", "loss.form=fused"]
RUNS: dict[str, list[list[str]]] = {
    "replicated": [[]],
    "replicated fused": [["loss.form=fused", "train.zero_stage=3"]],
    "sharded": [SHARDED],
    "sharded plain": [["head.placement=sharded", "train.zero_stage=3"]],
    "changing": [
        [*SHARDED, "train.steps=3"],
        ["train.zero_stage=2"],
    ],
    "first": [["train.images=first", "data.train={packs}/blind"]],
    "first fused": [["train.images=first", "loss.form=fused", "train.zero_stage=2"]],
    "first sharded": [
        [*SHARDED, "train.images=first", "train.steps=3"],
        ["loss.form=fused", "train.images=first", "train.zero_stage=3"],
    ],
    "centres": [["head.sub_centres=2"]],
    "centres changing": [
        [*SHARDED, "head.sub_centres=2", "train.steps=3"],
        ["head.sub_centres=2", "loss.form=fused", "train.zero_stage=2"],
    ],
    "sampled": [[*SHARDED, "head.sample_rate=0.7"]],
    "others": [[*SHARDED, "model.init_from={runs}/sharded", "data.train={packs}/others"]],
}
PLAY = """
import contextlib, json, sys
import distill.train
from distill.config import load_config
from distill.ranks import from_environment, init_process_group, leave_process_group
from distill.processes.spawn import spawned_rank

with spawned_rank():
    path, runs = sys.argv[1], json.loads(sys.argv[2])
    ranks = from_environment(load_config(path))
    init_process_group(load_config(path), ranks)
    distill.train.process_group = lambda *_: contextlib.nullcontext()
    for words in runs:
        outcome = distill.train.train(load_config(path, words), ranks)
        assert outcome.exit_status == 0, outcome
    leave_process_group()
"""
SETTINGS = """
[run]
device = "cpu"
threads_per_rank = 1
[data]
train = '{root}/packs/train'
evaluation = '{root}/packs/evaluation'
reader = "python"
[model]
name = "tiny"
embedding_dim = 16
dropout = 0.1
[head]
scale = 8.0
margin = "cosface"
[optimizer]
lr = 0.001
schedule = "constant"
[train]
steps = {steps}
global_batch_pairs = 12
[evaluate]
every_steps = 3
batch_images = 7
[checkpoint]
every_steps = 3
[monitor]
log_every_steps = 1
images = true
pictures_every_steps = 3
"""


def face(rng: np.random.Generator, person: int) -> bytes:
    colour = np.random.default_rng(person).integers(40, 215, 3)
    small = np.clip(colour + rng.normal(0, 25, (8, 8, 3)), 0, 255).astype(np.uint8)
    large = cv2.resize(small, (112, 112), interpolation=cv2.INTER_CUBIC)
    return simplejpeg.encode_jpeg(large, quality=90, colorsubsampling="444")


def drawn(count: int, people: int, *, seed: int) -> Iterator[EncodedPair]:
    rng = np.random.default_rng(seed)
    for i in range(count):
        yield EncodedPair(face(rng, i % people), face(rng, i % people), i % people, 0)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("heads")
    packs = root / "packs"
    for name, people in (("train", NAMES), ("others", OTHERS)):
        write_pack(
            packs / name, drawn(60, len(people), seed=1), 60, identities=people, kinds=("blur",)
        )
    firsts = (pair._replace(second=b"no image") for pair in drawn(60, len(NAMES), seed=1))
    write_pack(packs / "blind", firsts, 60, identities=NAMES, kinds=("blur",))
    about = {"identities": NAMES, "kinds": ("blur",), "purpose": "evaluation", "photographs": 13}
    write_pack(packs / "evaluation", drawn(13, 5, seed=2), 13, **about)
    (root / "run.toml").write_text(SETTINGS.format(root=root, steps=STEPS))
    (root / "play.py").write_text(PLAY)
    return root


@pytest.fixture(scope="module")
def played(root: Path) -> tuple[Path, str]:
    """All of `RUNS`, and what was said meanwhile."""
    places = {"runs": root / "runs", "packs": root / "packs"}
    starts = [
        [f"run.dir={root / 'runs' / name}", *(word.format(**places) for word in words)]
        for name, parts in RUNS.items()
        for words in parts
    ]
    done = on_ranks(root / "play.py", root / "run.toml", json.dumps(starts), ranks=2)
    return root / "runs", told(done)


def told(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout + done.stderr


def numbers(run: Path, prefixes: tuple[str, ...] = ("loss/", "accuracy/", "pair/")) -> list[Any]:
    lines = [json.loads(line) for line in RunDir(run).metrics.read_text().splitlines()]
    return [v for line in lines for tag, v in sorted(line.items()) if tag.startswith(prefixes)]


@pytest.mark.parametrize("name", ["replicated fused", "sharded", "sharded plain", "changing"])
def test_a_run_reaches_the_losses_of_a_replicated_head(played, name):
    runs, _ = played
    expected, found = numbers(runs / "replicated"), numbers(runs / name)
    assert len(expected) == 8 * STEPS
    early = 8 * 4  # then one bit of an initial weight changes losses of this network by 2e-5
    assert found[:early] == pytest.approx(expected[:early], rel=5e-6, abs=1e-6)
    assert found == pytest.approx(expected, rel=3e-4, abs=1e-5)
    ours, theirs = (load_file(RunDir(runs / n).weights) for n in (name, "replicated"))
    assert ours.keys() == theirs.keys()
    for key in ours:
        np.testing.assert_allclose(ours[key], theirs[key], rtol=0, atol=1e-4, err_msg=key)


@pytest.mark.parametrize("name", ["first fused", "first sharded"])
def test_a_run_without_pairs_reaches_the_losses_of_a_replicated_head(played, name):
    """Its loss and accuracy, and those of the last evaluation.

    That one's second images are none, so nobody looks at those of the others either.
    """
    runs, _ = played
    expected, found = numbers(runs / "first"), numbers(runs / name)
    assert len(expected) == 3 * STEPS, "total, cross-entropy and accuracy alone"
    assert found == pytest.approx(expected, rel=3e-4, abs=1e-5)
    ours, theirs = (numbers(runs / n, ("evaluation_clean/",)) for n in (name, "first"))
    assert ours[-5:] == pytest.approx(theirs[-5:], rel=3e-4, abs=1e-5)


@pytest.mark.parametrize("name", ["sharded", "sharded plain"])
def test_a_run_with_a_sharded_head_is_restored_measured_and_asked(played, root, name):
    """Its last evaluation was made by ranges of classes, on two ranks; here the head is whole."""
    run = played[0] / name
    for origin in (run, RunDir(run).weights):
        trained = restore(origin)
        assert trained.identities == NAMES
        pack = read_pack(root / "packs" / "evaluation")
        report = evaluate(trained.model, pack, trained.config, ALONE, class_names=NAMES)
        last = [json.loads(s) for s in RunDir(run).metrics.read_text().splitlines()]
        measured = next(line for line in reversed(last) if "evaluation_clean/top1" in line)
        for tag, value in scalars(report).items():
            assert measured[f"evaluation_{tag}"] == pytest.approx(value, rel=1e-4, abs=1e-5)
    picture = root / "someone.jpg"
    picture.write_bytes(face(np.random.default_rng(9), 2))
    (answer,) = classify(run, [picture], aligned=True, top=5)
    assert {name for name, _ in answer.top} == set(NAMES)


def test_a_run_with_sub_centres_goes_on_in_another_placement_and_is_asked(played, root):
    """It was evaluated after 3 steps by ranges of classes, at its end by the whole head."""
    runs, _ = played
    expected, found = (
        numbers(runs / name, ("loss/", "accuracy/", "pair/", "evaluation_clean/top"))
        for name in ("centres", "centres changing")
    )
    assert found == pytest.approx(expected, rel=3e-4, abs=1e-5)
    assert numbers(runs / "centres")[:8] != pytest.approx(numbers(runs / "replicated")[:8])
    trained = restore(RunDir(runs / "centres changing").weights)
    assert trained.model.head.weight.shape == (len(NAMES), 2, 16)
    picture = root / "someone else.jpg"
    picture.write_bytes(face(np.random.default_rng(9), 3))
    (answer,) = classify(runs / "centres changing", [picture], aligned=True, top=5)
    assert sum(share for _, share in answer.top) == pytest.approx(1.0)


def test_the_first_line_says_where_the_head_stands(played):
    runs, said = played
    for name in ("sampled", "others"):
        assert np.isfinite(numbers(runs / name)).all()
    assert "head: cosine, replicated, plain loss" in said
    assert "head: cosine, sharded, fused loss" in said
    assert "head: cosine, sharded, 0.7 of it a step, fused loss" in said
    assert "head: cosine, 2 sub-centres, replicated, plain loss" in said
    assert "of its people 3 kept and 2 dropped, 3 new" in said
    assert f"{len(NAMES)} people, 60 pairs; head" in said
    assert f"{len(NAMES)} people, 60 first images; head" in said


def test_pictures_have_the_answers_of_a_sharded_head(played):
    runs, _ = played
    pictures = {}
    for name in ("replicated", "sharded"):
        board = EventAccumulator(str(RunDir(runs / name).tensorboard))
        board.Reload()
        pictures[name] = [image.encoded_image_string for image in board.Images("pairs")]
    assert len(pictures["sharded"]) == 2
    assert pictures["sharded"][0] == pictures["replicated"][0]


def test_the_command_with_two_ranks(root, played):
    runs, _ = played
    words = ["train", str(root / "run.toml"), f"run.dir={runs / 'command'}", *SHARDED]
    said = told(python("-m", "distill", *words, "--ranks", "2"))
    assert "head: cosine, sharded, fused loss" in said
    assert numbers(runs / "command") == numbers(runs / "sharded")
