"""The lists of IJB-B and IJB-C: read as they are written, and mistakes by file and line."""

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written_ijb import write_ijb

from distill.data.protocols import ijb
from distill.data.protocols.found import is_set, read_sets
from distill.errors import UserError

POINTS, MEDIA = "ijbc_name_5pts_score.txt", "ijbc_face_tid_mid.txt"
PAIRS, PROBES = "ijbc_template_pair_label.txt", "ijbc_1N_probe_mixed.csv"


def rows(path):
    return [line.split() for line in path.read_text().splitlines()]


def test_lists_as_they_are_written(ijbc):
    assert is_set(ijbc)
    (found,) = read_sets([ijbc])
    points, media = rows(ijbc / "meta" / POINTS), rows(ijbc / "meta" / MEDIA)
    assert found.name == "ijbc" and found.images == [row[0] for row in points]
    numbers = np.array([row[1:] for row in points], float)
    np.testing.assert_allclose(found.landmarks.reshape(-1, 10), numbers[:, :10], rtol=1e-6)
    for number, (_, template, medium) in enumerate(media):
        assert found.template_ids[found.templates[number]] == int(template)
        alike = sum(row[1:] == [template, medium] for row in media)
        assert found.weights[number] == pytest.approx(numbers[number, 10] / alike)
    told = np.column_stack([found.template_ids[found.pairs], found.same])
    assert told.tolist() == np.array(rows(ijbc / "meta" / PAIRS), int).tolist()
    assert found.pairs.dtype == np.uint8, "two numbers of the smallest type for millions of pairs"


def test_ijbb_and_blocks_and_subfolders(tmp_path, monkeypatch):
    """Images in folders below, a list in several blocks with tabs, blanks and an empty line."""
    folder = write_ijb(tmp_path / "anything", "ijbb")
    (folder / "loose_crop" / "sub").mkdir()
    (folder / "loose_crop" / "1.jpg").rename(folder / "loose_crop" / "sub" / "1.jpg")
    for name in ("ijbb_name_5pts_score.txt", "ijbb_face_tid_mid.txt"):
        path = folder / "meta" / name
        path.write_text("sub/" + path.read_text())
    monkeypatch.setattr(ijb, "BLOCK_LINES", 7)
    pairs = folder / "meta" / "ijbb_template_pair_label.txt"
    wanted = np.array(rows(pairs), int)
    lines = pairs.read_text().splitlines()
    lines[9] = lines[9].replace(" ", "\t  ")
    pairs.write_text("\r\n".join([*lines[:20], "", *lines[20:]]))
    (found,) = read_sets([folder])
    assert (found.name, found.images[0]) == ("ijbb", "sub/1.jpg")
    assert found.face(0)[0].shape == (112, 112, 3)
    image = folder / "loose_crop" / "sub" / "1.jpg"
    image.rename(tmp_path / "elsewhere.jpg")
    image.symlink_to(tmp_path / "elsewhere.jpg")
    with pytest.raises(UserError, match=r"sub/1\.jpg: a link"):
        found.face(0)
    assert np.array_equal(found.template_ids[found.pairs], wanted[:, :2])
    assert [each.name for each in found.searches.galleries] == ["S1", "S2"]


def test_both_sets_in_one_folder(ijbc, tmp_path):
    (tmp_path / "IJBC").symlink_to(ijbc)
    write_ijb(tmp_path / "IJBB", "ijbb")
    assert is_set(tmp_path)
    assert [found.name for found in read_sets([tmp_path])] == ["ijbb", "ijbc"]


def without(*names):
    def spoil(folder):
        for name in names:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


def line(name, number, change):
    def spoil(folder):
        path = folder / "meta" / name
        lines = path.read_text().splitlines()
        lines[number - 1 : number] = change(lines[number - 1].split(",")) if (
            name.endswith("csv")) else change(lines[number - 1].split())  # fmt: skip
        path.write_text("\n".join(lines) + "\n")

    return spoil


def field(place, text, joint=" "):
    return lambda words: [joint.join([*words[:place], text, *words[place + 1 :]])]


def cut(name, characters):
    def spoil(folder):
        path = folder / "meta" / name
        path.write_text(path.read_text()[:-characters])

    return spoil


def beside(folder):
    (folder / "meta" / "ijbb_face_tid_mid.txt").touch()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (without(f"meta/{POINTS}"), f"meta/{POINTS}: No such file"),
        (without(f"meta/{PAIRS}"), f"meta/{PAIRS}: No such file"),
        (without("loose_crop"), "loose_crop: No such file"),
        (without("loose_crop/3.jpg"), f"{POINTS}:3: 3.jpg: no such file in"),
        (without(f"meta/{PROBES}"), f"{PROBES}: no such file, though other lists"),
        (beside, "lists of ijbb and ijbc"),
        (line(POINTS, 4, field(3, "left")), f"{POINTS}:4: 'left' is no finite number"),
        (line(POINTS, 4, field(3, "nan")), f"{POINTS}:4: 'nan' is no finite number"),
        (line(POINTS, 4, field(5, "1e200")), f"{POINTS}:4: a point 1e+200 pixels away"),
        (line(POINTS, 4, field(11, "1_0")), f"{POINTS}:4: '1_0' is no finite number"),
        (line(POINTS, 4, lambda w: [" ".join(w[:-1])]), f"{POINTS}:4: 11 fields where a face"),
        (line(POINTS, 4, lambda w: [" ".join([w[0], *["7"] * 11])]), f"{POINTS}:4: the five"),
        (line(POINTS, 4, field(0, "../4.jpg")), f"{POINTS}:4: leads out of the folder"),
        (line(MEDIA, 2, field(0, "9.jpg")), f"{MEDIA}:2: '9.jpg' where {POINTS} has '2.jpg'"),
        (line(MEDIA, 2, field(1, "-4")), f"{MEDIA}:2: '-4' is no whole number"),
        (line(MEDIA, 2, lambda w: []), f"{MEDIA}:2: '3.jpg' where {POINTS} has '2.jpg'"),
        (line(MEDIA, 2, lambda w: [" ".join(w), "x 1 1"]), f"{MEDIA}:3: 'x' where"),
        (line(PAIRS, 9, field(0, "8")), f"{PAIRS}:9: template 8 has no images"),
        (line(PAIRS, 9, field(2, "2")), f"{PAIRS}:9: label 2, which should be 1 or 0"),
        (line(PAIRS, 9, field(1, "1e1")), f"{PAIRS}:9: '1e1' is no whole number"),
        (line(PAIRS, 9, field(1, "9" * 30)), f"{PAIRS}:9: '99999"),
        (cut(PAIRS, 3), ": 2 fields where a pair (TEMPLATE TEMPLATE LABEL) has 3"),
        (line(PROBES, 1, field(1, "SUBJECT", ",")), f"{PROBES}:1: no column SUBJECT_ID"),
        (line(PROBES, 3, field(1, "107", ",")), f"{PROBES}:3: template 28 is of two people"),
        (line(PROBES, 3, lambda w: ["28"]), f"{PROBES}:3: 1 fields, too few"),
        (line("ijbc_1N_gallery_G1.csv", 4, field(1, "100", ",")),
         "G1.csv:4: person 100 has two templates"),
    ],
)  # fmt: skip
def test_mistakes_name_file_and_line(ijbc, tmp_path, spoil, said):
    folder = shutil.copytree(ijbc, tmp_path / "IJBC")
    spoil(folder)
    with pytest.raises(UserError) as error:
        read_sets([folder])
    assert said in error.value.what and str(folder) in error.value.what and error.value.fix


def test_without_lists_of_searches_pairs_alone_are_there(ijbc, tmp_path):
    folder = shutil.copytree(ijbc, tmp_path / "IJBC")
    for path in folder.glob("meta/*.csv"):
        path.unlink()
    assert read_sets([folder])[0].searches is None


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_any_damage_is_a_mistake_of_the_user_or_another_list(ijbc, tmp_path_factory, data):
    """Bytes changed, taken out or put in any list: read as it stands, or refused."""
    folder = tmp_path_factory.mktemp("fuzz") / "IJBC"
    shutil.copytree(ijbc / "meta", folder / "meta")
    (folder / "loose_crop").symlink_to(ijbc / "loose_crop")
    path = data.draw(st.sampled_from(sorted(folder.glob("meta/*"))))
    text = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(text) - 1))
    text[place : place + data.draw(st.integers(0, 60))] = data.draw(st.binary(max_size=8))
    path.write_bytes(text)
    try:
        (found,) = read_sets([folder])
    except UserError as error:
        assert str(folder) in error.what
    else:
        assert len(found.landmarks) == len(found.weights) == len(found.templates) == len(found)
        assert found.pairs.max() < len(found.template_ids) and len(found.pairs) == len(found.same)
