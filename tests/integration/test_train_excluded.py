"""The real program without listed photographs: stopped, resumed, and given another list."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from rank_processes import python
from safetensors.numpy import load_file

from distill.data.excluded import NEEDED, pack_key
from distill.data.manifest import Pack
from distill.data.pack_writer import EncodedPair, write_pack

pytestmark = pytest.mark.slow

PAIRS, PEOPLE = 12, ["ann", "bob", "cid"]


def picture(rng: np.random.Generator) -> bytes:
    small = rng.integers(0, 256, (14, 14, 3), dtype=np.uint8)
    large = small.repeat(8, axis=0).repeat(8, axis=1)
    return simplejpeg.encode_jpeg(large, colorsubsampling="444")


def listed(folder: Path, name: str, pack: Pack, pairs: list[int]) -> Path:
    with (folder / name).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(NEEDED)
        table.writerows([pack_key(pack), pair, "", PEOPLE[pair // 4]] for pair in pairs)
    return folder / name


def train(root: Path, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    settings = [
        "run.device=cpu",
        "run.threads_per_rank=1",
        f"run.dir={root}/{name}",
        f"data.train={root}/pack",
        "model.name=tiny",
        "model.embedding_dim=16",
        "optimizer.schedule=constant",
        "train.global_batch_pairs=4",
        "train.steps=4",
        "monitor.tensorboard=false",
    ]
    (root / "run.toml").touch()
    return python("-m", "distill", "train", str(root / "run.toml"), *settings, *words)


def test_a_run_goes_on_without_the_same_photographs_and_with_no_other_list(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pairs = [EncodedPair(picture(rng), picture(rng), number // 4, 0) for number in range(PAIRS)]
    pack = write_pack(tmp_path / "pack", pairs, PAIRS, identities=PEOPLE, kinds=["blur"])
    first = listed(tmp_path, "first.csv", pack, [1, 4, 5, 6, 7])
    again = listed(tmp_path, "again.csv", pack, [7, 6, 5, 4, 1])
    other = listed(tmp_path, "other.csv", pack, [1, 4, 5, 6])
    whole = train(tmp_path, "whole", f"data.exclude={first}")
    assert whole.returncode == 0, whole.stderr
    said = "3 people, 7 pairs (5 left out, 1 people have none)"
    assert said in " ".join((whole.stdout + whole.stderr).split())
    assert train(tmp_path, "parts", f"data.exclude={first}", "train.steps=2").returncode == 0
    for words in ([f"data.exclude={other}"], []):
        refused = train(tmp_path, "parts", *words)
        assert refused.returncode == 2
        assert "photographs of data.exclude: " in refused.stderr
        assert 'run.accept = "data"' in refused.stderr
    resumed = train(tmp_path, "parts", f"data.exclude={again}")
    assert resumed.returncode == 0, resumed.stderr
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts")]
    assert all(np.array_equal(weights[0][key], weights[1][key]) for key in weights[0])
    accepted = train(tmp_path, "parts", "train.steps=5", "run.accept=data")
    assert accepted.returncode == 0, accepted.stderr
