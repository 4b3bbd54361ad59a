"""`pack --without`: the pack is that of a folder in which these people never were."""

import csv
import shutil
import time

import cv2
import numpy as np
import pytest
import typed
from told import run

from distill.data.manifest import read_pack
from distill.data.pack.photos import names_of_nobody

COMPOSED, APART = "Zo\u00eb", "Zoe\u0308"


@pytest.fixture
def people(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("ann", "bob", "eve", COMPOSED):
        (tmp_path / "in" / name).mkdir(parents=True)
        for i in range(3):
            small = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / "in" / name / f"{i}.png"), cv2.resize(small, (112, 112)))
    # One photograph under the names of two people, of whom the first in order is to stay.
    shutil.copy(tmp_path / "in" / "eve" / "0.png", tmp_path / "in" / "ann" / "9 of eve.png")
    return tmp_path / "in"


def test_the_pack_is_that_of_a_folder_without_them(capsys, people, tmp_path):
    (tmp_path / "names.txt").write_text(f"eve\n\n {APART} \nnobody\neve\n", "utf-8-sig")
    rest = ("--aligned", "--workers", 1, "--kinds", "blur=1,eyes=0.5")
    words = ("pack", people, tmp_path / "out", *rest)
    status, said = run(capsys, *words, "--without", tmp_path / "names.txt")
    assert status == 0 and "7 of 13 photographs rejected" in said
    assert "6 of them for --without" in said
    assert "nobody is called 'nobody' (1 of its names)" in said
    with (tmp_path / "out" / "rejected.csv").open(newline="", encoding="utf-8") as file:
        reasons = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    left_out = {
        f"{name}/{i}.png": "left out by --without" for name in ("eve", COMPOSED) for i in "012"
    }
    copied = {"ann/9 of eve.png": "same content as eve/0.png, which is of another person"}
    expected = {"nobody": "nobody is called that", **left_out, **copied}
    assert set(reasons) == set(expected)
    assert all(expected[path] in reason for path, reason in reasons.items())

    shutil.copytree(people, tmp_path / "by hand")
    for name in ("eve", COMPOSED):
        shutil.rmtree(tmp_path / "by hand" / name)
    (tmp_path / "by hand" / "ann" / "9 of eve.png").unlink()
    assert run(capsys, "pack", tmp_path / "by hand", tmp_path / "other", *rest)[0] == 0
    made, by_hand = (read_pack(tmp_path / name).manifest for name in ("out", "other"))
    assert made.identities == by_hand.identities == ["ann", "bob"]
    assert made.shards == by_hand.shards and "without" not in by_hand.options
    assert COMPOSED not in (tmp_path / "out" / "manifest.json").read_text("utf-8")

    (tmp_path / "names.txt").write_text(f"nobody\n{COMPOSED}\neve\n", "utf-8")
    status, said = run(capsys, *words, "--without", tmp_path / "names.txt")
    assert (status, "up to date" in said, "6 of them" in said) == (0, True, True)
    (tmp_path / "out" / "rejected.csv").unlink()
    status, said = run(capsys, *words, "--without", tmp_path / "names.txt")
    assert status == 0 and "up to date" in said
    status, said = run(capsys, *words)
    assert status == 2 and "holds a pack with other settings (without)" in said


def test_names_of_nobody_are_told_before_pairs_are_made(capsys, people, tmp_path):
    (tmp_path / "names.txt").write_text("eve\nnobody\n")
    words = ("pack", people, tmp_path / "out", "--aligned", "--workers", 1)
    words += ("--without", tmp_path / "names.txt")
    status, _, trouble = typed.run(capsys, *words)
    warned, made = trouble.index("nobody is called 'nobody'"), trouble.index("making train pairs")
    assert status == 0 and warned < made and trouble.count("nobody is called") == 1
    status, said, trouble = typed.run(capsys, *words)
    assert "up to date" in said and trouble.count("nobody is called") == 1


def test_a_list_of_other_people_is_refused_before_pairs_are_made(capsys, people, tmp_path):
    (tmp_path / "names.txt").write_text("Eve\nnobody\n")
    words = ("pack", people, tmp_path / "out", "--aligned", "--workers", 1)
    status, said = run(capsys, *words, "--without", tmp_path / "names.txt")
    assert status == 2 and "nobody is called 'Eve', 'nobody' (2 of its names)" in said
    assert "making" not in said and not (tmp_path / "out").exists()


def test_people_left_out_are_no_rejected_photographs(capsys, people, tmp_path):
    """Of 13 photographs 3 are eve's, and one a copy of hers; of the other 9 one has no face."""
    (people / "bob" / "0.png").write_bytes(b"no image")
    (people / "eve" / "1.png").write_bytes(b"no image")
    (tmp_path / "names.txt").write_text("nobody\neve\nno one\nno body\n")
    words = ("pack", people, tmp_path / "out", "--aligned", "--workers", 1)
    words += ("--without", tmp_path / "names.txt", "--max-rejected")
    status, said = run(capsys, *words, 0.11)
    assert status == 2
    assert "1 of 9 photographs rejected, beside those of --without (bob/0.png: not an" in said
    assert run(capsys, *words, 0.12)[0] == 0


def test_a_line_too_long_for_a_name_is_refused_at_once(capsys, people, tmp_path):
    (tmp_path / "names.txt").write_text("eve\n" + 140_000 * "x")
    words = ("pack", people, tmp_path / "out", "--aligned", "--workers", 1)
    status, said = run(capsys, *words, "--without", tmp_path / "names.txt")
    assert status == 2 and "names.txt: a name of 140000 characters, over 10000" in said
    assert "one name a line" in said and "aligning" not in said


def test_names_are_looked_up_among_many_people():
    """To walk through all people once a name would take seconds here, and an hour of 2 million."""
    people = {f"person {i}": i for i in range(100_000)} | {COMPOSED: 0}
    names = [*(f"nobody {i}" for i in range(1000)), "person 7", APART, COMPOSED, "nobody 0"]
    began = time.process_time()
    assert names_of_nobody(names, people) == names[:1000]
    assert time.process_time() - began < 0.3


def test_everybody_left_out_is_an_error(capsys, people, tmp_path):
    (tmp_path / "names.txt").write_text(f"ann\nbob\neve\n{COMPOSED}\n", "utf-8")
    words = ("pack", people, tmp_path / "out", "--aligned", "--workers", 1)
    status, said = run(capsys, *words, "--without", tmp_path / "names.txt")
    assert status == 2 and "none of 13 photographs can be used (Zo\u00eb/0.png: person is" in said
    assert "name fewer people in --without, or lower --min-images 1" in said
