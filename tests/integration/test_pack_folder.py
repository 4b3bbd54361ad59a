"""Folders of photographs to packs: the same bytes every time, and every mistake in one line."""

import csv
import io
import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from distill.data.manifest import read_pack
from distill.data.pack import PackOptions, open_source, pack
from distill.errors import UserError

ODD_NAME = 'new\nline "quoted", é 人'


def face(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = rng.integers(40, 220, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(cv2.resize(small, (112, 112), interpolation=cv2.INTER_CUBIC))


def save(image: Image.Image, path: Path, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


@pytest.fixture(scope="session")
def people(tmp_path_factory):
    """112x112 "faces" of three people, one with an odd name; and all kinds of bad files."""
    root = tmp_path_factory.mktemp("photographs") / "people"
    for p, name in enumerate(("ann", "bob", ODD_NAME)):
        for i in range(5):
            save(face(10 * p + i), root / name / f"{i} {name[:3]}.png")
    save(face(1).convert("CMYK"), root / "ann" / "cmyk.jpg")
    save(face(2).convert("L"), root / "ann" / "grey.png")
    save(face(3).convert("RGBA"), root / "ann" / "clear.png")
    wide = np.asarray(face(4).convert("L")).astype(np.uint16) * 256
    save(Image.fromarray(wide), root / "ann" / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    save(face(5), root / "ann" / "turned.jpg", exif=exif)
    (root / "bob" / "empty.jpg").write_bytes(b"")
    (root / "bob" / 'not "an" image,\n.jpg').write_bytes(b"hello")
    whole = io.BytesIO()
    face(6).save(whole, "JPEG")
    (root / "bob" / "truncated.jpg").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    save(Image.new("RGB", (1, 1)), root / "bob" / "pixel.png")
    save(Image.new("RGB", (60_000, 2)), root / "bob" / "stripe.png")
    save(Image.new("1", (20_000, 20_000)), root / "bob" / "bomb.png")
    save(Image.new("RGB", (200, 150)), root / "bob" / "large.png")
    shutil.copy(root / "bob" / "0 bob.png", root / "bob" / "again.png")
    shutil.copy(root / "ann" / "0 ann.png", root / "bob" / "of ann.png")
    (root / "nobody").mkdir()
    save(face(7), root / "stray.png")
    return root


def options(**changes) -> PackOptions:
    return PackOptions(**{"aligned": True, "workers": 1, "holdout": 0.25, "seed": 4, **changes})


@pytest.fixture(scope="session")
def packed(people, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "pack"
    return out, pack(open_source(str(people)), out, options())


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_counts_and_labels(packed):
    _, result = packed
    train, evaluation = result.train.manifest, result.evaluation.manifest
    assert train.identities == evaluation.identities == sorted(["ann", "bob", ODD_NAME])
    assert train.photographs + evaluation.photographs == 20
    assert (train.samples_seen, train.samples_rejected) == (29, 9)
    assert evaluation.kinds == list(options().kinds)
    assert set(evaluation.pairs_per_kind.values()) == {evaluation.photographs}
    assert set(train.versions) >= {"pairdistill", "numpy", "simplejpeg"}
    assert str(Path.cwd().anchor + "tmp") not in json.dumps(train.model_dump())


def test_what_was_left_out_and_why(packed):
    reasons = {row["path"]: row["reason"] for row in rows(packed[0] / "rejected.csv")}
    expected = {
        "bob/empty.jpg": "zero bytes",
        'bob/not "an" image,\n.jpg': "not an image",
        "bob/truncated.jpg": "truncated",
        "bob/pixel.png": "too small",
        "bob/stripe.png": "too small (60000x2",
        "bob/bomb.png": "too large",
        "bob/large.png": "200x150, not an aligned 112x112 face",
        "bob/again.png": "same content as bob/0 bob.png",
        "bob/of ann.png": "same content as ann/0 ann.png, which is of another person",
        "nobody": "without images",
        "stray.png": "outside the folder of any person",
    }
    assert set(reasons) == set(expected)
    assert [
        (path, reasons[path]) for path, said in expected.items() if said not in reasons[path]
    ] == []


def test_pairs_csv_matches_the_pack(packed):
    _, result = packed
    for made in (result.train, result.evaluation):
        (shard,), lines = made.index.shards, rows(made.path / "pairs.csv")
        assert len(lines) == len(shard)
        for line, sample in zip(lines, shard.samples, strict=True):
            assert made.manifest.identities[sample["label"]] == line["identity"]
            assert made.manifest.kinds[sample["kind"]] == line["kind"]
            assert line["first"].startswith(line["identity"])
            assert all(f"{kind}: " in line["how"] for kind in line["kind"].split("+"))
        assert Image.open(made.path / "contact_sheet.png").size[0] > 112


def test_second_images_differ_and_a_turned_photograph_stands_upright(packed):
    from distill.config.tree import DataConfig
    from distill.data.loader import make_eval_loader

    _, result = packed
    data = DataConfig(reader="python")
    (batch,) = make_eval_loader(result.train, data, rank=0, world_size=1, batch_pairs=99)
    changed = (batch.first != batch.second).flatten(1).any(dim=1)
    assert changed.float().mean() > 0.9


def test_three_workers_make_the_same_bytes(packed, people, tmp_path):
    out, result = packed
    again = pack(open_source(str(people)), tmp_path / "again", options(workers=3))
    assert not again.reused
    for name in ("train", "evaluation"):
        for file in ("pairs-00000.beton", "manifest.json", "pairs.csv", "contact_sheet.png"):
            assert (out / name / file).read_bytes() == (
                tmp_path / "again" / name / file
            ).read_bytes()
    assert (out / "rejected.csv").read_bytes() == (tmp_path / "again/rejected.csv").read_bytes()
    assert read_pack(again.train.path, verify_digest=True).manifest == result.train.manifest


def test_the_same_request_is_reused_and_another_refused(packed, people, tmp_path):
    out = tmp_path / "pack"
    shutil.copytree(packed[0], out)
    before = (out / "train" / "pairs-00000.beton").stat().st_mtime_ns
    assert pack(open_source(str(people)), out, options(workers=2)).reused
    assert (out / "train" / "pairs-00000.beton").stat().st_mtime_ns == before
    (people / "ann" / "new.png").write_bytes((people / "ann" / "grey.png").read_bytes())
    try:
        with pytest.raises(UserError, match="holds a pack of other photographs; choose another"):
            pack(open_source(str(people)), out, options())
    finally:
        (people / "ann" / "new.png").unlink()
    replaced = pack(open_source(str(people)), out, options(seed=5, overwrite=True))
    assert not replaced.reused and replaced.train.manifest.seed == 5
    assert [p.name for p in tmp_path.iterdir()] == ["pack"]


class Unread:
    """Photographs that nobody may look at: it would take hours."""

    name, expected = "unread", None

    def __iter__(self):
        raise AssertionError("photographs were read, though other settings are asked for")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 5}, r"with other settings \(seed\)"),
        ({"holdout": 0.0}, r"with other settings \(holdout\)"),
        ({"quality": 90, "kinds": {"blur": 1.0}}, r"with other settings \(kinds, quality\)"),
    ],
)
def test_other_settings_are_told_before_any_photograph_is_read(packed, changes, named):
    with pytest.raises(UserError, match=named + ".*, or replace it with --overwrite"):
        pack(Unread(), packed[0], options(**changes))


def test_other_versions_are_told_before_any_photograph_is_read(packed, monkeypatch):
    from distill.data.pack import standing

    now = standing.versions()
    monkeypatch.setattr(standing, "versions", lambda: now | {"pillow": "0"})
    with pytest.raises(UserError, match=r"made by other versions \(pillow\); choose another"):
        pack(Unread(), packed[0], options())


def test_a_damaged_pack_is_not_reused(packed, people, tmp_path):
    out = tmp_path / "pack"
    shutil.copytree(packed[0], out)
    os.truncate(out / "evaluation" / "pairs-00000.beton", 99)
    with pytest.raises(UserError, match=r"evaluation/pairs-00000\.beton.*with --overwrite"):
        pack(open_source(str(people)), out, options())
    assert not pack(open_source(str(people)), out, options(overwrite=True)).reused


def test_a_folder_with_anything_else_is_never_touched(people, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    (tmp_path / "file").write_text("also mine")
    for name, said in (("mine", "thesis.tex"), ("file", "a file, not a folder")):
        with pytest.raises(UserError, match=said):
            pack(open_source(str(people)), tmp_path / name, options(overwrite=True))
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"


def test_nothing_usable_is_an_error_and_leaves_nothing(tmp_path):
    save(Image.new("RGB", (300, 300), "grey"), tmp_path / "in" / "ann" / "wall.png")
    with pytest.raises(UserError, match=r"none of 1 photographs can be used.*no face found"):
        pack(open_source(str(tmp_path / "in")), tmp_path / "out", PackOptions(workers=1))
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_limits_on_rejected_and_on_few_images(people, tmp_path):
    source = open_source(str(people))
    with pytest.raises(UserError, match=r"9 of 29 photographs rejected.*--max-rejected 0.1"):
        pack(source, tmp_path / "out", options(max_rejected=0.1))
    one = tmp_path / "one"
    shutil.copytree(people / "ann", one / "ann")
    save(face(77), one / "eve" / "1.png")
    with pytest.raises(UserError, match=r"1 people have one usable .*: eve; .*--min-images 2"):
        pack(open_source(str(one)), tmp_path / "out", options())
    result = pack(open_source(str(one)), tmp_path / "out", options(min_images=2))
    assert result.train.manifest.identities == ["ann"]
    alone = pack(open_source(str(one)), tmp_path / "all", options(holdout=0.0))
    assert alone.evaluation is None and alone.train.manifest.identities == ["ann", "eve"]
    assert alone.train.path == tmp_path / "all"


def test_the_most_prominent_face_is_taken():
    source = pytest.importorskip("distill.data.sources.openpeople").OpenPeopleSource(people=1)
    from distill.data.images import decode
    from distill.data.locate import find_face

    portrait = next(decode(s.read()) for s in source if "portrait" in s.origin)
    small = cv2.resize(portrait, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA)
    padded = np.zeros((portrait.shape[0], small.shape[1], 3), np.uint8)
    padded[: len(small)] = small
    alone, _ = find_face(portrait)
    both, note = find_face(np.concatenate([portrait, padded], axis=1))
    assert note == "2 faces, the most prominent taken"
    assert np.abs(alone.rgb.astype(int) - both.rgb).mean() < 12
