"""Backbones: sizes against arithmetic on the published tables, shapes, seeds, names."""

import sys
import types

import pytest
import torch
from torch import nn

from distill.errors import UserError
from distill.models import backbone_names, build_backbone

PUBLISHED_M = {
    "iresnet18": 24.03,
    "iresnet34": 34.14,
    "iresnet50": 43.59,
    "iresnet100": 65.16,
}
"""In millions; none is published for r200, which is held to the arithmetic and to its depth."""
TAKEN_OVER = ["insight_vit_t", "insight_vit_t_dp005_mask0", "insight_mbf"]
DEPTHS = {
    "iresnet18": (2, 2, 2, 2),
    "iresnet34": (3, 4, 6, 3),
    "iresnet50": (3, 4, 14, 3),
    "iresnet100": (3, 13, 30, 3),
    "iresnet200": (6, 26, 60, 6),
}


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def iresnet_arithmetic(depths, dim):
    """Parameters written out by hand from the layer table of the paper."""
    total = 3 * 9 * 64 + 2 * 64 + 64  # stem: convolution, batch norm, PReLU
    inputs = 64
    for outputs, blocks in zip((64, 128, 256, 512), depths, strict=True):
        for block in range(blocks):
            total += 2 * inputs + 9 * inputs * outputs + 2 * outputs + outputs
            total += 9 * outputs * outputs + 2 * outputs
            if block == 0:
                total += inputs * outputs + 2 * outputs
            inputs = outputs
    return total + 2 * 512 + (512 * 49 + 1) * dim + dim


@pytest.mark.parametrize("name", DEPTHS)
def test_iresnet_sizes(name):
    with torch.device("meta"):
        size = parameters(build_backbone(name, embedding_dim=512))
    assert size == iresnet_arithmetic(DEPTHS[name], 512)
    if name in PUBLISHED_M:
        assert size / 1e6 == pytest.approx(PUBLISHED_M[name], abs=0.006)


@pytest.mark.parametrize("name", DEPTHS)
def test_the_name_counts_the_layers_with_weights(name):
    """As in He et al., 2015, table 1: two a block, stem, last one; no shortcuts."""
    with torch.device("meta"):
        model = build_backbone(name, embedding_dim=8)
    layers = [
        key
        for key, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear) and "shortcut" not in key
    ]
    assert len(layers) == 2 * sum(DEPTHS[name]) + 2
    assert abs(len(layers) - int(name.removeprefix("iresnet"))) <= 2


VITS = {"t": (256, 12), "s": (512, 12), "b": (512, 24), "l": (768, 24), "h": (1024, 48)}
"""Numbers of a token, and layers."""


@pytest.mark.parametrize("name", [name for name in backbone_names() if "insight_vit" in name])
def test_insight_vit_sizes(name):
    """Written out by hand from the layers of arcface_torch's vit.py."""
    with torch.device("meta"):
        model = build_backbone(name, embedding_dim=512)
    width, depth = VITS[name[12]]
    layer = 3 * width * width + width * width + width  # queries, keys and values have no bias
    layer += 2 * 4 * width * width + 5 * width + 2 * 2 * width
    total = (3 * 9 * 9 + 1) * width + 144 * width + depth * layer + 2 * width
    total += 144 * width * width + 2 * width + width * 512 + 2 * 512
    hides = not name.endswith(("mask0", "mask_0", "_h"))
    assert parameters(model) == total + hides * width


@pytest.mark.parametrize(
    ("name", "size"), [("insight_mbf", 2_059_520), ("insight_mbf_large", 6_314_880)]
)
def test_insight_mbf_sizes(name, size):
    """As arcface_torch's own code makes them."""
    with torch.device("meta"):
        assert parameters(build_backbone(name, embedding_dim=512)) == size


def test_first_weights_of_insight_networks_are_drawn_as_there():
    """Of normals; He's for all of a mobile one, whose linear layer ours draws otherwise."""
    torch.manual_seed(0)
    vit, mbf = (build_backbone(name, embedding_dim=512) for name in TAKEN_OVER[1:])
    spreads = [(vit.positions, 0.02), (vit.hidden_token, 0.02), (vit.embedding[1].weight, 0.02)]
    spreads += [(vit.layers[5].attention[1].qkv.weight, 0.02), (vit.embedding[3].weight, 0.02)]
    spreads += [(mbf.embedding[4].weight, (2 / 512) ** 0.5)]
    spreads += [(mbf.stem[1][0].weight, (2 / (128 / 64 * 64 * 9)) ** 0.5)]
    for weight, spread in spreads:
        assert float(weight.detach().std()) == pytest.approx(spread, rel=0.15)
    for layer in (*vit.modules(), *mbf.modules()):
        if isinstance(layer, nn.LayerNorm | nn.BatchNorm1d | nn.BatchNorm2d):
            assert (layer.weight == 1).all() and (layer.bias == 0).all()
        elif isinstance(layer, nn.Linear) and layer.bias is not None:
            assert (layer.bias == 0).all()


def test_small_backbones_are_small():
    assert parameters(build_backbone("mobile", embedding_dim=128)) == pytest.approx(1e6, rel=0.01)
    assert parameters(build_backbone("tiny", embedding_dim=512)) <= 300_000
    assert 20e6 < parameters(build_backbone("vit_small", embedding_dim=512)) < 23e6


@pytest.mark.parametrize("name", ["iresnet18", "mobile", "vit_small", "tiny", *TAKEN_OVER])
def test_shape_gradient_and_seed(name):
    torch.manual_seed(5)
    model = build_backbone(name, embedding_dim=32, dropout=0.1)
    torch.manual_seed(5)
    twin = build_backbone(name, embedding_dim=32, dropout=0.1)
    for (key, one), other in zip(
        model.state_dict().items(), twin.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), key
    embeddings = model(torch.randn(3, 3, 112, 112))
    assert embeddings.shape == (3, 32)
    embeddings.square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key


def test_halves_agree_with_batch_norm_on_the_concatenated_batch():
    """Equal first and second images get equal embeddings in one pass, in training mode too."""
    model = build_backbone("tiny", embedding_dim=16)
    images = torch.randn(4, 3, 112, 112)
    both = model(torch.cat([images, images]))
    torch.testing.assert_close(both[:4], both[4:])
    torch.testing.assert_close(both, torch.cat([model(images)] * 2), atol=1e-5, rtol=1e-4)


def test_no_inplace_change_of_inputs_and_bf16():
    model = build_backbone("tiny", embedding_dim=16).eval()
    images = torch.randn(2, 3, 112, 112)
    kept = images.clone()
    full = model(images)
    assert torch.equal(images, kept)
    narrow = model.bfloat16()(images.bfloat16())
    assert narrow.dtype == torch.bfloat16
    assert torch.nn.functional.cosine_similarity(full, narrow.float()).min() > 0.99


def test_unknown_name_says_the_nearest():
    with pytest.raises(UserError, match=r"did you mean 'iresnet50'.*vit_small"):
        build_backbone("iresnet_50", embedding_dim=8)
    with pytest.raises(UserError, match="known: iresnet18"):
        build_backbone("zzz", embedding_dim=8)
    assert backbone_names()[-1] == "tiny"


def test_timm_missing_is_a_clear_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)  # makes the import fail as if not installed
    with pytest.raises(UserError, match=r"timm is not installed; .*`pip install .* timm.*`"):
        build_backbone("timm:resnet18", embedding_dim=8)


@pytest.mark.parametrize(
    "widths", [{"num_features": 12}, {"num_features": 3, "head_hidden_size": 12}]
)
def test_timm_network_gets_an_embedding(monkeypatch, widths):
    """Through a stand-in of the two timm calls that are used; the real one is an optional extra.

    What comes out of timm's mobilenetv3 and its like is wider than their last feature maps.
    """

    def create_model(name, pretrained, num_classes, **options):
        assert (pretrained, num_classes) == (False, 0)
        if options:
            raise TypeError("unexpected keyword argument 'img_size'")
        network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
        vars(network).update(widths)
        return network

    fake = types.SimpleNamespace(
        is_model=lambda name: name == "known",
        list_models=lambda pattern: ["known"],
        create_model=create_model,
    )
    monkeypatch.setitem(sys.modules, "timm", fake)
    assert build_backbone("timm:known", embedding_dim=8)(torch.randn(2, 3, 112, 112)).shape == (
        2,
        8,
    )
    with pytest.raises(UserError, match="did you mean known"):
        build_backbone("timm:now", embedding_dim=8)
