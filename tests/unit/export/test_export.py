"""Exported files against float64, in onnxruntime and in a torch that does not know this program."""

from __future__ import annotations

import importlib.util
import json
import re
import resource
import subprocess
import sys

import cv2
import numpy as np
import onnx
import pytest
import torch
from rank_processes import python
from safetensors import safe_open
from small_networks import ASKED, PEOPLE, close, export, floats, in_runtime

from distill.data.images import encode_jpeg
from distill.data.pack_writer import EncodedPair, write_pack
from distill.errors import UserError
from distill.export import network, write
from distill.export.wanted import Form, Wanted
from distill.trained import restore_backbone

ALONE = """
import json, sys
sys.modules["distill"] = None  # its import fails
import torch
found = {}
for name, (path, pixels) in torch.load(sys.argv[1]).items():
    facts = {"pairdistill.json": ""}
    module = torch.export.load(path, extra_files=facts).module()
    found[name] = [module(images) for images in pixels], facts["pairdistill.json"]
torch.save(found, sys.argv[2])
"""
PROGRAMS = {
    "face.pt2": ("linear", "embeddings", {"input": "float32", "unit_length": "no"}),
    "people.pt2": ("cosine", "probabilities", {"names": "people.pt2.identities.json"}),
    "centres.pt2": ("sub-centres", "probabilities", {"numbers": "5"}),
    "named.pt2": ("linear", "probabilities", {"input": "uint8", "mean": "0", "std": "1"}),
}
"""Its head, what it gives, and what else the file says of it."""


def test_onnx_gives_the_embeddings_of_any_number_of_images(exported, networks, pixels):
    session = in_runtime(exported("face.onnx")[0])
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type, taken.shape[1:]) == ("data", "tensor(float)", [3, 112, 112])
    assert (given.name, given.shape[1:]) == ("embedding", [32])
    assert isinstance(taken.shape[0], str) and taken.shape[0] == given.shape[0]
    for images in pixels:
        (found,) = session.run(None, {"data": floats(images).numpy()})
        assert close(torch.from_numpy(found), networks["linear"].embeddings(images))


@pytest.mark.parametrize(
    ("name", "head"), [("people.onnx", "cosine"), ("centres.onnx", "sub-centres")]
)
def test_onnx_gives_probabilities_of_bytes(exported, networks, pixels, name, head):
    session = in_runtime(exported(name)[0])
    assert session.get_inputs()[0].type == "tensor(uint8)"
    for images in pixels:
        (found,) = session.run(["probabilities"], {"data": images.numpy()})
        assert close(torch.from_numpy(found), networks[head].probabilities(images))


@pytest.fixture(scope="module")
def alone(exported, pixels, tmp_path_factory):
    """What a process that has torch alone finds in each program; its outputs and facts."""
    folder, asked = tmp_path_factory.mktemp("alone"), {}
    for name, (_, _, facts) in PROGRAMS.items():
        taken = pixels if facts.get("input") == "uint8" else [floats(images) for images in pixels]
        asked[name] = str(exported(name)[0]), taken
    torch.save(asked, folder / "in.pt")
    argv = [sys.executable, "-c", ALONE, folder / "in.pt", folder / "out.pt"]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "out.pt")


@pytest.mark.parametrize("name", PROGRAMS)
def test_torch_alone_loads_a_program(alone, networks, pixels, name):
    (head, gives, facts), (outputs, told) = PROGRAMS[name], alone[name]
    for images, found in zip(pixels, outputs, strict=True):
        assert close(found, getattr(networks[head], gives)(images))
    assert facts.items() <= json.loads(told).items()


def as_insightface_feeds(path, faces):
    """What its `ArcFaceONNX` does, from its description in `distill.export.as_onnx`.

    OpenCV's own function makes the input of BGR images, as there.
    """
    names = [node.name for node in onnx.load(path).graph.node[:8]]
    inside = all(any(name.startswith(begin) for name in names) for begin in ("Sub", "Mul"))
    mean, std = (0.0, 1.0) if inside else (127.5, 127.5)
    session = in_runtime(path)
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    size = tuple(taken.shape[2:4][::-1])
    blob = cv2.dnn.blobFromImages(faces, 1.0 / std, size, (mean, mean, mean), swapRB=True)
    return session.run([given.name], {taken.name: blob})[0]


def test_a_consumer_of_insightface_gets_what_the_network_gives(exported, networks):
    rng = np.random.default_rng(0)
    bgr = [rng.integers(0, 256, (112, 112, 3), dtype=np.uint8) for _ in range(3)]
    found = as_insightface_feeds(exported("face.onnx")[0], bgr)
    rgb = torch.from_numpy(np.stack(bgr)[..., ::-1].transpose(0, 3, 1, 2).copy())
    assert close(torch.from_numpy(found), networks["linear"].embeddings(rgb))


def test_a_file_says_what_it_is(exported):
    path, told = exported("people.onnx")
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert (model.ir_version, [one.version for one in model.opset_import]) == (8, [18])
    parts = [model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input]
    assert not any(part.metadata_props for part in parts)  # that format has none
    facts = {one.key: one.value for one in model.metadata_props}
    expected = {"run": "run-7", "step": "12", "network": "tiny", "colours": "RGB", "numbers": "5"}
    assert expected.items() <= facts.items()
    assert {"size": "112x112", "layout": "NCHW", "output": "probabilities"}.items() <= facts.items()
    assert json.loads(path.with_name(facts["names"]).read_text()) == PEOPLE
    assert re.search(r"checked on random images: at most \S+e-\d+ from", told)
    assert "names of the 5 people" in told


def test_no_path_of_this_machine_gets_out(exported):
    for name in ASKED:
        path, _ = exported(name)
    ours = str(importlib.util.find_spec("distill").submodule_search_locations[0]).encode()
    for written in path.parent.iterdir():
        assert ours not in written.read_bytes(), written.name
        assert not written.name.startswith("."), "nothing is left behind"


def test_weights_alone_are_read_again(exported, networks):
    path = exported("backbone.safetensors")[0]
    again = restore_backbone(path)
    expected = networks["linear"].model.backbone.state_dict()
    found = again.model.backbone.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert (again.step, again.run_id, again.config.model.embedding_dim) == (12, "run-7", 32)
    with safe_open(path, "pt") as file:
        assert file.metadata()["mean"] == "127.5" and "data" not in json.loads(
            file.metadata()["config"]
        )


@pytest.mark.parametrize("ending", ["onnx", "pt2"])
def test_a_file_that_computes_something_else_is_not_kept(networks, tmp_path, monkeypatch, ending):
    """Of a graph that forgets to normalise, as a mistake in an exporter would make it."""
    monkeypatch.setattr(network.FromBytes, "forward", lambda _, images: images.float())
    words = ["--input", "uint8", "--output", "probabilities"]
    done = export(networks["linear"].path, tmp_path / f"face.{ending}", *words)
    assert isinstance(done.exception, UserError)
    assert "other numbers than the network" in str(done.exception)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_kept_unless_told_otherwise(networks, tmp_path):
    out = tmp_path / "face.pt2"
    out.write_bytes(b"before")
    assert "is there already" in str(export(networks["linear"].path, out).exception)
    assert out.read_bytes() == b"before"
    assert export(networks["linear"].path, out, "--overwrite").exit_code == 0
    assert torch.export.load(out).module()(torch.zeros(1, 3, 112, 112)).shape == (1, 32)
    (tmp_path / "new.pt2.identities.json").write_text("[]")
    asked = [networks["linear"].path, tmp_path / "new.pt2", "--output", "probabilities"]
    assert "new.pt2.identities.json: is there already" in str(export(*asked).exception)
    (tmp_path / "folder.pt2").mkdir()
    done = export(networks["linear"].path, tmp_path / "folder.pt2", "--overwrite")
    assert "folder.pt2: a folder; name a file" in str(done.exception)


@pytest.mark.parametrize("ending", list(Form))
def test_a_full_disk_is_one_line_and_leaves_nothing(networks, tmp_path, ending):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
    try:
        with pytest.raises(UserError, match=r"face.*: disk full"):
            write.export_network(
                networks["linear"].path, tmp_path / f"face.{ending}", Wanted(ending)
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_mistakes_are_named(exported, networks, tmp_path, monkeypatch):
    path = networks["linear"].path
    cases = {
        r"ending is none of \.onnx, \.pt2, \.safetensors": [path, tmp_path / "face.h5"],
        "folder is missing": [path, tmp_path / "absent" / "face.pt2"],
        "no checkpoint there": [tmp_path / "absent", tmp_path / "face.pt2"],
        "computes nothing": [path, tmp_path / "b.safetensors", "--output", "probabilities"],
        "knows no people": [
            exported("backbone.safetensors")[0],
            tmp_path / "b.pt2",
            "--output",
            "probabilities",
        ],
    }
    for words, asked in cases.items():
        with pytest.raises(UserError, match=words):
            raise export(*asked).exception
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"needs onnxscript.*`pip install .*onnxscript.*`"):
        raise export(path, tmp_path / "face.onnx").exception
    assert list(tmp_path.iterdir()) == []


def test_without_a_runtime_onnx_is_written_and_said_to_be_unchecked(
    networks, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = export(networks["linear"].path, tmp_path / "face", "--format", "onnx")
    assert done.exit_code == 0
    assert "not checked: onnxruntime" in done.output and "at most" not in done.output
    onnx.checker.check_model(onnx.load(tmp_path / "face"))


def test_the_command_line_needs_none_of_the_extra(tmp_path):
    code = """
import sys
import distill.cli.app, distill.export.write
print([name for name in ("onnx", "onnxscript", "onnxruntime") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_network_that_diverged_is_refused(networks, tmp_path, monkeypatch):
    original = write.plainly
    monkeypatch.setattr(write, "plainly", lambda *given: original(*given) * float("nan"))
    with pytest.raises(UserError, match="not finite"):
        raise export(networks["linear"].path, tmp_path / "face.pt2").exception


def test_a_run_starts_from_the_weights_and_is_exported_itself(exported, tmp_path):
    path, _ = exported("backbone.safetensors")
    drawn = np.random.default_rng(1).integers(0, 256, (4, 112, 112, 3), dtype=np.uint8)
    pairs = [
        EncodedPair(encode_jpeg(one), encode_jpeg(one), i % 2, 0) for i, one in enumerate(drawn)
    ]
    write_pack(tmp_path / "train", pairs, 4, identities=["a", "b"], kinds=["blur"])
    (tmp_path / "run.toml").write_text(f"""
run = {{dir = "{tmp_path}/run", device = "cpu"}}
data = {{train = "{tmp_path}/train", reader = "python"}}
model = {{name = "tiny", embedding_dim = 32, init_from = "{path}"}}
optimizer = {{lr = 1e-12}}
train = {{steps = 1, global_batch_pairs = 4}}
""")
    done = python("-m", "distill", "train", str(tmp_path / "run.toml"))
    assert done.returncode == 0, done.stderr
    assert f"backbone of {path}; 2 people, all new" in done.stderr
    out = tmp_path / "again.safetensors"
    assert export(tmp_path / "run", out).exit_code == 0
    (checkpoint,) = (tmp_path / "run" / "checkpoints").glob("step-*")
    with safe_open(out, "pt") as after, safe_open(path, "pt") as before:
        facts, name = after.metadata(), "backbone.stem.0.weight"
        assert torch.allclose(after.get_tensor(name), before.get_tensor(name), atol=1e-6)
    assert facts["step"] == "1"
    assert facts["run"] == json.loads((checkpoint / "manifest.json").read_text())["run_id"]
