"""A head from its settings."""

from __future__ import annotations

from distill.config.tree import HeadConfig
from distill.errors import UserError
from distill.heads.adaface import AdaFace
from distill.heads.replicated import CosineHead, LinearHead
from distill.heads.rows import ClassRanges
from distill.heads.sharded import ShardedHead


def build_head(
    config: HeadConfig, embedding_dim: int, classes: int, keep: range | None = None
) -> LinearHead | CosineHead:
    """The head that ``config`` asks for, from ``embedding_dim`` to ``classes``.

    Its margin belongs to the loss (`distill.losses.PairLossSpec`).

    Args:
        config: the settings; where they would place it does not matter here.
        embedding_dim: D.
        classes: C.
        keep: classes whose rows are wanted; all by default. The others are drawn and dropped.

    Raises:
        UserError: as `check_kind`.
    """
    check_kind(config)
    if config.kind == "cosine":
        return CosineHead(embedding_dim, classes, config.scale, keep, config.sub_centres)
    return LinearHead(embedding_dim, classes, keep)


def check_kind(config: HeadConfig) -> None:
    """Refuse what a linear head has not.

    Raises:
        UserError: a margin or several sub-centres with a linear head.
    """
    if config.kind == "cosine":
        return
    if config.margin != "none":
        raise UserError(
            f"head.margin = {config.margin!r}: a linear head has no cosine to put a margin on",
            fix="set head.kind = 'cosine' or head.margin = 'none'",
        )
    if config.sub_centres > 1:
        raise UserError(
            f"head.sub_centres = {config.sub_centres}: a linear head has one weight and one bias"
            " of an identity, and no cosine to take the largest of",
            fix="set head.kind = 'cosine' or head.sub_centres = 1",
        )


def build_sharded_head(config: HeadConfig, embedding_dim: int, ranges: ClassRanges) -> ShardedHead:
    """This rank's part of the head that `build_head` would make, to the bit.

    Raises:
        UserError: as `build_head`.
    """
    local = build_head(config, embedding_dim, ranges.classes, ranges.mine)
    return ShardedHead(local, ranges)


def build_adaface(config: HeadConfig) -> AdaFace | None:
    """What finds margins by the length of embeddings, where ``config`` asks for it."""
    if config.margin != "adaface":
        return None
    return AdaFace(config.adaface_margin, config.adaface_h, config.adaface_decay)
