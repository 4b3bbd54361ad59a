"""`pairdistill pack` as it is typed: help, tables, and mistakes in one line with exit status 2."""

import os
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from typed import run


@pytest.fixture
def people(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("ann", "bob"):
        folder = tmp_path / "in" / name
        folder.mkdir(parents=True)
        for i in range(4):
            small = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / f"{i}.png"), cv2.resize(small, (112, 112)))
    return tmp_path / "in"


def test_help_shows_defaults_units_and_an_example(capsys):
    status, said, _ = run(capsys, "pack", "--help")
    assert status == 0
    for word in ("--holdout", "0 .. 0.9", "[default: 95]", "Examples", "pairdistill pack", "all"):
        assert word in said


def test_a_pack_is_made_counted_and_found_again(capsys, people, tmp_path):
    words = ("pack", people, tmp_path / "out", "--aligned", "--holdout", "0.25", "--workers", 1)
    status, said, trouble = run(capsys, *words, "--kinds", "blur=1,pose=0.5")
    assert (status, "warning" in trouble) == (0, False)
    assert "making train pairs: 6/6" in trouble and "making" not in said
    assert "0 of 8 photographs rejected" in said
    (blurred,) = (line.split() for line in said.splitlines() if "with blur" in line)
    assert [word for word in blurred if word.isdigit()] == ["6", "2"]
    for part in ("train", "evaluation"):
        assert (tmp_path / "out" / part / "contact_sheet.png").stat().st_size > 1000
    status, said, trouble = run(capsys, *words, "--kinds", "pose=0.5, blur")
    assert status == 0 and "up to date" in said and "making" not in trouble


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing"], "missing: no such file or folder"),
        (["in", "--kinds", "blurr=0.5"], "did you mean 'blur'"),
        (["in", "--kinds", "blur=2"], "not a probability"),
        (["in", "--holdout", "1.5"], "--holdout 1.5; stay within 0.0 .. 0.9"),
        (["in", "--holdout", "nan"], "--holdout nan"),
        (["in", "--quality", "0"], "--quality 0"),
        (["in", "--seed", "-1"], "--seed -1"),
        (["in", "--glasses", "melt"], "choose from remove, draw, auto"),
        (["in", "--workers", "many"], "--workers"),
        (["in", "--hold-out", "0.2"], "No such option"),
        (["in"], "give photographs with a visible face, or --aligned"),
        (["in", "--aligned", "--min-images", "9"], "none of 8 photographs can be used"),
        (["in", "--aligned", "--min-images", "9"], "lower --min-images 9"),
        (["large", "--aligned"], "leave --aligned away"),
        (["in/ann"], "4 images, but no folder for a person"),
        (["empty"], "no images in it"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    capsys, people, tmp_path, monkeypatch, words, said
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "large" / "eve").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "large" / "eve" / "0.png"), np.zeros((150, 200, 3), np.uint8))
    monkeypatch.chdir(tmp_path)
    status, _, trouble = run(capsys, "pack", words[0], "out", "--workers", "1", *words[1:])
    assert status == 2
    assert said in " ".join(trouble.split())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "in", "large"]


def test_what_was_not_tried_and_too_many_workers_are_told(capsys, people, tmp_path):
    for name in ("a.heic", "b.HEIC", "Thumbs.db", "README"):
        (people / "ann" / name).write_bytes(b"?")
    os.mkfifo(people / "ann" / "pipe.png")
    (people / "bob" / "gone.png").symlink_to("nowhere")
    words = ("pack", people, tmp_path / "out", "--aligned", "--workers", 1000, "--kinds", "blur")
    status, said, notes = run(capsys, *words)
    cores = len(os.sched_getaffinity(0))
    assert status == 0 and "2 of 10 photographs rejected; the reasons are in" in said
    assert f"--workers 1000: this process has {cores} cores; using {cores}" in notes
    assert "4 file(s) not tried, for their ending is of no image that is read: 2 .heic," in notes
    listed = (tmp_path / "out" / "rejected.csv").read_text()
    assert "ann/pipe.png,not a regular file" in listed and "bob/gone.png,no such file" in listed


def test_people_who_differ_in_capitals_alone_are_told(capsys, people, tmp_path):
    shutil.copytree(people / "ann", people / "Ann")
    for number, file in enumerate(sorted((people / "Ann").iterdir())):
        cv2.imwrite(str(file), np.full((112, 112, 3), 40 + number, np.uint8))
    words = ("pack", people, tmp_path / "out", "--aligned", "--workers", 1, "--kinds", "blur")
    status, _, notes = run(capsys, *words)
    said = "2 people have names that differ in capital letters alone: Ann, ann; if they are one"
    assert status == 0 and said in " ".join(notes.split())
    assert said in " ".join(run(capsys, "inspect", people)[2].split())
    (people / "Ann").rename(people / "Anna")
    assert "capital letters" not in run(capsys, "inspect", people)[2]


def test_what_it_makes_is_for_its_owner_alone(people, tmp_path):
    """Faces are personal data, whatever the shell's mask is. (In a process: a mask is global.)"""
    words = ("pack", people, tmp_path / "out", "--aligned", "--workers", "1", "--kinds", "blur")
    command = [sys.executable, "-m", "distill", *map(str, words)]
    subprocess.run(command, check=True, capture_output=True, umask=0)
    made = [tmp_path / "out", *(tmp_path / "out").iterdir()]
    assert len(made) > 4 and not any(path.stat().st_mode & 0o077 for path in made)


def test_a_pack_of_other_settings_is_called_so(capsys, people, tmp_path):
    words = ("pack", people, tmp_path / "out", "--aligned", "--workers", 1, "--kinds", "blur")
    assert run(capsys, *words, "--holdout", 0.25)[0] == 0
    status, _, trouble = run(capsys, *words)
    assert status == 2 and "another folder, or replace it with --overwrite" in trouble
