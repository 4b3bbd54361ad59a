"""Lists with two lines a pair, as CALFW and CPLFW have them."""

import json
import pickle

import numpy as np
import pytest
from drawn_people import draw_face
from hypothesis import given, settings
from hypothesis import strategies as st
from spoilt_lists import put, spoilt
from typer.testing import CliRunner

from distill.cli.app import build_app
from distill.data.images import encode_jpeg
from distill.data.protocols.found import is_set, read_sets
from distill.data.protocols.pair_lines import read_pair_lines
from distill.errors import UserError

PEOPLE, FOLDS, HALF = [f"First_Last_{i}" for i in range(5)], 4, 6


def write(folder, *, numbered=True, name="pairs_CALFW.txt", photographs="aligned images"):
    """Photographs side by side; first the pairs of one person, set by set, then the others."""
    rng = np.random.default_rng(3)
    home = folder / photographs
    home.mkdir(parents=True)
    for number, person in enumerate(PEOPLE):
        for image in range(1, 11):
            data = encode_jpeg(draw_face(rng, number), 95)
            (home / f"{person}_{image:04d}.jpg").write_bytes(data)
    lines = []
    for fold in range(1, FOLDS + 1):
        for _ in range(HALF):
            person, (a, b) = rng.choice(PEOPLE), rng.choice(10, 2, replace=False) + 1
            label = fold if numbered else 1
            lines += [f"{person}_{a:04d}.jpg {label}", f"{person}_{b:04d}.jpg {label}"]
    for _ in range(FOLDS * HALF):
        one, two = rng.choice(PEOPLE, 2, replace=False)
        lines += [f"{one}_{rng.integers(1, 11):04d}.jpg 0", f"{two}_0001.jpg 0"]
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def calfw(tmp_path_factory):
    return write(tmp_path_factory.mktemp("sets") / "calfw")


def expected(path):
    """Names and sameness of each pair, fold by fold, from the text alone."""
    words = [line.split() for line in path.read_text().splitlines()]
    pairs = [([a[0], b[0]], a[1] != "0") for a, b in zip(words[::2], words[1::2], strict=True)]
    same, other = pairs[: FOLDS * HALF], pairs[FOLDS * HALF :]
    return [
        pair
        for fold in range(FOLDS)
        for half in (same, other)
        for pair in half[fold * HALF : (fold + 1) * HALF]
    ]


def told(found):
    names = [[found.photographs[n].name for n in pair] for pair in found.pairs]
    return list(zip(names, found.same, strict=True))


def test_pairs_and_sets(calfw):
    (found,) = read_sets([calfw])
    assert (found.name, found.folds) == ("calfw_pairs_CALFW", FOLDS)
    assert told(found) == expected(calfw)
    assert len(set(found.photographs)) == len(found) < 2 * len(found.pairs)
    assert is_set(calfw) and is_set(calfw.parent)
    assert [each.path for each in read_sets([calfw.parent])] == [calfw]


def test_labels_that_number_nothing_leave_one_run(tmp_path):
    path = write(tmp_path / "cplfw", numbered=False, name="pairs_CPLFW.txt", photographs=".")
    (found,) = read_sets([path])
    assert found.folds == 1
    assert sorted(told(found)) == sorted(expected(path))


def test_its_numbers_are_those_of_the_same_pairs_as_a_bin(calfw, weights, tmp_path):
    home = calfw.parent / "aligned images"
    images = [(home / name).read_bytes() for names, _ in expected(calfw) for name in names]
    same = [same for _, same in expected(calfw)]
    (tmp_path / "calfw.bin").write_bytes(pickle.dumps((images, same)))
    words = ["evaluate", weights, calfw, tmp_path / "calfw.bin", "--json", "--out", tmp_path / "r"]
    done = CliRunner().invoke(build_app(), list(map(str, words)))
    assert done.exit_code == 0, done.exception
    found = {each["name"]: each["verification"] for each in json.loads(done.stdout)["sets"]}
    mine, theirs = found["calfw_pairs_CALFW"], found["calfw"]
    for name in ("auc", "eer", "tar_at_far"):
        assert mine[name] == pytest.approx(theirs[name], abs=1e-6)
    assert 0.5 < mine["auc"] < 1 and mine["accuracy"] is not None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: lines.pop(), ":95: a photograph without the other one"),
        (put(2, "First_Last_0_0001.jpg"), ":2: 1 fields where a photograph of a pair"),
        (put(2, "First_Last_0_0001.jpg 1 2"), ":2: 3 fields where a photograph of a pair"),
        (put(2, "First_Last_0_0001.jpg x"), ":2: 'x' is no whole number"),
        (put(2, "First_Last_0_0001.jpg 2"), ":2: label 2, where its pair has 1"),
        (put(4, "First_Last_0_0099.jpg 1"), ":4: First_Last_0_0099.jpg: no such file in"),
        (put(4, "../x.jpg 1"), ":4: leads out of the folder"),
        (put(1, "nobody.jpg 1"), "no 'nobody.jpg' beside it"),
    ],
)
def test_mistakes_name_file_line_and_remedy(tmp_path, change, said):
    path = spoilt(write(tmp_path / "calfw"), change)
    with pytest.raises(UserError) as error:
        read_sets([path])
    assert f"{path}" in error.value.what and said in error.value.what and error.value.fix


def test_an_empty_list(tmp_path):
    (tmp_path / "pairs_CALFW.txt").write_text("\n")
    with pytest.raises(UserError, match="no pairs in it"):
        read_pair_lines(tmp_path / "pairs_CALFW.txt")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_any_damage_is_a_mistake_of_the_user_or_another_list(calfw, data):
    text = bytearray(calfw.read_bytes())
    place = data.draw(st.integers(0, len(text) - 1))
    text[place : place + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=6))
    other = calfw.with_name("other.txt")
    other.write_bytes(text)
    try:
        found = read_pair_lines(other)
    except UserError as error:
        assert str(other) in error.what
    else:
        assert len(found.pairs) == len(found.same) and found.pairs.max() < len(found)
        assert len(found.pairs) % found.folds == 0
