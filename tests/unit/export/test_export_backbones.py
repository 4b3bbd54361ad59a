"""Backbones that are built in, and those of timm, as files."""

from __future__ import annotations

import sys
import types
from itertools import pairwise

import pytest
import torch
from small_networks import close, export, floats, in_runtime, write_weights

from distill.config.tree import Config, ModelConfig
from distill.export import as_onnx
from distill.export.wanted import Form, Wanted
from distill.models.registry import build_backbone
from distill.trained import restore_backbone


def of_timm(monkeypatch):
    """A stand-in for the two calls of timm that are used; real ones were tried, docs/export.md."""

    def create_model(name, pretrained, num_classes, **options):
        made = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, 4), torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten()
        )
        made.num_features = 32
        return made

    fake = types.SimpleNamespace(is_model=lambda name: True, create_model=create_model)
    monkeypatch.setitem(sys.modules, "timm", fake)


@pytest.mark.parametrize("ending", list(Form))
def test_a_backbone_of_timm_is_exported(tmp_path, monkeypatch, pixels, ending):
    of_timm(monkeypatch)
    path = tmp_path / "model.safetensors"
    model = write_weights(path, Config(model=ModelConfig(name="timm:any", embedding_dim=16)))
    out = tmp_path / f"face.{ending}"
    done = export(path, out)
    assert done.exit_code == 0, done.exception
    if ending is Form.SAFETENSORS:
        found = restore_backbone(out).model.backbone(floats(pixels[1]))
    elif ending is Form.PT2:
        found = torch.export.load(out).module()(floats(pixels[1]))
    else:
        found = torch.from_numpy(in_runtime(out).run(None, {"data": floats(pixels[1]).numpy()})[0])
    expected = model.double().backbone(floats(pixels[1]).double())
    assert close(found.detach(), expected.detach())


def shortened(backbone: torch.nn.Module) -> torch.nn.Module:
    """Without layers that are like the one before: as many operators, fewer times over."""
    for name in {"blocks", "layers"} & dict(backbone.named_children()).keys():
        parts = list(backbone.get_submodule(name))
        kept = [b for a, b in pairwise([None, *parts]) if str(a) != str(b)]
        assert 0 < len(kept) < len(parts)
        setattr(backbone, name, torch.nn.Sequential(*kept))
    return backbone


@pytest.mark.slow
@pytest.mark.parametrize("name", ["iresnet18", "mobile", "vit_small", "insight_vit_t"])
def test_every_backbone_becomes_onnx(name, tmp_path, pixels):
    torch.manual_seed(1)
    backbone = shortened(build_backbone(name, embedding_dim=32)).eval()
    wanted = Wanted(Form.ONNX)
    as_onnx.write_onnx(
        tmp_path / "face.onnx", torch.nn.Sequential(backbone), wanted.takes, wanted.gives, {}
    )
    with torch.no_grad():
        expected = backbone(floats(pixels[1]))
    given = as_onnx.run_onnx(tmp_path / "face.onnx", floats(pixels[1]))
    assert torch.allclose(given, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
