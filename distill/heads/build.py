"""A head from its settings."""

from __future__ import annotations

from distill.config.tree import HeadConfig
from distill.errors import UserError
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
