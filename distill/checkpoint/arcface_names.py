"""What the layers of a network are called in InsightFace's arcface_torch, and what here.

Read from its `backbones/` (2026-07-27). The name of a layer stands for all its tensors; a tensor
that belongs to none, or whose name is another than that of its layer, stands by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from distill.models.insight_vit import VARIANTS
from distill.models.iresnet import DEPTHS
from distill.models.mobile import INSIGHT, Table

_IRESNET = {
    "conv1": "stem.0",
    "bn1": "stem.1",
    "prelu": "stem.2",
    "bn2": "embedding.0",
    "fc": "embedding.3",
    "features": "embedding.4.norm",
    "features.bias": "embedding.4.bias",
}
_IRESNET_BLOCK = {
    "bn1": "body.0",
    "conv1": "body.1",
    "bn2": "body.2",
    "prelu": "body.3",
    "conv2": "body.4",
    "bn3": "body.5",
    "downsample.0": "shortcut.0",
    "downsample.1": "shortcut.1",
}
_VIT = {
    "patch_embed.proj": "patches",
    "pos_embed": "positions",
    "mask_token": "hidden_token",
    "norm": "norm",
    **{f"feature.{place}": f"embedding.{place + 1}" for place in range(4)},
}
_VIT_BLOCK = {
    "norm1": "attention.0",
    "attn.qkv": "attention.1.qkv",
    "attn.proj": "attention.1.out",
    "norm2": "perceptron.0",
    "mlp.fc1": "perceptron.1",
    "mlp.fc2": "perceptron.3",
}
_MOBILE = {
    "features.layers.0.layers.0": "embedding.0",
    "features.layers.0.layers.1": "embedding.1",
    "features.layers.2": "embedding.4",
    "features.layers.3": "embedding.5",
}


@cache
def layers_of(network: str) -> dict[str, str] | None:
    """Our name of each layer by theirs, of one of our networks; None where it is not one of there.

    Those of a block that has fewer layers, as one without a shortcut, are among them too.
    """
    if network in DEPTHS:
        return _IRESNET | _iresnet_blocks(DEPTHS[network])
    if network in VARIANTS:
        blocks = [(f"blocks.{n}", f"layers.{n}") for n in range(VARIANTS[network].depth)]
        return _VIT | _inside(blocks, _VIT_BLOCK)
    if network in INSIGHT:
        return _MOBILE | _mobile_layers(INSIGHT[network])
    return None


def _iresnet_blocks(depths: tuple[int, ...]) -> dict[str, str]:
    blocks = [
        (f"layer{stage + 1}.{place}", f"stages.{stage}.{place}")
        for stage, depth in enumerate(depths)
        for place in range(depth)
    ]
    return _inside(blocks, _IRESNET_BLOCK)


def _inside(blocks: list[tuple[str, str]], layers: dict[str, str]) -> dict[str, str]:
    return {f"{b}.{part}": f"{ours}.{name}" for b, ours in blocks for part, name in layers.items()}


def _mobile_layers(table: Table) -> dict[str, str]:
    stems = [(f"layers.{place}", f"stem.{place}") for place in range(1 + table.filtered)]
    named = {
        f"{theirs}.layers.{part}": f"{ours}.{part}"
        for theirs, ours in [*stems, ("conv_sep", "widen")]
        for part in range(3)
    }
    for block, theirs in enumerate(_bottlenecks(table, len(stems))):
        for part in range(3):
            for inside in range(3):
                named[f"{theirs}.{part}.layers.{inside}"] = f"blocks.{block}.body.{part}.{inside}"
    return named


def _bottlenecks(table: Table, place: int) -> Iterator[str]:
    """Each that halves the image is a layer of its own there; those behind it are one together.

    Args:
        table: the network.
        place: of the first of these layers.
    """
    for row in table.rows:
        halving = row.stride > 1
        if halving:
            yield f"layers.{place}.layers"
            place += 1
        for run in range(row.repeats - halving):
            yield f"layers.{place}.layers.{run}.layers"
        place += row.repeats > halving
