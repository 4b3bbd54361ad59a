"""Verification sets: against loops over pairs and thresholds, and as a user calls it."""

import json
import os
import pickle

import numpy as np
import pytest
import torch
from drawn_people import draw_face, make_model
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rank_processes import python
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold
from typer.testing import CliRunner

from distill.cli.app import build_app
from distill.data.images import decode, encode_jpeg
from distill.data.protocols.found import read_sets
from distill.errors import UserError
from distill.evaluate.protocol import published_accuracy
from distill.evaluate.rehearsal import foreseen_of_set
from distill.evaluate.set_report import set_scalars
from distill.evaluate.sets import evaluate_sets
from distill.ranks import Ranks

pytestmark = pytest.mark.slow

PAIRS = 37


def by_loops(distances, same):
    """InsightFace's protocol as its parts are described: folds in order, 400 thresholds."""
    shares = []
    for nine, tenth in KFold(n_splits=10, shuffle=False).split(same):
        best, threshold = -1, None
        for number in range(400):
            right = sum((distances[i] < number * 0.01) == same[i] for i in nine)
            if right > best:
                best, threshold = right, number * 0.01
        shares.append(np.mean([(distances[i] < threshold) == same[i] for i in tenth]))
    return np.mean(shares), np.std(shares)


@settings(max_examples=15, deadline=None)
@given(pairs=st.integers(10, 43), seed=st.integers(0, 9), digits=st.sampled_from([1, 6]))
def test_the_published_accuracy(pairs, seed, digits):
    """With one digit many pairs share a distance, and many thresholds are equally good."""
    rng = np.random.default_rng(seed)
    same = rng.random(pairs) < 0.5
    distances = np.round(np.where(same, 0.9, 1.5) + rng.normal(0, 0.4, pairs), digits).clip(0, 4)
    distances += 0.005  # never on a threshold, which two ways of counting round differently
    assert published_accuracy(distances, same, 10) == pytest.approx(by_loops(distances, same))


def write_set(path, seed, pairs=PAIRS, spoilt=None):
    """Pickled as anybody would; every other pair shows one person."""
    rng = np.random.default_rng(seed)
    same = [i % 2 == 0 for i in range(pairs)]
    people = [(p, p if alike else (p + 1) % 7) for p, alike in zip(range(pairs), same, strict=True)]
    images = [encode_jpeg(draw_face(rng, p % 7), 95) for pair in people for p in pair]
    if spoilt is not None:
        images[spoilt] = images[spoilt][:200]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps((images, same)))
    return path


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    return [write_set(folder / f"{name}.bin", n) for n, name in enumerate(["lfw", "agedb_30"])]


def here(*words):
    return CliRunner().invoke(build_app(), ["evaluate", *map(str, words)])


def by_hand(path):
    """Cosines and lengths, one image after the other."""
    backbone, unit, lengths = make_model().backbone, [], []
    images, same = pickle.loads(path.read_bytes())
    for data in images:
        face = torch.from_numpy(decode(data)).permute(2, 0, 1)[None].float() / 127.5 - 1
        with torch.no_grad():
            both = [backbone(face)[0].double(), backbone(torch.flip(face, [3]))[0].double()]
        lengths += [float(e.norm()) for e in both]
        unit.append((both[0] + both[1]) / (both[0] + both[1]).norm())
    pairs = zip(unit[0::2], unit[1::2], strict=True)
    return np.array([float(a @ b) for a, b in pairs]), np.array(same), np.mean(lengths)


def test_the_numbers_are_those_of_loops(weights, sets, tmp_path):
    """A setting between the sets; more images than a batch, the last batch not full."""
    words = (weights, sets[0], "evaluate.batch_images=7", sets[1], "--out", tmp_path, "--json")
    done = here(*words)
    assert done.exit_code == 0, done.exception
    assert json.loads(done.stdout) == json.loads((tmp_path / "sets.json").read_text())
    found = json.loads(done.stdout)
    assert [each["name"] for each in found["sets"]] == ["lfw", "agedb_30"]
    for each, path in zip(found["sets"], sets, strict=True):
        cosines, same, length = by_hand(path)
        verified = each["verification"]
        mean, spread = by_loops(2 - 2 * cosines, same)
        assert verified["accuracy"] == pytest.approx(mean, abs=1e-6)
        assert verified["accuracy_std"] == pytest.approx(spread, abs=1e-6)
        assert verified["auc"] == pytest.approx(roc_auc_score(same, cosines), abs=1e-6)
        assert each["mean_length"] == pytest.approx(length, rel=1e-4)
        assert (verified["genuine"], verified["impostor"]) == (same.sum(), (~same).sum())
        assert 0.5 < mean < 1, "a test of numbers, not of an easy set"


def test_three_ranks_and_a_folder(weights, sets, tmp_path):
    words = (weights, sets[0].parent, "--ranks", "3", "--out", tmp_path)
    done = python("-m", "distill", "evaluate", *map(str, words))
    assert done.returncode == 0, done.stderr
    three = json.loads((tmp_path / "sets.json").read_text())
    one = json.loads(here(weights, *sets[::-1], "--json", "--out", tmp_path / "one").stdout)
    assert (three["ranks"], one["ranks"]) == (3, 1)
    assert "step 12: verification" in done.stdout and "agedb_30" in done.stdout
    for mine, theirs in zip(one["sets"], three["sets"], strict=True):
        assert theirs["name"] == mine["name"]
        assert theirs["mean_length"] == pytest.approx(mine["mean_length"])
        for name in ("accuracy", "auc", "eer"):
            assert theirs["verification"][name] == pytest.approx(mine["verification"][name])
    with Image.open(tmp_path / "sets.png") as picture:
        assert min(picture.size) > 500


def test_too_few_pairs_have_no_accuracy(weights, tmp_path):
    done = here(weights, write_set(tmp_path / "few.bin", 3, pairs=4), "--out", tmp_path)
    assert done.exit_code == 0, done.exception
    assert "10 runs need 10 pairs; there are 4" in done.stdout


@pytest.mark.parametrize(("pairs", "missing"), [(PAIRS, "tar_at_far_0.1"), (4, "accuracy")])
def test_what_numbers_there_will_be_is_known_before(tmp_path, pairs, missing):
    sets = read_sets([write_set(tmp_path / "few.bin", 3, pairs)])
    alone = Ranks(0, 1, 0, 1, torch.device("cpu"))
    found = set_scalars(evaluate_sets(make_model().backbone, sets, alone, batch_images=64))
    told = foreseen_of_set(sets[0])
    assert [f"few/{name}" for name in told.names] == list(found)
    assert missing not in told.names and missing in told.reasons


@pytest.mark.parametrize("ranks", ["1", "2"])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("missing", "No such file"),
        ("pickle", "instruction"),
        ("twice", "two verification sets are called 'lfw'"),
        ("setting", "evaluate.batch_image"),
    ],
)
def test_mistakes_leave_nothing(weights, sets, tmp_path, spoil, words, ranks):
    more = {
        "missing": tmp_path / "none.bin",
        "pickle": tmp_path / "other.bin",
        "twice": write_set(tmp_path / "sub" / "lfw.bin", 1),
        "setting": "evaluate.batch_image=3",
    }
    (tmp_path / "other.bin").write_bytes(pickle.dumps(os.getcwd))
    out = tmp_path / "report"
    done = here(weights, sets[0], more[spoil], "--ranks", ranks, "--out", out)
    assert isinstance(done.exception, UserError) and words in str(done.exception)
    assert not out.exists()


def test_a_damaged_image_is_named(weights, tmp_path):
    path = write_set(tmp_path / "lfw.bin", 1, spoilt=9)
    done = here(weights, path, "--out", tmp_path / "report")
    assert isinstance(done.exception, UserError)
    assert "lfw.bin: image 9 (pair 4): " in str(done.exception)
    assert not (tmp_path / "report" / "sets.json").exists()
