"""Backbones by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from torch import nn

from distill.errors import UserError
from distill.models.insight_vit import VARIANTS, InsightVit, Variant
from distill.models.iresnet import DEPTHS, IResNet
from distill.models.mobile import INSIGHT, MobileFaceNet, Table
from distill.models.tiny import Tiny
from distill.models.vit import VisionTransformer

TIMM_PREFIX = "timm:"

Builder = Callable[[int, float], nn.Module]
"""Takes the embedding dimension D and the dropout."""


def _iresnet(depths: tuple[int, ...]) -> Builder:
    return lambda embedding_dim, dropout: IResNet(depths, embedding_dim, dropout)


def _insight_vit(variant: Variant) -> Builder:
    return lambda embedding_dim, dropout: InsightVit(variant, embedding_dim, dropout)


def _insight_mobile(table: Table) -> Builder:
    return lambda embedding_dim, dropout: MobileFaceNet(embedding_dim, dropout, table)


BACKBONES: dict[str, Builder] = {
    **{name: _iresnet(depths) for name, depths in DEPTHS.items()},
    **{name: _insight_vit(variant) for name, variant in VARIANTS.items()},
    **{name: _insight_mobile(table) for name, table in INSIGHT.items()},
    "mobile": MobileFaceNet,
    "vit_small": VisionTransformer,
    "tiny": Tiny,
}


def backbone_names() -> list[str]:
    """The registered names, residual networks first; ``timm:NAME`` is not among them."""
    return list(BACKBONES)


def build_backbone(name: str, *, embedding_dim: int, dropout: float = 0.0) -> nn.Module:
    """A freshly initialised backbone: (N, 3, 112, 112) float in [-1, 1] to embeddings (N, D).

    The weights come from torch's global generator: the same seed gives the same weights.

    Args:
        name: one of :func:`backbone_names`, or ``timm:NAME``.
        embedding_dim: D.
        dropout: probability of the dropout before the embedding layer, in [0, 1).

    Raises:
        UserError: the name is unknown, or timm is asked for and missing.
    """
    if name.startswith(TIMM_PREFIX):
        from distill.models.timm_backbone import build_timm

        return build_timm(name.removeprefix(TIMM_PREFIX), embedding_dim, dropout)
    check_backbone(name)
    return BACKBONES[name](embedding_dim, dropout)


def check_backbone(name: str) -> None:
    """Refuse what `build_backbone` would; nothing is built.

    Raises:
        UserError: the name is unknown, or timm is asked for and missing.
    """
    if name.startswith(TIMM_PREFIX):
        from distill.models.timm_backbone import timm_with

        timm_with(name.removeprefix(TIMM_PREFIX))
    elif name not in BACKBONES:
        raise unknown_name("model.name", name, backbone_names())


def unknown_name(field: str, name: str, known: list[str]) -> UserError:
    """The error for a name that is not in ``known``, with the nearest one that is."""
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return UserError(
        f"{field} = {name!r}: no such backbone", fix=f"{hint}known: {', '.join(known)}"
    )
