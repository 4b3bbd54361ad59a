"""The centres of a cosine head, read by ranges from its files; the head is never there whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

import torch
import torch.nn.functional as F

from distill.errors import UserError

if TYPE_CHECKING:
    from distill.checkpoint import Stored
    from distill.checkpoint.reader import Reader

WEIGHT = "head.weight"
"""Of a cosine head; a linear one has `head.linear.weight`."""


class Centres(NamedTuple):
    """Where the C K centres of C identities stand.

    Attributes:
        reader: of the weights' files.
        key: of the head there.
        shape: C, K and D.
        device: where rows are wanted.
    """

    reader: Reader
    key: str
    shape: tuple[int, int, int]
    device: torch.device

    @classmethod
    def of(cls, stored: Stored, device: torch.device) -> Self:
        """The centres of a trained network.

        Raises:
            UserError: it has none, or nobody knows whose they are.
        """
        kind = stored.config.get("head", {}).get("kind", "linear")
        if not stored.identities:
            raise UserError(
                f"{str(stored.origin)!r}: knows no people by name",
                fix="give a run that was trained on the pack",
            )
        if WEIGHT not in stored.shapes:
            raise UserError(
                f"{str(stored.origin)!r}: head.kind = {kind!r} has no centres that angles could be"
                " measured to",
                fix="train with head.kind = 'cosine'",
            )
        shape = stored.shapes[WEIGHT]
        classes, width = shape[0], shape[-1]
        sub_centres = shape[1] if len(shape) == 3 else 1
        return cls(stored.reader, stored.keys[WEIGHT], (classes, sub_centres, width), device)

    def rows(self, first: int, stop: int) -> torch.Tensor:
        """Those of the identities ``first`` to ``stop``, of unit length, (n, K, D) float32."""
        _, sub_centres, width = self.shape
        rows = torch.empty(stop - first, sub_centres, width)
        self.reader.copy_elements(self.key, first * sub_centres * width, rows.view(-1))
        return F.normalize(rows.to(self.device), dim=-1)

    def of_classes(self, classes: torch.Tensor) -> torch.Tensor:
        """Those of some identities, of unit length, (n, K, D) float32.

        Args:
            classes: rising, (n,) int64, on the CPU.
        """
        rows = self.reader.rows(self.key, classes).float().view(len(classes), *self.shape[1:])
        return F.normalize(rows.to(self.device), dim=-1)

    def chosen(self, classes: torch.Tensor, sub_centres: torch.Tensor) -> torch.Tensor:
        """One centre of each of some identities, of unit length, (n, D) float32.

        Args:
            classes: rising, (n,) int64, on the CPU.
            sub_centres: which of theirs, (n,) int64.
        """
        within = sub_centres if self.shape[1] > 1 else None
        rows = self.reader.rows(self.key, classes, within).float().view(len(classes), -1)
        return F.normalize(rows.to(self.device), dim=-1)
