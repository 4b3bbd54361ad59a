"""Folders with every kind of name, links and gaps; and the people of openpeople."""

from __future__ import annotations

import gc
import os
import pickle
import tracemalloc
from pathlib import Path

import pytest

from distill.data.detector import FaceDetector
from distill.data.images import Unusable, decode, encode_jpeg
from distill.data.sources.folder import FolderSource, read_file
from distill.data.sources.openpeople import PANELS, OpenPeopleSource
from distill.errors import UserError

NAMES = [
    "plain.jpg",
    "with space.png",
    "quo'te\".jpg",
    "new\nline.jpg",
    "ünï-漢字.JPEG",
    "-rf.webp",
]


@pytest.fixture
def root(tmp_path):
    for person in ("Zoë O'Hara", "a b", "new\nline"):
        for name in NAMES:
            (tmp_path / person / "nested").mkdir(parents=True, exist_ok=True)
            (tmp_path / person / name).write_bytes(name.encode())
            (tmp_path / person / "nested" / name).write_bytes(b"nested")
    return tmp_path


def test_all_names_in_one_order(root):
    samples = list(FolderSource(root))
    assert len(samples) == len(FolderSource(root)) == 3 * 2 * len(NAMES)
    origins = [s.origin for s in samples]
    assert origins == [s.origin for s in FolderSource(root)]
    assert len(set(origins)) == len(origins)
    people = [s.identity for s in samples]
    assert people == sorted(people, key=os.fsencode)
    assert all(s.origin.startswith(f"{s.identity}/") for s in samples)


def test_reading_and_sending_to_workers(root):
    for sample in FolderSource(root):
        again = pickle.loads(pickle.dumps(sample))
        assert again.read() == (root / sample.origin).read_bytes()


def test_bytes_that_are_no_text_in_a_name(root):
    odd = root / "a b" / os.fsdecode(b"\xff\xfe.jpg")
    try:
        odd.write_bytes(b"x")
    except OSError:
        pytest.skip("this file system keeps names to UTF-8")
    assert [s.read() for s in FolderSource(root)].count(b"x") == 1


def test_hidden_files_and_other_endings_are_left_out(root):
    (root / "a b" / ".hidden.jpg").write_bytes(b"")
    (root / "a b" / "._mac.jpg").write_bytes(b"")
    (root / ".cache").mkdir()
    (root / ".cache" / "x.jpg").write_bytes(b"")
    (root / "a b" / "notes.txt").write_bytes(b"")
    source = FolderSource(root)
    assert len(source) == 3 * 2 * len(NAMES)
    assert source.other_endings == {".txt": 1}


def test_links_are_followed_once_and_loops_end(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "far.jpg").write_bytes(b"far")
    (root / "a b" / "link").symlink_to(elsewhere)
    (root / "a b" / "again").symlink_to(elsewhere)
    (root / "a b" / "loop").symlink_to(root / "a b")
    (root / "a b" / "up").symlink_to(root)
    (root / "a b" / "dangling.jpg").symlink_to(root / "nowhere")
    (root / "a b" / "nested" / "self").symlink_to(root / "a b" / "nested" / "self")
    source = FolderSource(root)
    assert len(source) == 3 * 2 * len(NAMES) + 2
    read = {s.origin: s for s in source}
    with pytest.raises(Unusable, match="no such file"):
        read.pop("a b/dangling.jpg").read()
    assert [s.identity for s in read.values() if s.read() == b"far"] == ["a b"]


def test_many_crossing_links_take_no_time(tmp_path):
    folders = [tmp_path / "person" / str(i) for i in range(12)]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "x.jpg").write_bytes(b"")
        for other in folders:
            (folder / f"to{other.name}").symlink_to(other)
    assert len(FolderSource(tmp_path)) == 12


def test_people_without_images_and_stray_images_are_told(root):
    (root / "nobody").mkdir()
    (root / "only text").mkdir()
    (root / "only text" / "x.txt").write_bytes(b"")
    (root / "stray.jpg").write_bytes(b"")
    source = FolderSource(root)
    assert source.empty == ["nobody", "only text"]
    assert [p.name for p in source.stray] == ["stray.jpg"]


def test_missing_empty_and_misused_folders(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        FolderSource(tmp_path / "missing")
    with pytest.raises(UserError, match="no images"):
        FolderSource(tmp_path)
    (tmp_path / "x.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="not a folder"):
        FolderSource(tmp_path / "x.jpg")
    with pytest.raises(UserError, match="no folder for a person"):
        FolderSource(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "x.jpg").unlink()
    with pytest.raises(UserError, match="1 empty folders"):
        FolderSource(tmp_path)


def test_files_that_cannot_be_read_are_unusable(root):
    path = root / "a b" / "plain.jpg"
    path.unlink()
    with pytest.raises(Unusable, match="no such file"):
        read_file(path)
    os.mkfifo(path)
    with pytest.raises(Unusable, match="not a regular file"):
        read_file(path)


def test_the_manifest_never_sees_where_the_folder_lies(root):
    assert FolderSource(root).name == f"folder:{root.name}"


def test_the_list_is_that_of_a_plain_walk(root):
    (root / "a b" / "no ending").write_bytes(b"")
    (root / "a b" / "dot.").write_bytes(b"")
    (root / "a b" / "film.MP4").write_bytes(b"")
    (root / "readme").write_bytes(b"")
    files = [p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()]
    images = [f for f in files if f.lower().endswith((".jpg", ".jpeg", ".png", ".webp"))]
    source = FolderSource(root)
    assert [s.origin for s in source] == sorted(images, key=os.fsencode)
    assert source.other_endings == {"": 3, ".mp4": 1}


@pytest.mark.parametrize("spelt", [".", "./", "../{}", "{}/"])
def test_the_list_is_the_same_however_the_folder_is_named(root, monkeypatch, spelt):
    expected = [(s.origin, s.identity, s.read()) for s in FolderSource(root)]
    monkeypatch.chdir(root if "{" not in spelt or ".." in spelt else root.parent)
    source = FolderSource(Path(spelt.format(root.name)))
    assert [(s.origin, s.identity, s.read()) for s in source] == expected


def test_a_photograph_more_costs_its_name_and_no_look_at_it(tmp_path, monkeypatch):
    """Of tens of millions, in memory and in questions to a file server."""
    looks = []
    monkeypatch.setattr(os, "stat", lambda *a, see=os.stat, **k: looks.append(a) or see(*a, **k))

    def listed(count):
        folder = tmp_path / f"{count:05d}" / "person"
        folder.mkdir(parents=True)
        for i in range(count):
            (folder / f"photograph {i:06d}.jpg").touch()
        looks.clear()
        gc.collect()
        tracemalloc.start()
        source = FolderSource(folder.parent)
        gc.collect()
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert len(list(source)) == len(source) == count
        return held, len(looks)

    listed(100)  # what is loaded once
    (few, asked), (many, asked_of_many) = listed(500), listed(3_500)
    assert asked == asked_of_many
    assert 25 < (many - few) / 3_000 < 40  # bytes; its path has 28 letters


def test_openpeople_has_26_faces_of_each():
    samples = list(OpenPeopleSource())
    assert len(samples) == len(OpenPeopleSource()) == 260
    assert len({s.origin for s in samples}) == 260
    assert [s.identity for s in samples[::26]] == [f"P{i:03d}" for i in range(1, 11)]
    assert [s.origin for s in OpenPeopleSource(1)] == [f"P001/{p.name}.jpg" for p in PANELS]


def test_openpeople_reads_the_same_bytes_everywhere():
    sample = list(OpenPeopleSource())[40]
    data = sample.read()
    assert data == pickle.loads(pickle.dumps(sample)).read()
    assert encode_jpeg(decode(data)) == encode_jpeg(decode(data))


def test_each_cell_of_a_sheet_holds_exactly_one_face():
    # One person of whom the head nearly touches the frame, and one with panels far from the rest.
    for sample in (s for s in OpenPeopleSource() if s.identity in ("P004", "P009")):
        if sample.origin.endswith(("s_00.jpg", "s_05.jpg", "d_left.jpg", "d_right.jpg")):
            assert len(FaceDetector().detect(decode(sample.read()))) == 1, sample.origin
