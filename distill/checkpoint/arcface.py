"""Networks that InsightFace's arcface_torch trained: the same as ours under other names.

Its ``iresnet.py``, ``vit.py`` and ``mobilefacenet.py`` are layer by layer alike ours
(`distill.models`). Of the batch normalisation at the end of an iresnet it keeps a scale that it
fixes at one; ours has none. Its head (``partial_fc_v2.py``) is cosine and without bias, as ours:
one row a label, the labels in ranges of equal length over the ranks, in their order, of which the
first ones are longer by one if need be.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch

from distill.checkpoint.arcface_names import layers_of
from distill.models.insight_vit import VARIANTS
from distill.models.iresnet import DEPTHS
from distill.models.mobile import INSIGHT

BACKBONE_PREFIX = "backbone."
HEAD = "softmax_fc.weight"
"""What docs/arcface.md calls the head, (C, D), the ``weight`` of each ``state_dict_softmax_fc``."""
OWN_HEAD = "head.weight"
FIXED_SCALE = "features.weight"
"""Its tensor of ones that has no place here, of an iresnet."""

Shapes = Mapping[str, tuple[int, ...]]

_IRESNET_MARKS = {"conv1.weight", "layer1.0.bn1.weight", "fc.weight", FIXED_SCALE}
_VIT_MARKS = {"pos_embed", "mask_token", "patch_embed.proj.weight", "feature.2.weight"}
_MOBILE_MARKS = {"layers.0.layers.0.weight", "conv_sep.layers.0.weight", "features.layers.2.weight"}
"""Names by which states are known."""


def is_arcface(names: Iterable[str]) -> bool:
    """Whether these are the tensors of one of its networks."""
    found = set(names)
    return any(marks <= found for marks in (_IRESNET_MARKS, _VIT_MARKS, _MOBILE_MARKS))


def own_name(name: str, network: str) -> str | None:
    """What ``network``, by our name, calls a tensor of arcface_torch here; None for one without."""
    if name == HEAD:
        return OWN_HEAD
    found = None if name == FIXED_SCALE else _renamed(name, layers_of(network) or {})
    return found and f"{BACKBONE_PREFIX}{found}"


def theirs(tensors: Mapping[str, torch.Tensor], network: str) -> dict[str, torch.Tensor] | None:
    """Tensors of a backbone as a state of arcface_torch: `own_name` backwards.

    Returns:
        None where it has no such network.
    """
    layers = layers_of(network)
    if layers is None:
        return None
    backwards = {ours: there for there, ours in layers.items()}
    state = {}
    for name, tensor in tensors.items():
        renamed = _renamed(name.removeprefix(BACKBONE_PREFIX), backwards)
        assert renamed is not None, name
        state[renamed] = tensor
    if network in DEPTHS:
        state[FIXED_SCALE] = torch.ones_like(state["features.bias"])
    return state


def _renamed(name: str, layers: Mapping[str, str]) -> str | None:
    """A tensor by its own entry, or by that of its layer."""
    layer, _, kind = name.rpartition(".")
    return layers.get(name) or (f"{layers[layer]}.{kind}" if layer in layers else None)


def model_settings(shapes: Shapes) -> dict[str, str | int] | None:
    """The section ``model`` of the settings for tensors of these shapes; None for no such network.

    Where networks differ in training alone, it is the first of them.
    """
    names, last = _candidates(shapes)
    return {"name": names[0], "embedding_dim": shapes[last][0]} if names and shapes[last] else None


def _candidates(shapes: Shapes) -> tuple[list[str], str]:
    """Our names of the networks with such tensors, and the layer that makes the embedding."""
    if shapes.keys() >= _VIT_MARKS:
        size = (*shapes["pos_embed"][-1:], _count(shapes, "blocks"))
        alike = [name for name, one in VARIANTS.items() if (one.width, one.depth) == size]
        return alike, "feature.2.weight"
    if shapes.keys() >= _MOBILE_MARKS:
        stem = shapes["layers.0.layers.0.weight"][:1]
        alike = [name for name, one in INSIGHT.items() if (one.stem,) == stem]
        return alike, "features.layers.2.weight"
    depths = tuple(_count(shapes, f"layer{stage}") for stage in (1, 2, 3, 4))
    return [name for name, known in DEPTHS.items() if known == depths], "fc.weight"


def _count(shapes: Shapes, stage: str) -> int:
    """Blocks of a stage."""
    places = [re.match(rf"{stage}\.(\d+)\.", name) for name in shapes]
    return max((int(place[1]) for place in places if place), default=-1) + 1
