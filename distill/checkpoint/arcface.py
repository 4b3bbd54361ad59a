"""Networks that InsightFace's arcface_torch trained: the same as ours under other names.

Its ``iresnet.py`` and our `distill.models.iresnet` are layer by layer alike. Of the batch
normalisation at the end it keeps a scale that it fixes at one; ours has none. Its head
(``partial_fc_v2.py``) is cosine and without bias, as ours: one row a label, the labels in ranges of
equal length over the ranks, in their order, of which the first ones are longer by one if need be.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch

from distill.models.iresnet import DEPTHS

BACKBONE_PREFIX = "backbone."
HEAD = "softmax_fc.weight"
"""What docs/arcface.md calls the head, (C, D), the ``weight`` of each ``state_dict_softmax_fc``."""
OWN_HEAD = "head.weight"
FIXED_SCALE = "features.weight"
"""Its tensor of ones that has no place here."""
MARKS = ("conv1.weight", "layer1.0.bn1.weight", "fc.weight", FIXED_SCALE)
"""Names by which its state is known."""

_BEGIN_AND_END = {
    "conv1": "stem.0",
    "bn1": "stem.1",
    "prelu": "stem.2",
    "bn2": "embedding.0",
    "fc": "embedding.3",
}
_IN_A_BLOCK = {
    "bn1": "body.0",
    "conv1": "body.1",
    "bn2": "body.2",
    "prelu": "body.3",
    "conv2": "body.4",
    "bn3": "body.5",
    "downsample.0": "shortcut.0",
    "downsample.1": "shortcut.1",
}
_BLOCK = re.compile(r"layer([1-4])\.(\d+)\.(.+)")
_OWN_BLOCK = re.compile(r"stages\.([0-3])\.(\d+)\.(.+)")


def is_arcface(names: Iterable[str]) -> bool:
    """Whether these are the tensors of one of its residual networks."""
    return set(MARKS) <= set(names)


def own_name(name: str) -> str | None:
    """What this program calls a tensor of arcface_torch; None for one that it does not have."""
    if name == FIXED_SCALE:
        return None
    if name == HEAD:
        return OWN_HEAD
    layer, _, kind = name.rpartition(".")
    if layer == "features":
        return f"{BACKBONE_PREFIX}embedding.4.{'bias' if kind == 'bias' else f'norm.{kind}'}"
    block = _BLOCK.fullmatch(layer)
    if block is None:
        return _joined(_BEGIN_AND_END.get(layer), kind)
    stage, place, part = block.groups()
    inside = _IN_A_BLOCK.get(part)
    return _joined(inside and f"stages.{int(stage) - 1}.{place}.{inside}", kind)


def theirs(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors of one of our residual networks as a state of arcface_torch: `own_name` backwards."""
    named = {_their_name(name): tensor for name, tensor in tensors.items()}
    return {**named, FIXED_SCALE: torch.ones_like(named["features.bias"])}


def _their_name(name: str) -> str:
    layer, _, kind = name.removeprefix(BACKBONE_PREFIX).rpartition(".")
    if layer in ("embedding.4", "embedding.4.norm"):
        return f"features.{kind}"
    block = _OWN_BLOCK.fullmatch(layer)
    if block is None:
        return f"{_key_of(_BEGIN_AND_END, layer)}.{kind}"
    stage, place, inside = block.groups()
    return f"layer{int(stage) + 1}.{place}.{_key_of(_IN_A_BLOCK, inside)}.{kind}"


def _key_of(named: Mapping[str, str], value: str) -> str:
    (key,) = (key for key, known in named.items() if known == value)
    return key


def _joined(layer: str | None, kind: str) -> str | None:
    return f"{BACKBONE_PREFIX}{layer}.{kind}" if layer else None


def model_settings(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str | int] | None:
    """The section ``model`` of the settings for tensors of these shapes; None for no such depth."""
    blocks = [_BLOCK.fullmatch(name.rpartition(".")[0]) for name in shapes]
    places = [(int(block[1]), int(block[2])) for block in blocks if block]
    depths = tuple(
        max((place for stage, place in places if stage == wanted), default=-1) + 1
        for wanted in (1, 2, 3, 4)
    )
    names = [name for name, known in DEPTHS.items() if known == depths]
    return {"name": names[0], "embedding_dim": shapes["fc.weight"][0]} if names else None
