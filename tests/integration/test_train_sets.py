"""A run that measures itself on verification sets, without a held-out pack."""

from __future__ import annotations

import json
import pickle
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rank_processes import python
from typer.testing import CliRunner

from distill.cli.app import build_app
from distill.config import load_config
from distill.data.images import encode_jpeg
from distill.data.pack_writer import EncodedPair, write_pack
from distill.errors import UserError
from distill.plan import make_plan
from distill.ranks import from_environment

pytestmark = pytest.mark.slow

PEOPLE = 4


def drawn(person: int, photograph: int) -> bytes:
    pattern = np.random.default_rng(person).integers(40, 216, (7, 7, 3))
    noise = np.random.default_rng([person, photograph]).normal(0, 40, (112, 112, 3))
    face = np.kron(pattern, np.ones((16, 16, 1))) + noise
    return encode_jpeg(np.clip(face, 0, 255).astype(np.uint8))


def write_set(path: Path, pairs: int) -> str:
    same = [i % 3 > 0 for i in range(pairs)]
    images = []
    for i, alike in enumerate(same):
        images += [drawn(i % PEOPLE, 100 + i), drawn((i + (not alike)) % PEOPLE, 200 + i)]
    path.write_bytes(pickle.dumps((images, same)))
    return str(path)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    root = tmp_path_factory.mktemp("sets")
    pairs = [EncodedPair(drawn(i % PEOPLE, i), drawn(i % PEOPLE, 50 + i), i % PEOPLE, 0)
             for i in range(16)]  # fmt: skip
    names = [f"person {i}" for i in range(PEOPLE)]
    write_pack(root / "train", pairs, 16, identities=names, kinds=["blur"])
    sets = [write_set(root / "lfw.bin", 21), write_set(root / "agedb_30.bin", 12)]
    yield [
        f"run.dir={root}/run",
        f"data.train={root}/train",
        f"evaluate.sets={json.dumps(sets)}",
        *("run.device=cpu", "data.reader=python", "model.name=tiny", "model.embedding_dim=16"),
        *("train.steps=4", "train.global_batch_pairs=8", "train.zero_stage=3"),
        *("evaluate.every_steps=1", "evaluate.batch_images=5", "monitor.tensorboard=false"),
        *("checkpoint.every_steps=1", "checkpoint.keep_last=1"),
        "checkpoint.best_metric=agedb_30/accuracy",
    ]


def test_a_run_finds_of_itself_what_evaluate_finds_of_its_weights(
    words: list[str], tmp_path: Path
) -> None:
    settings = tmp_path / "run.toml"
    settings.touch()
    done = python("-m", "distill", "train", "--ranks", "2", str(settings), *words)
    assert done.returncode == 0, done.stderr
    config = load_config(None, words)
    run = Path(config.run.dir)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    told = {line["step"]: line for line in lines if "evaluation_lfw/accuracy" in line}
    assert sorted(told) == [1, 2, 3, 4]
    line = f"step 4, verification accuracy: lfw {told[4]['evaluation_lfw/accuracy']:.5f} agedb_30"
    assert line in done.stderr
    asked = [str(run / "model.safetensors"), *config.evaluate.sets, "--json"]
    again = CliRunner().invoke(build_app(), ["evaluate", *asked, "--out", str(tmp_path / "again")])
    found = {each["name"]: each for each in json.loads(again.stdout)["sets"]}
    report = json.loads((run / "report" / "sets.json").read_text())
    assert report["checkpoint"]["step"] == 4
    for mine in report["sets"]:
        theirs, verified = found.pop(mine["name"]), mine["verification"]
        assert mine["mean_length"] == pytest.approx(theirs["mean_length"], rel=1e-4)
        assert verified["auc"] == pytest.approx(theirs["verification"]["auc"], abs=1e-6)
        assert verified["accuracy"] == told[4][f"evaluation_{mine['name']}/accuracy"]
    assert not found
    scores = {step: told[step]["evaluation_agedb_30/accuracy"] for step in (1, 2, 3)}
    kept = {int(path.name[5:]) for path in (run / "checkpoints").iterdir()}
    assert max(scores.values()) == max(scores[step] for step in kept if step in scores)


INTERRUPTED = """
import os, signal
from distill.__main__ import main
from distill.evaluate import sets

real, asked = sets.evaluate_pairs, []

def interrupted(found, embedder):
    asked.append(found.name)
    if asked == ["lfw", "agedb_30"] * 2:  # the second set, after the second step
        os.kill(os.getpid(), signal.SIGTERM)
    return real(found, embedder)

sets.evaluate_pairs = interrupted
main()
"""


def test_a_stop_ends_an_evaluation_of_a_set_and_the_next_start_makes_it(
    words: list[str], tmp_path: Path
) -> None:
    settings, run = tmp_path / "run.toml", tmp_path / "run"
    settings.touch()
    asked = ["train", str(settings), *words, f"run.dir={run}", "train.zero_stage=0"]
    stopped = python("-c", INTERRUPTED, *asked)
    assert stopped.returncode == 128 + signal.SIGTERM, stopped.stderr
    assert "stopped by SIGTERM; the same command goes on from here" in stopped.stdout
    assert max(path.name for path in (run / "checkpoints").iterdir()) == "step-00000002"
    done = python("-m", "distill", *asked)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    told = [line["step"] for line in lines if "evaluation_lfw/accuracy" in line]
    assert told == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("sets", "said"),
    [("lfw.bin", "evaluate.sets: lfw.bin: No such file"),
     (["x.bin"], "evaluate.sets: x.bin: No such file"),
     (["blur.bin"], "evaluate.sets: blur.bin: the numbers of 'blur'")],
)  # fmt: skip
def test_mistakes_are_found_before_the_run(
    words: list[str], sets: object, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_set(tmp_path / "blur.bin", 12)
    (tmp_path / "eval").mkdir()
    pairs = [EncodedPair(drawn(0, 1), drawn(0, 2), 0, 0)]
    write_pack(tmp_path / "eval", pairs, 1, identities=["a"], kinds=["blur"],
               purpose="evaluation", photographs=1)  # fmt: skip
    changes = [f"evaluate.sets={json.dumps(sets)}", "data.evaluation=eval"]
    with pytest.raises(UserError) as error:
        config = load_config(None, [*words, *changes])
        make_plan(config, from_environment(config, {}))
    assert said in str(error.value)
