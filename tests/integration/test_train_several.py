"""A run of the real program on several packs: two ranks, stopped, resumed, asked for names."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from rank_processes import python
from safetensors import safe_open
from safetensors.numpy import load_file

from distill.data.pack_writer import EncodedPair, write_pack

pytestmark = pytest.mark.slow

STEPS = 5
PEOPLE = {"a": ["ann", "bob", "cid"], "b": ["cid", "dan"]}


def picture(rng: np.random.Generator) -> bytes:
    small = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return simplejpeg.encode_jpeg(cv2.resize(small, (112, 112)), colorsubsampling="444")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, rng = tmp_path_factory.mktemp("several"), np.random.default_rng(0)
    for name, people in PEOPLE.items():
        pairs = [EncodedPair(picture(rng), picture(rng), i % len(people), 0) for i in range(9)]
        write_pack(root / name, pairs, 9, identities=people, kinds=["blur"])
    (root / "run.toml").write_text(f"""
[run]
device = "cpu"
threads_per_rank = 1
[data]
train = ["{root}/a", "{root}/b"]
same_names = "same_person"
[model]
name = "tiny"
embedding_dim = 16
[optimizer]
schedule = "constant"
[train]
steps = {STEPS}
global_batch_pairs = 6
[monitor]
tensorboard = false
log_every_steps = 1
""")
    return root


def train(root: Path, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    settings = [str(root / "run.toml"), f"run.dir={root}/runs/{name}", *words]
    return python("-m", "distill", "train", *settings)


def test_two_packs_are_trained_on_as_one_and_resumed(root: Path) -> None:
    whole = train(root, "whole", "--ranks", "2")
    assert whole.returncode == 0, whole.stderr
    said = "4 people, 18 pairs of 2 packs (1 names in several of them merged)"
    assert said in whole.stdout + whole.stderr
    for steps in (3, STEPS):
        assert train(root, "parts", f"train.steps={steps}", "--ranks", "2").returncode == 0
    weights = [load_file(root / "runs" / n / "model.safetensors") for n in ("whole", "parts")]
    assert all(np.array_equal(weights[0][key], weights[1][key]) for key in weights[0])
    with safe_open(root / "runs" / "whole" / "model.safetensors", "np") as file:
        metadata = file.metadata()
    assert json.loads(metadata["identities"]) == ["ann", "bob", "cid", "dan"]


def test_other_packs_are_refused_when_a_run_is_resumed(root: Path) -> None:
    assert train(root, "swapped", "train.steps=2", "checkpoint.every_steps=1").returncode == 0
    swapped = train(root, "swapped", f'data.train=["{root}/b", "{root}/a"]')
    assert swapped.returncode == 2
    assert "label 0: 'ann' there -> 'cid' here" in swapped.stderr
    assert "order of the training packs: 1 to 2 there -> 2, 1 here" in swapped.stderr
    fewer = train(root, "swapped", f"data.train={root}/a")
    assert fewer.returncode == 2
    assert "training packs: 2 there -> 1 here" in fewer.stderr


def test_equal_names_need_a_word(root: Path) -> None:
    refused = train(root, "refused", "data.same_names=refuse")
    assert refused.returncode == 2
    assert "1 names stand in several packs ('cid')" in refused.stderr
    assert "same_person" in refused.stderr and not (root / "runs" / "refused").exists()


def test_one_person_is_one_clear_error_and_two_with_a_pair_each_are_enough(root: Path) -> None:
    rng = np.random.default_rng(5)
    pairs = [EncodedPair(picture(rng), picture(rng), label, 0) for label in (0, 1)]
    write_pack(root / "one", pairs[:1], 1, identities=["eve"], kinds=["blur"])
    write_pack(root / "both", pairs, 2, identities=["eve", "flo"], kinds=["blur"])
    words = ["train.global_batch_pairs=1", "train.steps=2"]
    refused = train(root, "one", f"data.train={root}/one", *words)
    assert refused.returncode == 2
    assert "1 person in all, and a classifier needs two" in refused.stderr
    done = train(root, "both", f"data.train={root}/both", *words)
    assert done.returncode == 0, done.stderr
    assert "2 people, 2 pairs;" in done.stdout + done.stderr
