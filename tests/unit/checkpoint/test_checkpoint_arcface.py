"""Backbones of arcface_torch: a state under its names, and its network written out in functions."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from unittest.mock import ANY

import cv2
import numpy as np
import pytest
import torch
from rank_processes import python
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner
from written_arcface import BLOCKS, by_hand, head_of, state_of
from written_insight import mbf_by_hand, mbf_state, vit_by_hand, vit_state

from distill.checkpoint.arcface import (
    BACKBONE_PREFIX,
    HEAD,
    is_arcface,
    model_settings,
    own_name,
    theirs,
)
from distill.cli.app import build_app
from distill.config import load_config
from distill.data.images import encode_jpeg
from distill.data.pack_writer import EncodedPair, write_pack
from distill.errors import UserError
from distill.models.registry import build_backbone
from distill.trained import restore, restore_backbone

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
FILES = ("rec", "idx", "pt")


@pytest.fixture(scope="module")
def r18(tmp_path_factory):
    """The file of a backbone, and its state; another file beside it has a head as well."""
    state = state_of(BLOCKS["r18"])
    path = tmp_path_factory.mktemp("arcface") / "r18.safetensors"
    save_file(state, path)
    save_file({**state, HEAD: head_of(2)}, path.with_name("whole.safetensors"))
    return path, state


WRITTEN = {
    **{name: (partial(state_of, blocks), partial(by_hand, blocks=blocks))
       for name, blocks in BLOCKS.items()},
    "vit_t": (vit_state, vit_by_hand),
    "mbf": (mbf_state, mbf_by_hand),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_the_embeddings_are_the_same_and_the_state_goes_back(name, tmp_path):
    make, compute = WRITTEN[name]
    state, path = make(), tmp_path / "backbone.safetensors"
    save_file(state, path)
    found = restore_backbone(path)
    model = found.config.model
    ours = name.replace("r", "iresnet") if name in BLOCKS else f"insight_{name}"
    assert (model.name, model.embedding_dim, found.step) == (ours, 32, 0)
    images = torch.rand(2, 3, 112, 112) * 2 - 1
    with torch.no_grad():
        expected, given = compute(state, x=images), found.model.backbone(images)
    assert expected.std() > 0.1
    assert torch.allclose(given, expected.float(), atol=1e-3 * float(expected.std()))
    again = theirs(found.model.state_dict(), ours)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[key], tensor) for key, tensor in state.items())


def drawn(number):
    return encode_jpeg(
        np.random.default_rng(number).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    )


def test_a_run_starts_from_it_and_its_sets_are_measured(r18, tmp_path):
    """On two ranks under ZeRO 3, beside a head by ranges; at a rate that changes nothing."""
    path, state = r18[0].with_name("whole.safetensors"), r18[1]
    pairs = [EncodedPair(drawn(i), drawn(i), i % 2, 0) for i in range(4)]
    write_pack(tmp_path / "train", pairs, 4, identities=["a", "b"], kinds=["blur"])
    (tmp_path / "run.toml").write_text(f"""
run = {{dir = "{tmp_path}/run", device = "cpu"}}
data = {{train = "{tmp_path}/train", reader = "python"}}
model = {{name = "iresnet18", embedding_dim = 32, init_from = "{path}", init_head = false}}
head = {{placement = "sharded"}}
optimizer = {{lr = 1e-12}}
train = {{steps = 1, global_batch_pairs = 4, zero_stage = 3}}
""")
    done = python("-m", "distill", "train", str(tmp_path / "run.toml"), "--ranks", "2")
    assert done.returncode == 0, done.stderr
    assert f"backbone of {path}; 2 people, all new" in done.stderr
    ours = load_file(tmp_path / "run" / "model.safetensors")
    some = {"conv1": "stem.0", "layer3.1.conv2": "stages.2.1.body.4", "fc": "embedding.3"}
    for there, mine in some.items():
        assert torch.allclose(ours[f"backbone.{mine}.weight"], state[f"{there}.weight"], atol=1e-6)
    images = [drawn(i) for i in range(20)]
    (tmp_path / "lfw.bin").write_bytes(pickle.dumps((images, [True, False] * 5)))
    asked = ["evaluate", str(path), str(tmp_path / "lfw.bin"), "--json", "--out", str(tmp_path)]
    told = CliRunner().invoke(build_app(), asked)
    assert told.exit_code == 0, told.exception
    assert json.loads(told.stdout)["checkpoint"]["name"] == "whole.safetensors"


def test_what_is_no_such_backbone_is_refused(r18, tmp_path):
    path, state = r18
    cases = {
        "number of blocks is": {n: t for n, t in state.items() if not n.startswith("layer3.")},
        "number of blocks": {**state, "layer3.2.bn1.weight": torch.ones(256)},
        "'layer1.0.se.weight' has no place": {**state, "layer1.0.se.weight": torch.ones(1)},
        "features.weight is not one": {**state, "features.weight": 2 * torch.ones(32)},
    }
    for words, spoilt in cases.items():
        save_file(spoilt, tmp_path / "spoilt.safetensors")
        with pytest.raises(UserError, match=words):
            restore_backbone(tmp_path / "spoilt.safetensors")
    missing = {name: tensor for name, tensor in state.items() if "layer2.0.bn2" not in name}
    save_file(missing, tmp_path / "missing.safetensors")
    with pytest.raises(UserError, match=r"stages\.1\.0\.body\.2"):
        restore_backbone(tmp_path / "missing.safetensors")
    with pytest.raises(UserError, match="knows no people"):
        restore(path)


@pytest.mark.parametrize("old", [False, True])
def test_a_pickle_is_named_and_not_opened(r18, tmp_path, old):
    torch.save(r18[1], tmp_path / "backbone.pth", _use_new_zipfile_serialization=not old)
    with pytest.raises(UserError, match=r"is a pickle of torch.*docs/arcface\.md"):
        restore_backbone(Path(tmp_path / "backbone.pth"))


def test_weights_that_begin_as_a_pickle_does_are_read(r18, tmp_path):
    """Every 32nd length of a header has the first byte of a pickle."""
    path = tmp_path / "backbone.safetensors"
    for length in range(0, 256, 8):
        save_file(r18[1], path, {"about": "x" * length})
        if path.read_bytes()[0] == 0x80:
            break
    assert path.read_bytes()[0] == 0x80
    restore_backbone(path)


def blocks_of(language):
    """What docs/arcface.md shows in a language."""
    text = (ROOT / "docs" / "arcface.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def run_block(code, *words, where):
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], cwd=where, check=False,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("inside", [False, True])
def test_the_documented_lines_turn_a_pickle_into_safetensors(r18, tmp_path, inside):
    convert, *_ = blocks_of("python")
    state = {"epoch": 3, "state_dict_backbone": r18[1]} if inside else r18[1]
    torch.save(state, tmp_path / "backbone.pth")
    run_block(convert, "backbone.pth", "backbone.safetensors", where=tmp_path)
    found = load_file(tmp_path / "backbone.safetensors")
    assert found.keys() == r18[1].keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in r18[1].items())


def test_the_documented_lines_join_the_head_in_the_order_of_its_ranks(tmp_path):
    """Of 11 ranks, so that the order is not that of the letters; as PartialFC_V2 shares 25 out."""
    convert, *_ = blocks_of("python")
    labels = torch.arange(25.0)[:, None].expand(25, 3)
    start = 0
    for rank in range(11):
        count = 25 // 11 + (rank < 25 % 11)
        state = {
            "epoch": 2,
            "global_step": 80,
            "state_dict_backbone": {"conv1.weight": torch.full((2,), 1.0 + rank)},
            "state_dict_softmax_fc": {"weight": labels[start : start + count].clone()},
        }
        torch.save(state, tmp_path / f"checkpoint_gpu_{rank}.pt")
        start += count
    files = sorted(path.name for path in tmp_path.glob("checkpoint_gpu_*.pt"))
    assert files[2] == "checkpoint_gpu_10.pt"
    run_block(convert, *files, "whole.safetensors", where=tmp_path)
    found = load_file(tmp_path / "whole.safetensors")
    assert found.keys() == {"conv1.weight", HEAD}
    assert torch.equal(found[HEAD], labels) and found["conv1.weight"].tolist() == [1.0, 1.0]
    torch.save({**state, "global_step": 81}, tmp_path / files[1])
    with pytest.raises(AssertionError, match="of different steps"):
        run_block(convert, *files, "mixed.safetensors", where=tmp_path)


@pytest.mark.parametrize("name", ["r18", "mbf"])
def test_it_is_exported_as_it_came(name, tmp_path):
    state, path, out = WRITTEN[name][0](), tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    save_file(state, path)
    done = CliRunner().invoke(build_app(), ["export", str(path), str(out)])
    assert done.exit_code == 0, done.exception
    found = load_file(out)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in state.items())


# Of the sorted lines "name shape" of state_dict() of arcface_torch's networks with 512 numbers of
# an embedding (2026-07-27), the first eight bytes of SHA-256.
VIT_T, VIT_S, VIT_B = "f49edb5df3d3deb3", "80d38dc0608bd679", "817876b06d60f50c"
DIGESTS = {
    "iresnet18": "6bdb508fbe8f9172",
    "iresnet34": "88f842de492690dd",
    "iresnet50": "d80a68220d7280f1",
    "iresnet100": "dc48aa67c7449a7c",
    "iresnet200": "be360d6469b1859b",
    "insight_vit_t": VIT_T,
    "insight_vit_t_dp005_mask0": VIT_T,
    "insight_vit_s": VIT_S,
    "insight_vit_s_dp005_mask_0": VIT_S,
    "insight_vit_b": VIT_B,
    "insight_vit_b_dp005_mask_005": VIT_B,
    "insight_vit_l_dp005_mask_005": "21a6114aa2984380",
    "insight_vit_h": "ae371719ce448344",
    "insight_mbf": "a5470f4e8d3847b1",
    "insight_mbf_large": "e93eb03a7306f387",
}
NAMED_AS = {VIT_T: "insight_vit_t", VIT_S: "insight_vit_s", VIT_B: "insight_vit_b"}
"""Of networks that differ in training alone the name of one."""


@pytest.mark.parametrize("name", DIGESTS)
def test_every_name_and_shape_is_theirs_and_is_found_again(name):
    with torch.device("meta"):
        ours = build_backbone(name, embedding_dim=512).state_dict()
    expected = {f"{BACKBONE_PREFIX}{own}": tensor for own, tensor in ours.items()}
    found = theirs(expected, name)
    assert is_arcface(found)
    shapes = {there: tuple(tensor.shape) for there, tensor in found.items()}
    lines = "\n".join(sorted(f"{there} {shape}" for there, shape in shapes.items()))
    assert hashlib.sha256(lines.encode()).hexdigest()[:16] == DIGESTS[name]
    named = {"name": NAMED_AS.get(DIGESTS[name], name), "embedding_dim": 512}
    assert model_settings(shapes) == named
    fixed = {None: ANY} if name.startswith("iresnet") else {}
    again = {own_name(there, name): tensor for there, tensor in found.items()}
    assert again == expected | fixed


def test_a_network_that_is_not_of_there_has_no_names_of_there():
    assert theirs({}, "vit_small") is None
    assert not is_arcface(["backbone.stem.0.weight", "pos_embed", "patch_embed.proj.weight"])


def test_the_documented_lines_use_what_is_exported(r18, tmp_path):
    _, use = blocks_of("python")
    done = CliRunner().invoke(build_app(), ["export", str(r18[0]), str(tmp_path / "face.pt2")])
    assert done.exit_code == 0, done.exception
    cv2.imwrite(str(tmp_path / "face.png"), 64 * np.ones((112, 112, 3), np.uint8))
    run_block(use + "\ntorch.save(embedding, 'embedding')\n", where=tmp_path)
    bgr = torch.full((1, 3, 112, 112), 64.0)
    expected = by_hand(r18[1], BLOCKS["r18"], (bgr - 127.5) / 127.5)
    given = torch.load(tmp_path / "embedding")
    assert torch.allclose(given, expected, atol=1e-3 * float(expected.std()))


def test_the_documented_settings_are_settings(tmp_path):
    (settings,) = blocks_of("toml")
    (tmp_path / "run.toml").write_text(settings)
    config = load_config(tmp_path / "run.toml")
    assert (config.head.margin, config.optimizer.lr_batch_pairs) == ("arcface", 0)
    tree = config.model_dump()
    text = (ROOT / "docs" / "arcface.md").read_text()
    named = re.findall(r"`([a-z]+)\.([a-z_0-9]+)(?: = [^`]*)?`", text)
    known = [pair for pair in named if pair[0] in tree and pair[1] not in FILES]
    assert len(known) > 25 and all(key in tree[section] for section, key in known)
