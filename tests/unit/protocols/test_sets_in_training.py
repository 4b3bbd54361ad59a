"""A run that measures itself on templates and on a list of photographs."""

import json

import numpy as np
import pytest
from drawn_people import draw_face
from rank_processes import python
from written_lfw import write_lfw

from distill.data.images import encode_jpeg
from distill.data.pack_writer import EncodedPair, write_pack


def test_a_run_finds_of_itself_what_evaluate_finds_of_its_weights(ijbc, tmp_path, drawn_pairs):
    lfw = write_lfw(tmp_path / "lfw")
    write_pack(tmp_path / "train", drawn_pairs, 16, identities=["a", "b"], kinds=["blur"])
    words = [
        f"run.dir={tmp_path}/run",
        f"data.train={tmp_path}/train",
        f"evaluate.sets={json.dumps([str(ijbc), str(lfw)])}",
        *("run.device=cpu", "data.reader=python", "model.name=tiny", "model.embedding_dim=16"),
        *("train.steps=2", "train.global_batch_pairs=8", "evaluate.every_steps=1"),
        "checkpoint.best_metric=ijbc/tar_at_far_0.1",
    ]
    settings = tmp_path / "run.toml"
    settings.touch()
    done = run("train", "--ranks", "2", settings, *words)
    lines = [json.loads(x) for x in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    told = {line["step"]: line for line in lines if "evaluation_ijbc/auc" in line}
    assert sorted(told) == [1, 2]
    accuracy = f"{told[2]['evaluation_lfw_pairs/accuracy']:.5f}"
    assert f"accuracy: lfw_pairs {accuracy}; AUC: ijbc " in done.stderr
    assert told[2]["evaluation_ijbc/rank1"] <= told[2]["evaluation_ijbc/rank5"]
    weights = tmp_path / "run" / "model.safetensors"
    again = json.loads(
        run("evaluate", weights, ijbc, lfw, "--json", "--out", tmp_path / "r").stdout
    )
    report = json.loads((tmp_path / "run/report/sets.json").read_text())
    for mine, theirs in zip(report["sets"], again["sets"], strict=True):
        assert mine["name"] == theirs["name"] in ("ijbc", "lfw_pairs")
        wanted = pytest.approx(theirs["verification"]["auc"], abs=1e-3)
        assert mine["verification"]["auc"] == wanted


@pytest.fixture
def drawn_pairs():
    rng = np.random.default_rng(0)
    faces = [encode_jpeg(draw_face(rng, number % 2)) for number in range(32)]
    return [EncodedPair(faces[i], faces[i + 16], i % 2, 0) for i in range(16)]


def run(*words):
    done = python("-m", "distill", *map(str, words))
    assert done.returncode == 0, done.stderr
    return done
