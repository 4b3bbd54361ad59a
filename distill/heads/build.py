"""A head from its settings."""

from __future__ import annotations

from distill.config.tree import HeadConfig
from distill.errors import UserError
from distill.heads.margin import Margin
from distill.heads.replicated import CosineHead, LinearHead


def build_head(config: HeadConfig, embedding_dim: int, classes: int) -> LinearHead | CosineHead:
    """The head that ``config`` asks for, from ``embedding_dim`` to ``classes``.

    Raises:
        UserError: a margin with a linear head.
    """
    margin = margin_of(config)
    if config.kind == "cosine":
        return CosineHead(embedding_dim, classes, config.scale, margin)
    if margin is not None:
        raise UserError(
            f"head.margin = {config.margin!r}: a linear head has no cosine to put a margin on",
            fix="set head.kind = 'cosine' or head.margin = 'none'",
        )
    return LinearHead(embedding_dim, classes)


def margin_of(config: HeadConfig) -> Margin | None:
    """The margin that ``config`` asks for, or None."""
    angle = config.arc_margin_rad if config.margin in ("arcface", "combined") else 0.0
    cosine = config.cos_margin if config.margin in ("cosface", "combined") else 0.0
    return Margin(angle, cosine) if config.margin != "none" else None
