"""Runs of the real program on second images made while training: two ranks, stopped and resumed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from rank_processes import python
from safetensors.numpy import load_file

STEPS = 6


def program(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "distill", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of first images, made by the program, and settings."""
    root = tmp_path_factory.mktemp("online")
    rng = np.random.default_rng(0)
    for person in ("ann", "bob", "cid"):
        (root / "people" / person).mkdir(parents=True)
        for i in range(6):
            small = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
            cv2.imwrite(str(root / "people" / person / f"{i}.png"), cv2.resize(small, (112, 112)))
    kinds = "pose=0.5,eyes=0.5,blur=0.5"
    words = ["pack", str(root / "people"), str(root / "pack"), "--aligned", "--kinds", kinds]
    done = program(*words, "--layout", "singles", "--second", "gaussian_sigma=1..2")
    assert done.returncode == 0, done.stderr
    assert "data.second = 'online'" in done.stdout
    (root / "run.toml").write_text(f"""
[run]
device = "cpu"
threads_per_rank = 1
[data]
train = "{root}/pack"
second = "online"
[model]
name = "tiny"
embedding_dim = 16
[optimizer]
schedule = "constant"
[train]
steps = {STEPS}
global_batch_pairs = 8
[monitor]
tensorboard = false
log_every_steps = 1
""")
    return root


def run(root: Path, name: str, *words: str) -> Path:
    folder = root / "runs" / name
    settings = [str(root / "run.toml"), f"run.dir={folder}", *words]
    done = python("-m", "distill", "train", *settings, "--ranks", "2")
    assert done.returncode == 0, done.stderr
    return folder


def losses(folder: Path) -> list[tuple[float, float, float]]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    tags = ("loss/ce_first", "loss/ce_second", "loss/similarity")
    return [tuple(line[tag] for tag in tags) for line in lines if "loss/total" in line]


def test_two_ranks_resumed_in_the_second_epoch_end_as_if_never_stopped(root: Path) -> None:
    whole = run(root, "whole")
    parts = [run(root, "parts", f"train.steps={steps}") for steps in (3, STEPS)][-1]
    assert len(losses(whole)) == STEPS
    assert losses(parts) == losses(whole)
    weights = [load_file(folder / "model.safetensors") for folder in (whole, parts)]
    for key, tensor in weights[0].items():
        assert np.array_equal(tensor, weights[1][key]), key


def test_a_pack_that_does_not_fit_is_refused_before_anything_is_written(root: Path) -> None:
    folder = root / "runs" / "refused"
    words = [str(root / "run.toml"), f"run.dir={folder}", "data.second=packed"]
    done = python("-m", "distill", "train", *words)
    assert done.returncode != 0
    assert "has no second images" in done.stderr and "--layout pairs" in done.stderr
    assert not folder.exists()
