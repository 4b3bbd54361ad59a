"""Photographs to names: real detection on generated people, bad files, odd names, all formats."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from distill.classify import classify, rendered
from distill.cli.app import build_app
from distill.config.tree import Config, ModelConfig
from distill.data.detector import FaceDetector
from distill.data.faces import align
from distill.data.images import decode, encode_jpeg
from distill.data.sources.openpeople import OpenPeopleSource
from distill.errors import UserError
from distill.models import build_classifier
from distill.trained import restore

NAMES = ['Ann "the first"', "Боб\nHill", "=Ça,va"]
ODD = os.fsdecode(b'it\'s "odd"\n \xff\xfe \xd0\x96.jpg')  # quotes, newline, no UTF-8, non-ASCII
MISSING = "missing.jpg"


@pytest.fixture(scope="module")
def portraits():
    """One clear photograph of each of three people, decoded."""
    by_person = {}
    for sample in OpenPeopleSource(people=3):
        if "portrait" in sample.origin:
            by_person[sample.identity] = decode(sample.read())
    return list(islice(by_person.values(), 3))


@pytest.fixture(scope="module")
def crops(portraits):
    return [align(rgb, FaceDetector().detect(rgb)[0].points) for rgb in portraits]


@pytest.fixture(scope="module")
def weights(tmp_path_factory, crops):
    """A tiny network with random features, whose class weights are the people's embeddings."""
    torch.manual_seed(0)
    config = Config(model=ModelConfig(name="tiny", embedding_dim=32))
    model = build_classifier(config, len(NAMES))
    faces = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 127.5 - 1
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        model(torch.cat([faces, faces + 0.1 * torch.randn_like(faces)]))
        model.head.weight.copy_(model.eval()(faces).embeddings)
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    about = {"format": "pairdistill-weights-1", "step": "12", "run_id": "r"}
    about |= {"config": json.dumps(config.model_dump()), "identities": json.dumps(NAMES)}
    save_file(model.state_dict(), path, about)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory, portraits):
    """Good and bad photographs side by side."""
    root = tmp_path_factory.mktemp("photos")
    good = [encode_jpeg(rgb) for rgb in portraits]
    (root / "b.jpg").write_bytes(good[1])
    (root / "sub").mkdir()
    (root / "sub" / "c.PNG").write_bytes(cv2.imencode(".png", portraits[2][:, :, ::-1])[1])
    (root / ODD).write_bytes(good[0])
    (root / "turned.jpg").write_bytes(turned(portraits[1]))
    (root / "truncated.jpg").write_bytes(good[0][: len(good[0]) // 2])
    (root / "empty.jpg").write_bytes(b"")
    (root / "text.jpg").write_bytes(b"not an image")
    (root / "no face.jpg").write_bytes(encode_jpeg(np.full((200, 300, 3), 120, np.uint8)))
    (root / "two.jpg").write_bytes(encode_jpeg(side_by_side(*portraits[:2])))
    (root / "notes.txt").write_text("no photograph by its ending")
    (root / ".hidden.jpg").write_bytes(good[0])
    return root


def turned(rgb):
    """The photograph on its side, with the EXIF orientation that puts it right."""
    exif, data = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(rgb).copy()).save(data, "JPEG", quality=95, exif=exif)
    return data.getvalue()


def side_by_side(one, other):
    height = min(one.shape[0], other.shape[0])
    return np.hstack([one[:height], other[:height]])


@pytest.fixture(scope="module")
def answers(weights, folder):
    return classify(weights, [folder, folder / MISSING], top=2)


def by_name(answers):
    return {answer.photograph.name: answer for answer in answers}


def test_each_person_is_named(answers):
    found = by_name(answers)
    for name, person in ((ODD, 0), ("b.jpg", 1), ("c.PNG", 2), ("turned.jpg", 1)):
        answer = found[name]
        assert answer.status == "ok" and answer.person == NAMES[person], name
        assert 0.5 < answer.probability <= 1 and len(answer.top) == 2
        assert answer.top[0][1] >= answer.top[1][1]


def test_bad_photographs_have_a_row_that_says_so(answers):
    found = by_name(answers)
    assert found["no face.jpg"].status == "no face"
    assert found["two.jpg"].status == "2 faces"
    for name in ("truncated.jpg", "empty.jpg", "text.jpg", MISSING):
        assert found[name].status.startswith("unreadable: "), name
        assert found[name].person is None and found[name].top == ()
    assert len(answers) == 10 and "notes.txt" not in found and ".hidden.jpg" not in found


def test_order_and_batches_do_not_matter(weights, folder, answers, monkeypatch):
    monkeypatch.setattr("distill.classify.faces.LOT", 3)
    again = classify(weights, [folder / MISSING, folder], top=2)
    assert [a.photograph for a in again] == [a.photograph for a in [answers[-1], *answers[:-1]]]
    for name, answer in by_name(answers).items():
        assert by_name(again)[name].person == answer.person
        assert by_name(again)[name].probability == pytest.approx(answer.probability, abs=1e-5)


def test_aligned_faces_are_taken_as_they_are(weights, crops, tmp_path, monkeypatch):
    monkeypatch.setattr("distill.data.detector.FaceDetector.detect", None)
    large = cv2.resize(crops[2], (224, 224), interpolation=cv2.INTER_CUBIC)
    pictures = {"a.png": crops[0], "b.png": large, "c.png": crops[1][:, :100]}
    for name, rgb in pictures.items():
        (tmp_path / name).write_bytes(cv2.imencode(".png", rgb[:, :, ::-1])[1])
    a, b, c = classify(weights, [tmp_path], aligned=True)
    assert (a.person, b.person) == (NAMES[0], NAMES[2])
    assert a.probability == pytest.approx(true_probability(weights, crops[0]), abs=1e-5)
    assert c.status == "unreadable: 100x112 pixels: an aligned face is square"


def true_probability(weights, crop):
    """By hand: embedding, cosines, scale, softmax, in float64."""
    model = restore(weights).model.double()
    image = torch.from_numpy(crop.transpose(2, 0, 1).copy())[None].double() / 127.5 - 1
    embedding = model.backbone(image)[0].detach().numpy()
    rows = model.head.weight.detach().numpy()
    cosines = rows @ embedding / np.linalg.norm(rows, axis=1) / np.linalg.norm(embedding)
    powers = np.exp(64.0 * (cosines - cosines.max()))
    return (powers / powers.sum()).max()


def test_csv_gives_every_byte_back(answers, folder):
    data = rendered(answers, "csv")
    text = data.decode("utf-8", "surrogateescape")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [os.fsencode(row["photograph"]) for row in rows] == [
        os.fsencode(answer.photograph) for answer in answers
    ]
    named = {Path(row["photograph"]).name: row for row in rows}
    assert named[ODD]["person"] == NAMES[0] and named["b.jpg"]["person"] == NAMES[1]
    assert float(named["b.jpg"]["probability"]) > 0.5
    assert named["two.jpg"]["status"] == "2 faces" and named["two.jpg"]["person_2"] == ""


def test_json_gives_every_name_back(answers):
    rows = json.loads(rendered(answers, "json"))
    assert [row["photograph"] for row in rows] == [str(a.photograph) for a in answers]
    assert [row["person"] for row in rows] == [a.person for a in answers]
    for row, answer in zip(rows, answers, strict=True):
        assert [(one["person"], one["probability"]) for one in row["top"]] == list(answer.top)


def test_no_name_breaks_a_line_of_the_table(answers):
    lines = rendered(answers, "table").decode().splitlines()
    text = "".join(line.strip() for line in lines)
    assert "\\n" in text and "\x1b" not in text
    assert all(line.isprintable() for line in lines)


def test_folder_without_photographs(weights, tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match="no photographs in it"):
        classify(weights, [tmp_path])


def test_weights_of_another_model_are_refused(weights):
    with pytest.raises(UserError, match=r"holds another model .* backbone.*do not change model"):
        restore(weights, ["model.embedding_dim=16"])
    with pytest.raises(UserError, match=r"model\.nam"):
        restore(weights, ["model.nam=tiny"])
    with pytest.raises(UserError, match="no checkpoint there"):
        restore(weights.parent)


def test_command_writes_clean_csv_to_a_pipe(weights, folder, answers):
    words = (weights, folder, folder / MISSING, "--format", "csv", "--top", "2")
    program = [sys.executable, "-m", "distill", "classify", *map(os.fspath, words)]
    result = subprocess.run(program, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout == rendered(answers, "csv")


def here(*words):
    """The command in this process."""
    return CliRunner().invoke(build_app(), ["classify", *map(os.fspath, words)])


def test_command_status_where_nothing_was_classified(weights, folder, tmp_path):
    out = tmp_path / "answers.json"
    assert here(weights, folder / "empty.jpg", "--out", out).exit_code == 1
    (row,) = json.loads(out.read_text())
    assert row["status"].startswith("unreadable: ") and row["person"] is None


def test_command_refuses_before_it_works(weights, folder, tmp_path):
    result = here(weights, folder / "b.jpg", "--out", tmp_path / "no" / "answers.csv")
    assert isinstance(result.exception, UserError) and "missing" in str(result.exception)
    result = here(tmp_path / "no.safetensors", folder / "b.jpg")
    assert isinstance(result.exception, UserError) and "no checkpoint" in str(result.exception)
    assert here(weights, folder / "b.jpg", "--top", "0").exit_code == 2


@pytest.mark.parametrize("command", ["classify", "embed"])
def test_files_of_a_folder_that_have_no_row_are_told(weights, folder, tmp_path, command):
    shutil.copy(folder / "b.jpg", tmp_path)
    for name in ("IMG_1.HEIC", "notes.txt", ".hidden.heic"):
        (tmp_path / name).write_bytes(b"?")
    words = command, weights, tmp_path, "--out", tmp_path / "out"
    done = CliRunner().invoke(build_app(), [*map(str, words)])
    assert "2 file(s) not tried, for their ending is of no image that is read: 1" in done.stderr


def by_hand(weights, faces):
    """Embeddings of aligned faces, not of unit length."""
    with torch.no_grad():
        images = torch.from_numpy(np.stack(faces)).permute(0, 3, 1, 2).float() / 127.5 - 1
        return restore(weights).model.backbone(images).numpy()


def embed(*words):
    return CliRunner().invoke(build_app(), ["embed", *map(str, words)])


def test_embeddings_of_photographs_and_why_some_have_none(weights, folder, tmp_path):
    out = tmp_path / "faces.npz"
    done = embed(weights, folder, folder / MISSING, "--out", out)
    assert done.exit_code == 0, done.exception
    with np.load(out) as found:  # numpy refuses what would need a pickle
        arrays = dict(found)
    rows = {str(path): row for row, path in enumerate(arrays["photographs"])}
    answers = {str(a.photograph): a for a in classify(weights, [folder, folder / MISSING])}
    assert set(rows) == {path for path, answer in answers.items() if answer.status == "ok"}
    reasons = dict(zip(arrays["unusable"].tolist(), arrays["reasons"].tolist(), strict=True))
    assert reasons == {p: a.status for p, a in answers.items() if a.status != "ok"}
    assert str(folder / ODD) in rows and str(folder / MISSING) in reasons
    for name in ("b.jpg", "sub/c.PNG"):
        rgb = decode((folder / name).read_bytes())
        (wanted,) = by_hand(weights, [align(rgb, FaceDetector().detect(rgb)[0].points)])
        row = rows[str(folder / name)]
        assert np.allclose(arrays["embeddings"][row], wanted / np.linalg.norm(wanted), atol=1e-4)
    assert f"{len(rows)} embeddings of 32 numbers" in done.stdout
    assert "warning: " in done.stderr


def test_embeddings_of_aligned_faces_are_exact(weights, crops, tmp_path):
    for row, face in enumerate(crops):
        Image.fromarray(face).save(tmp_path / f"{row}.png")
    for extra, wanted in (
        ([], by_hand(weights, crops)),
        (["--mirrored"], by_hand(weights, crops) + by_hand(weights, [f[:, ::-1] for f in crops])),
    ):
        done = embed(weights, tmp_path, "--aligned", "--out", tmp_path / "e.npz", *extra)
        assert done.exit_code == 0, done.exception
        found = np.load(tmp_path / "e.npz")
        lengths = np.linalg.norm(wanted, axis=1)
        assert np.allclose(found["lengths"], lengths, rtol=1e-4)
        assert np.allclose(found["embeddings"], wanted / lengths[:, None], atol=1e-5)


def test_nothing_to_embed_is_status_1_and_no_folder_a_mistake(weights, tmp_path):
    (tmp_path / "no.jpg").write_bytes(b"no image")
    done = embed(weights, tmp_path, "--out", tmp_path / "e.npz")
    assert done.exit_code == 1
    assert np.load(tmp_path / "e.npz")["embeddings"].shape == (0, 32)
    done = embed(weights, tmp_path, "--out", tmp_path / "none" / "e.npz")
    assert isinstance(done.exception, UserError) and "its folder is missing" in str(done.exception)
