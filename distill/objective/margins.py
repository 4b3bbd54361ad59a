"""Margins that each image has by itself: those of AdaFace, and those without a slope of their own.

A margin takes c to psi(c) (`distill.losses.margin`). arcface_torch computes psi with gradients
switched off (``losses.py``, `CombinedMarginLoss`), so the gradient of the loss with respect to
psi reaches the cosine as it is: as if psi's slope were one. The same is a margin c - psi(c) on
the cosine that is a constant of each image, and so it is given to the loss (`head.margin_slope`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from distill.heads import AdaFace
from distill.heads.replicated import largest, unit
from distill.losses import PairLossSpec, RowMargins
from distill.losses.margin import margined

if TYPE_CHECKING:
    from distill.config.tree import Config, HeadConfig
    from distill.engine import Engine


def spec_of(config: Config) -> PairLossSpec:
    """What the loss is told: without the margin where it is given that of each image."""
    spec = PairLossSpec.of_run(config)
    if constant_slope(config.head):
        return replace(spec, margin_angle_rad=0.0, margin_cosine=0.0)
    return spec


def constant_slope(head: HeadConfig) -> bool:
    """Whether a margin has a slope that is to be left out."""
    return head.margin_slope == "one" and head.margin in ("arcface", "combined")


def own_margins(
    head: HeadConfig,
    engine: Engine,
    embeddings: torch.Tensor,
    own_cosines: Callable[[], torch.Tensor],
) -> RowMargins | None:
    """Margins of this rank's images; None where the loss knows them. With AdaFace a collective.

    Args:
        head: the settings.
        engine: whose network may have AdaFace's running lengths.
        embeddings: (N, D).
        own_cosines: gives the cosines of the images with their own classes, (N,).
    """
    if constant_slope(head):
        return margins_at(head, own_cosines())
    return adaface_margins(head, engine, embeddings)


def adaface_margins(
    head: HeadConfig, engine: Engine, embeddings: torch.Tensor
) -> RowMargins | None:
    """Margins of this rank's images by their lengths; None where AdaFace is not asked for."""
    if head.margin != "adaface":
        return None
    adaface = engine.module.adaface
    assert isinstance(adaface, AdaFace), "the network was built with other settings"
    return RowMargins(*adaface(embeddings))


@torch.no_grad()
def margins_at(head: HeadConfig, cosines: torch.Tensor) -> RowMargins:
    """The margins of `head` at cosines (N,), as constants of each image."""
    cosine = head.cos_margin if head.margin == "combined" else 0.0
    taken = cosines - margined(cosines, head.arc_margin_rad, cosine)
    return RowMargins(torch.zeros_like(taken), taken)


def own_scores(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Of scores (N, C) those of the own classes, (N,); of class 0 where there is none (-1)."""
    return scores.detach().gather(1, labels.clamp_min(0)[:, None])[:, 0]


@torch.no_grad()
def cosines_with(
    embeddings: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Cosines of embeddings (N, D) with the rows of their own classes, (N,), in float32 or wider.

    Args:
        embeddings: (N, D).
        weight: (C, D), or (C, K, D) of sub-centres, of which the nearest counts.
        labels: (N,) int64 below C; -1 for none takes class 0.
    """
    rows = weight.index_select(0, labels.clamp_min(0))
    with torch.autocast(embeddings.device.type, enabled=False):
        whole = rows.view(len(rows), -1, rows.shape[-1])
        scores = (unit(whole) * unit(embeddings)[:, None]).sum(2)
    return largest(scores, scores.shape[1])[:, 0]
