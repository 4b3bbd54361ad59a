"""From every kind of source to packs: the same photographs, labels and names; no leaks."""

from __future__ import annotations

import csv
import io
import json
import os
import struct
import tarfile
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from distill.classify import classify
from distill.config.tree import Config, DataConfig, ModelConfig
from distill.data.batch import OrderState
from distill.data.forget import forget
from distill.data.images import decode, encode_jpeg
from distill.data.loader import make_train_loader
from distill.data.manifest import read_pack
from distill.data.pack import PackOptions, open_source, pack
from distill.data.verify import verify_pack
from distill.errors import UserError
from distill.models import build_classifier
from distill.ranks import Ranks

LABELS = [12, 12, 12, 12, 3, 3, 3, 3, 100, 100, 100, 100, 7]
"""People's own numbers, with gaps; the last one has one photograph."""


def face(seed: int) -> np.ndarray:
    small = np.random.default_rng(seed).integers(40, 220, (9, 9, 3), dtype=np.uint8)
    return cv2.resize(small, (112, 112), interpolation=cv2.INTER_CUBIC)


FACES = [encode_jpeg(face(i)) for i in range(len(LABELS))]


def as_rec(root: Path) -> Path:
    data = b""
    for label, image in zip(LABELS, FACES, strict=True):
        content = struct.pack("<IfQQ", 0, float(label), 0, 0) + image
        data += struct.pack("<II", 0xCED7230A, len(content)) + content
        data += bytes(-len(content) % 4)
    (root / "train.rec").write_bytes(data + struct.pack("<II", 0xCED7230A, 10_000) + b"cut")
    return root / "train.rec"


def as_parquet(root: Path) -> Path:
    images = [*FACES, b"broken"]
    pq.write_table(pa.table({"image": images, "label": [*LABELS, 3]}), root / "a.parquet")
    return root / "a.parquet"


def as_tar(root: Path) -> Path:
    with tarfile.open(root / "a.tar", "w") as tar:
        for i, (label, image) in enumerate([*zip(LABELS, FACES, strict=True), (3, b"broken")]):
            for ending, content in (("jpg", image), ("cls", str(label).encode())):
                info = tarfile.TarInfo(f"{i:03d}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return root / "a.tar"


def as_csv(root: Path) -> Path:
    lines = ["path,identity"]
    for i, (label, image) in enumerate([*zip(LABELS, FACES, strict=True), (3, b"broken")]):
        (root / f"{i}.jpg").write_bytes(image)
        lines.append(f"{i}.jpg,{label}")
    (root / "list.csv").write_text("\n".join(lines))
    return root / "list.csv"


def options(**changes) -> PackOptions:
    return PackOptions(**{"aligned": True, "workers": 1, "kinds": {"blur": 1.0}, **changes})


def rejected(out: Path) -> list[dict[str, str]]:
    with (out / "rejected.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("make", [as_rec, as_parquet, as_tar, as_csv])
def test_every_source_gives_the_same_people(tmp_path, make):
    (tmp_path / "in").mkdir()
    source = open_source(str(make(tmp_path / "in")))
    result = pack(source, tmp_path / "out", options(min_images=2))
    manifest = result.train.manifest
    assert manifest.identities == ["3", "12", "100"]  # as numbers, and without gaps
    assert manifest.pairs_per_identity == [4, 4, 4]
    assert (manifest.samples_seen, manifest.samples_rejected) == (14, 2)
    reasons = " ".join(row["reason"] for row in rejected(tmp_path / "out"))
    assert "person has 1 usable photographs, fewer than 2" in reasons
    assert any(word in reasons for word in ("not an image", "the file has"))
    assert str(tmp_path) not in (tmp_path / "out" / "manifest.json").read_text()


def as_folder(root: Path) -> Path:
    for i, (label, image) in enumerate([*zip(LABELS, FACES, strict=True), ("3", b"broken")]):
        (root / str(label)).mkdir(exist_ok=True)
        (root / str(label) / f"{i}.jpg").write_bytes(image)
    return root


FORMS = [as_rec, as_parquet, as_tar, as_csv, as_folder]


@pytest.mark.parametrize("make", FORMS)
def test_one_photograph_is_a_pack(tmp_path, make, monkeypatch):
    """Of one person: it can be read, checked and trained on, but not be divided or emptied."""
    (tmp_path / "in").mkdir()
    monkeypatch.setitem(globals(), "LABELS", [7])
    monkeypatch.setitem(globals(), "FACES", FACES[:1])
    source = open_source(str(make(tmp_path / "in")))
    with pytest.raises(UserError, match="one usable"):
        pack(source, tmp_path / "divided", options(holdout=0.5))
    made = pack(source, tmp_path / "out", options()).train
    assert (made.manifest.identities, made.manifest.pairs) == (["7"], 1)
    assert made.manifest.samples_rejected == 1
    assert verify_pack(made) == []
    ranks = Ranks(0, 1, 0, 1, torch.device("cpu"))
    for reader in ("ffcv", "python"):
        with make_train_loader(
            made, DataConfig(reader=reader), seed=0, ranks=ranks, batch_pairs_per_rank=1
        ) as loader:
            (first, after), (second, _) = islice(loader, 2)
        assert (first.labels.tolist(), second.labels.tolist()) == ([0], [0])
        assert after == OrderState(1, 0)
    with pytest.raises(UserError, match="the only person"):
        forget(["7"], tmp_path / "out")


@pytest.mark.parametrize("make", FORMS)
def test_no_photograph_is_one_error(tmp_path, make, monkeypatch):
    """Nothing but one broken image; with the file whole, and with nothing at all in it."""
    (tmp_path / "in").mkdir()
    monkeypatch.setitem(globals(), "LABELS", [])
    monkeypatch.setitem(globals(), "FACES", [])
    source = open_source(str(make(tmp_path / "in")))
    with pytest.raises(UserError, match="none of 1 photographs can be used"):
        pack(source, tmp_path / "out", options())
    for file in (tmp_path / "in").rglob("*.*"):
        file.write_bytes(b"")
    with pytest.raises(UserError):
        pack(open_source(str(make_path(tmp_path / "in"))), tmp_path / "out", options())
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def make_path(root: Path) -> Path:
    """The file of a source, or its folder of people."""
    files = [path for path in root.iterdir() if path.suffix in (".rec", ".parquet", ".tar", ".csv")]
    return files[0] if files else root


NAMES = ["é人" * 51, "x" * 255, os.fsdecode(b"no \xff text"), "new\nline", "nan", "con", "٣", "💡"]


def test_odd_names_come_through_a_pack_as_they_are(tmp_path):
    """From folders to labels: unicode, 255 bytes; bytes that are no text are told as \\xNN."""
    told = [os.fsencode(name).decode("utf-8", "backslashreplace") for name in NAMES]
    for number, name in enumerate(NAMES):
        folder = tmp_path / "in" / name
        folder.mkdir(parents=True)
        for i in range(2):
            content = encode_jpeg(face(50 + 2 * number + i))
            (folder / (f"{i}" + "y" * 250 + ".jpg")).write_bytes(content)
    made = pack(open_source(str(tmp_path / "in")), tmp_path / "out", options(workers=2)).train
    assert read_pack(made.path).manifest.identities == sorted(told)
    assert made.manifest.pairs_per_identity == [2] * len(NAMES)
    gone = forget([told[2]], tmp_path / "out")[0]
    assert told[2] not in gone.pack.manifest.identities and gone.pairs == 2
    assert verify_pack(gone.pack) == []


@pytest.fixture(scope="module")
def lookalikes(tmp_path_factory) -> Path:
    """Four people of five photographs; some are others saved again, as another person too."""
    root = tmp_path_factory.mktemp("in") / "people"
    for person in range(4):
        (root / f"p{person}").mkdir(parents=True)
        for i in range(5):
            (root / f"p{person}" / f"{i}.jpg").write_bytes(encode_jpeg(face(10 * person + i)))
    for person, i, seed in ((0, 5, 0), (0, 6, 1), (1, 5, 0), (2, 5, 31), (3, 5, 21)):
        (root / f"p{person}" / f"{i}.jpg").write_bytes(encode_jpeg(face(seed), 60))
    return root


def originals(part: Path) -> set[int]:
    """Which drawn faces a pack is made of: by its photographs' names."""
    again = {"p0/5.jpg": 0, "p0/6.jpg": 1, "p1/5.jpg": 0, "p2/5.jpg": 31, "p3/5.jpg": 21}
    with (part / "pairs.csv").open(newline="", encoding="utf-8") as file:
        names = [row["first"] for row in csv.DictReader(file)]
    return {again.get(name, 10 * int(name[1]) + int(name[3])) for name in names}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("by", ["image", "identity"])
def test_nothing_nearly_the_same_is_on_both_sides(lookalikes, tmp_path, by, seed):
    chosen = options(holdout=0.4, split_by=by, seed=seed)
    result = pack(open_source(str(lookalikes)), tmp_path / "out", chosen)
    assert result.evaluation is not None
    train, held = originals(tmp_path / "out" / "train"), originals(tmp_path / "out" / "evaluation")
    assert not train & held
    assert len(held) >= 5
    split = result.train.manifest.split
    assert split["near_duplicate_groups"] == 4
    dropped = [r for r in rejected(tmp_path / "out") if "nearly the same as" in r["reason"]]
    assert split["near_duplicates_dropped"] == len(dropped)
    trained, tested = result.train.manifest.identities, result.evaluation.manifest.identities
    if by == "image":
        assert trained == tested == [f"p{i}" for i in range(4)] and not dropped
    else:
        assert not set(trained) & set(tested) and len(trained) + len(tested) == 4
        assert 0 not in result.train.manifest.pairs_per_identity


def test_filters_and_wrong_words(lookalikes, tmp_path):
    source = open_source(str(lookalikes))
    result = pack(source, tmp_path / "few", options(max_images=6))
    assert result.train.manifest.identities == ["p1", "p2", "p3"]
    assert any("more than 6" in row["reason"] for row in rejected(tmp_path / "few"))
    for wrong in ({"split_by": "name"}, {"max_images": -1}):
        with pytest.raises(UserError):
            options(**wrong)
    with pytest.raises(UserError, match="none of"):
        pack(source, tmp_path / "none", options(min_images=50))


def test_classify_answers_with_the_names_of_the_source(tmp_path):
    """The label map goes from the record file through the pack's manifest into the model."""
    (tmp_path / "in").mkdir()
    made = pack(open_source(str(as_rec(tmp_path / "in"))), tmp_path / "out", options(min_images=2))
    names = read_pack(made.train.path).manifest.identities
    torch.manual_seed(0)
    config = Config(model=ModelConfig(name="tiny", embedding_dim=32))
    model = build_classifier(config, len(names))
    shown = [LABELS.index(int(name)) for name in names]  # one photograph of each person
    faces = torch.from_numpy(np.stack([decode(FACES[i]) for i in shown])).permute(0, 3, 1, 2)
    faces = faces.float() / 127.5 - 1
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        model(torch.cat([faces, faces + 0.1 * torch.randn_like(faces)]))
        model.head.weight.copy_(model.eval()(faces).embeddings)
    about = {"format": "pairdistill-weights-1", "step": "1", "run_id": "r"}
    about |= {"config": json.dumps(config.model_dump()), "identities": json.dumps(names)}
    save_file(model.state_dict(), tmp_path / "model.safetensors", about)
    paths = [tmp_path / f"{name}.jpg" for name in names]
    for path, place in zip(paths, shown, strict=True):
        path.write_bytes(FACES[place])
    answers = classify(tmp_path / "model.safetensors", paths, aligned=True)
    assert [answer.person for answer in answers] == names == ["3", "12", "100"]
