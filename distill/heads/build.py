"""A head from its settings."""

from __future__ import annotations

from distill.config.tree import HeadConfig
from distill.errors import UserError
from distill.heads.adaface import AdaFace
from distill.heads.replicated import CosineHead, LinearHead


def build_head(config: HeadConfig, embedding_dim: int, classes: int) -> LinearHead | CosineHead:
    """The head that ``config`` asks for, from ``embedding_dim`` to ``classes``.

    Its margin belongs to the loss (`distill.losses.PairLossSpec`).

    Raises:
        UserError: a margin with a linear head.
    """
    if config.kind == "cosine":
        return CosineHead(embedding_dim, classes, config.scale)
    if config.margin != "none":
        raise UserError(
            f"head.margin = {config.margin!r}: a linear head has no cosine to put a margin on",
            fix="set head.kind = 'cosine' or head.margin = 'none'",
        )
    return LinearHead(embedding_dim, classes)


def build_adaface(config: HeadConfig) -> AdaFace | None:
    """What finds margins by the length of embeddings, where ``config`` asks for it."""
    if config.margin != "adaface":
        return None
    return AdaFace(config.adaface_margin, config.adaface_h, config.adaface_decay)
