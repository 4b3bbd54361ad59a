"""LFW's pairs.txt: read as its README describes it, mistakes by line, and its numbers."""

import io
import json
import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from spoilt_lists import put, spoilt
from typer.testing import CliRunner
from written_lfw import FOLDS, HALF, PEOPLE, write_lfw

from distill.cli.app import build_app
from distill.data.detector import FaceDetector
from distill.data.faces import align_face
from distill.data.protocols.found import is_set, is_set_word, read_sets
from distill.data.protocols.pairs_txt import face_of, middle, read_pairs_txt
from distill.data.sources.openpeople import OpenPeopleSource
from distill.errors import UserError


@pytest.fixture(scope="module")
def lfw(tmp_path_factory):
    return write_lfw(tmp_path_factory.mktemp("sets") / "lfw")


def expected(path):
    """The two files of each pair, and whether it is one person, from the text alone."""
    pairs = []
    for line in path.read_text().splitlines()[1:]:
        words = line.split("\t")
        second = words[0] if len(words) == 3 else words[2]
        names = [(words[0], int(words[1])), (second, int(words[-1]))]
        pairs.append(([f"{name}_{n:04d}.jpg" for name, n in names], len(words) == 3))
    return pairs


def test_pairs_folds_and_photographs(lfw):
    found = read_pairs_txt(lfw)
    assert (found.name, found.folds) == ("lfw_pairs", FOLDS)
    told = [([found.photographs[n].name for n in pair], same)
            for pair, same in zip(found.pairs, found.same, strict=True)]  # fmt: skip
    assert told == expected(lfw)
    assert len(set(found.photographs)) == len(found) < 2 * len(told), "each is embedded once"


def test_a_list_that_an_editor_marked_as_utf_8_is_the_same(lfw):
    marked = lfw.with_name("marked.txt")
    marked.write_bytes(b"\xef\xbb\xbf" + lfw.read_bytes().replace(b"\n", b"\r\n"))
    try:
        found, plain = read_pairs_txt(marked), read_pairs_txt(lfw)
    finally:
        marked.unlink()
    assert found.photographs == plain.photographs and found.same == plain.same
    assert np.array_equal(found.pairs, plain.pairs)


def test_links_are_followed_inside_and_never_those_made_later(tmp_path):
    path = write_lfw(tmp_path / "lfw", folds=1)
    first, second = read_pairs_txt(path).photographs[:2]
    kept = second.rename(second.parent.parent / "kept.jpg")
    second.symlink_to(kept)
    found = read_pairs_txt(path)
    assert found.photographs[:2] == [first, kept] and found.image(1) == kept.read_bytes()
    first.rename(tmp_path / "elsewhere.jpg")
    first.symlink_to(tmp_path / "elsewhere.jpg")
    with pytest.raises(UserError, match=f"{first.name}: a link"):
        found.face(0)
    with pytest.raises(UserError, match="leads out of the folder"):
        read_pairs_txt(path)


def test_a_folder_is_looked_at_once_whatever_the_number_of_photographs(lfw, monkeypatch):
    asked, real = [], os.path.realpath
    monkeypatch.setattr(
        os.path, "realpath", lambda *at, **how: asked.append(at) or real(*at, **how)
    )
    found = read_pairs_txt(lfw)
    assert len(found) > 40 and len(asked) < 3 * len(PEOPLE)


def bin_of(lfw, path):
    """The same pairs as InsightFace would pickle them."""
    images = [
        (lfw.parent / "lfw_funneled" / name[:-9] / name).read_bytes()
        for names, _ in expected(lfw)
        for name in names
    ]
    path.write_bytes(pickle.dumps((images, [same for _, same in expected(lfw)])))
    return path


def run(*words):
    done = CliRunner().invoke(build_app(), ["evaluate", *map(str, words)])
    assert done.exit_code == 0, done.exception
    return done.stdout


def by_folds(distances, same, folds):
    """Each fold by the threshold that is best on the others, in loops."""
    runs = np.array(distances).reshape(folds, -1), np.array(same).reshape(folds, -1)
    shares = []
    for fold in range(folds):
        others = [np.delete(each, fold, 0).ravel() for each in runs]
        right = [((others[0] < n * 0.01) == others[1]).sum() for n in range(400)]
        best = int(np.argmax(right)) * 0.01
        shares.append(((runs[0][fold] < best) == runs[1][fold]).mean())
    return np.mean(shares)


def test_its_numbers_are_those_of_the_same_pairs_as_a_bin(lfw, weights, tmp_path):
    other = bin_of(lfw, tmp_path / "lfw.bin")
    asked = (weights, lfw, "evaluate.batch_images=9", other, "--json", "--out", tmp_path / "r")
    found = {each["name"]: each for each in json.loads(run(*asked))["sets"]}
    mine, theirs = found["lfw_pairs"], found["lfw"]
    for name in ("auc", "eer", "tar_at_far"):
        assert mine["verification"][name] == pytest.approx(theirs["verification"][name], abs=1e-6)
    assert 0.5 < mine["verification"]["auc"] < 1, "a test of numbers, not of an easy set"
    assert mine["not_found"] == 0
    embedded = tmp_path / "all.npz"
    files = [str(path) for path in read_pairs_txt(lfw).photographs]
    options = ["--aligned", "--mirrored", "--out", str(embedded)]
    done = CliRunner().invoke(build_app(), ["embed", str(weights), *files, *options])
    assert done.exit_code == 0, done.exception
    table = np.load(embedded)
    row = {name.rsplit("/", 1)[-1]: v for name, v in
           zip(table["photographs"], table["embeddings"].astype(float), strict=True)}  # fmt: skip
    distances = [((row[a] - row[b]) ** 2).sum() for (a, b), _ in expected(lfw)]
    same = [same for _, same in expected(lfw)]
    accuracy = by_folds(distances, same, FOLDS)
    assert mine["verification"]["accuracy"] == pytest.approx(accuracy)


def test_a_list_of_one_set_has_no_accuracy_but_the_rest(weights, tmp_path):
    """As pairsDevTest.txt: one number in its first line."""
    path = write_lfw(tmp_path / "lfw", folds=1, photographs=".")
    path = path.rename(path.with_name("pairsDevTest.txt"))
    path.write_text(path.read_text().replace(f"1\t{HALF}\n", f"{HALF}\n"))
    told = run(weights, path, "--out", tmp_path / "r")
    assert "lfw_pairsDevTest: accuracy: the pairs are one run" in told
    verified = json.loads((tmp_path / "r" / "sets.json").read_text())["sets"][0]["verification"]
    assert verified["accuracy"] is None and verified["auc"] is not None


def test_a_photograph_without_a_face_gives_its_middle_and_is_counted(weights, tmp_path):
    rows, columns = np.mgrid[:250, :250]
    rgb = np.stack([rows, columns, (rows + columns) // 2], -1).astype(np.uint8)
    found, note = face_of(rgb)
    assert note and np.array_equal(found, middle(rgb)) and found.shape == (112, 112, 3)
    side = round(250 / 2.2)
    start = (250 - side) // 2
    wanted = Image.fromarray(rgb[start:][:side, start:][:, :side])
    small = np.asarray(wanted.resize((112, 112), Image.Resampling.BOX)).astype(int)
    assert np.abs(small - found).max() <= 2
    path = write_lfw(tmp_path / "lfw", size=250)
    told = run(weights, path, "--out", tmp_path / "r")
    assert f"no face in {len(read_pairs_txt(path))} photographs: middle taken" in told


def test_the_most_prominent_face_of_a_photograph_is_aligned():
    names = {"P001/portrait.jpg", "P003/selfie.jpg"}
    for sample in OpenPeopleSource():
        if sample.origin not in names:
            continue
        rgb = np.asarray(Image.open(io.BytesIO(sample.read())).convert("RGB"))
        best, _ = FaceDetector().foremost(rgb)
        found, note = face_of(rgb)
        assert note == ""
        assert np.array_equal(found, align_face(rgb, best.points).rgb)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put(1, "ten\t6"), ":1: 'ten' is no whole number"),
        (put(1, "First_Last_0\t1\t2"), ":1: the first line should say how many sets"),
        (put(1, "5\t6"), ":1: 60 pairs are announced and 48 are there"),
        (put(1, "0\t6"), ":1: no pairs"),
        (lambda lines: lines.pop(), ":1: 48 pairs are announced and 47 are there"),
        (lambda lines: lines.pop(3), ":7: 4 fields where a pair of one person"),
        (put(3, "First_Last_0\t1\tx"), ":3: 'x' is no whole number"),
        (put(3, "First_Last_0\t1"), ":3: 2 fields where a pair of one person"),
        (put(9, "First_Last_0\t1\t2"), ":9: 3 fields where a pair of two people"),
        (put(9, "First_Last_0\t1\tFirst_Last_0\t2"), ":9: 'First_Last_0' twice"),
        (put(3, "First_Last_0\t1\t11"), "First_Last_0_0011.jpg: no such file in"),
        (put(3, "../../etc\t1\t2"), ":3: leads out of the folder"),
        (put(2, "Nobody\t1\t2"), "no 'Nobody' beside it"),
        (lambda lines: lines.clear(), "no pairs in it"),
    ],
)  # fmt: skip
def test_mistakes_name_file_line_and_remedy(tmp_path, change, said):
    path = spoilt(write_lfw(tmp_path / "lfw"), change)
    with pytest.raises(UserError) as error:
        read_sets([path])
    assert f"{path}" in error.value.what and said in error.value.what and error.value.fix


def test_photographs_in_two_places_are_refused(tmp_path):
    path = write_lfw(tmp_path / "lfw")
    (tmp_path / "lfw" / "copy").mkdir()
    for person in PEOPLE:
        (tmp_path / "lfw" / "copy" / person).mkdir()
    with pytest.raises(UserError, match=r"photographs in .*copy and .*lfw_funneled"):
        read_sets([path])


def test_no_text(tmp_path):
    path = write_lfw(tmp_path / "lfw")
    path.write_bytes(path.read_bytes().replace(b"First_Last_0", b"First_\xff", 1))
    with pytest.raises(UserError, match="no UTF-8 text"):
        read_sets([path])


def test_what_is_a_set(lfw, tmp_path):
    assert is_set(lfw) and is_set(lfw.parent) and not is_set(lfw.parent / "lfw_funneled")
    assert [found.path for found in read_sets([lfw.parent])] == [lfw]
    assert is_set_word("a/lfw.bin") and is_set_word("/data/IJBC") and is_set_word("a=b.bin")
    assert not is_set_word("evaluate.batch_images=3") and not is_set_word("a.b=c.bin")
    assert not is_set_word("batch=3")
    with pytest.raises(UserError, match="No such file or folder"):
        read_sets([tmp_path / "IJBC"])


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_any_damage_is_a_mistake_of_the_user_or_another_list(lfw, data):
    """Bytes changed, taken out or put in: read as it stands, or refused, never anything else."""
    text = bytearray(lfw.read_bytes())
    place = data.draw(st.integers(0, len(text) - 1))
    end = place + data.draw(st.integers(0, 40))
    text[place:end] = data.draw(st.binary(max_size=6))
    other = lfw.with_name("other.txt")
    other.write_bytes(text)
    try:
        found = read_pairs_txt(other)
    except UserError as error:
        assert str(other) in error.what
    else:
        assert len(found.pairs) == len(found.same) and found.pairs.max() < len(found)
