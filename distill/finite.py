"""What a network whose weights have diverged says is refused, in one way everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    import torch


def check_finite(rows: torch.Tensor, given: str, things: str, where: Path | None = None) -> None:
    """Refuse rows (N, n) with NaN or infinity.

    Args:
        rows: a row for each thing that the network was asked about.
        given: what a row is, ``embeddings`` or ``answers``.
        things: what it is of, ``images`` or ``templates``.
        where: the weights or the set that the mistake is named by.

    Raises:
        UserError: how many rows have them.
    """
    broken = int((~rows.isfinite().all(1)).sum())
    if broken:
        named = f"{where}: " if where else ""
        raise UserError(
            f"{named}the {given} of {broken} of {len(rows)} {things} are not finite",
            fix="the weights have diverged: take an older checkpoint, or train at a lower lr",
        )
