"""Scores of a chunk of classes, and what a chunk's gradient adds to features, weight and bias.

Matrix products stay `torch.mm`; only one chunk's scores are made at a time.

A cosine head never gets a normalised copy of its weight. With x_hat the unit features and g the
gradient with respect to the cosines, folding the norms in (the quotient rule, by hand):

    cos = (x_hat . w) / |w|       dx_hat = sum over classes of (g / |w|) w
    u = sum over rows of g x_hat  dw = (u - (u . w_hat) w_hat) / |w|

With K sub-centres a class has K rows of weight. A chunk's product is with all of them, its scores
are the largest of each K, and its gradient goes to the rows that those came from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from distill.losses.spec import accumulation_dtype

SMALLEST_NORM = 1e-12
"""Below it a weight counts as this long, as in `torch.nn.functional.normalize`."""
WINNER = torch.uint8
"""Holds the number of a sub-centre."""
MOST_SUB_CENTRES = 1 + torch.iinfo(WINNER).max


class Chunk(NamedTuple):
    """Scores of c classes.

    Attributes:
        scores: (2B, c).
        winners: which sub-centre each is of, the first of equal ones, (2B, c) uint8; None where
            classes have one.
    """

    scores: torch.Tensor
    winners: torch.Tensor | None

    @property
    def nbytes(self) -> int:
        """Bytes of both."""
        return self.scores.nbytes + (0 if self.winners is None else self.winners.nbytes)


@dataclass
class Gradients:
    """Where the chunks' gradients go; None where none is asked for.

    Attributes:
        features: (2B, D) in float32 (float64 for float64), a sum over the chunks.
        weight: of the weight's shape and type, each row written once.
        bias: (C,) in the bias's type.
    """

    features: torch.Tensor | None
    weight: torch.Tensor | None
    bias: torch.Tensor | None


@dataclass(frozen=True)
class ClassScores:
    """Scores of 2B feature rows for C classes, chunk by chunk.

    Attributes:
        features: (2B, D), of unit length for cosines; the products are made in their type.
        weight: (C, D), any floating type; (C, K, D) with K sub-centres, for cosines alone.
        bias: (C,), or None.
        cosine: whether the scores are cosines.
    """

    features: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None
    cosine: bool

    @property
    def dtype(self) -> torch.dtype:
        """Type of the scores: a cosine in 16 bits is off by up to 0.1 in a logit of scale 64."""
        features = self.features
        return accumulation_dtype(features) if self.cosine else features.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the chunks of all these classes."""
        of_each = self.dtype.itemsize + WINNER.itemsize * (sub_centres_of(self.weight) > 1)
        return self.features.shape[0] * self.weight.shape[0] * of_each

    def of(self, start: int, stop: int) -> Chunk:
        """Of the classes from ``start`` to ``stop``."""
        scores, count = self._of_rows(start, stop), sub_centres_of(self.weight)
        if count == 1:
            return Chunk(scores, None)
        best = scores.view(len(scores), -1, count).max(2)
        return Chunk(best.values, best.indices.to(WINNER))

    def _of_rows(self, start: int, stop: int) -> torch.Tensor:
        """Scores with all rows of weight of these classes, (2B, c) or (2B, c K)."""
        weight = rows_of(self.weight, start, stop)
        columns = weight.to(self.features.dtype).T
        if self.cosine:
            return product(self.features, columns, self.dtype).mul_(inverse_norms(weight))
        if self.bias is None:
            return torch.mm(self.features, columns)
        bias = self.bias[start:stop].to(self.features.dtype)
        return torch.addmm(bias, self.features, columns)

    def add_gradients(self, start: int, stop: int, g: Chunk, into: Gradients) -> None:
        """Carry on the gradients of a chunk's scores, which stand in their place in ``g``.

        They are overwritten.
        """
        self._add_of_rows(start, stop, self._to_rows(g), into)

    def _to_rows(self, g: Chunk) -> torch.Tensor:
        """Gradients of the scores with all rows of weight, (2B, c K): 0 but for the winners."""
        if g.winners is None:
            return g.scores
        numbers = torch.arange(sub_centres_of(self.weight), dtype=WINNER, device=g.scores.device)
        won = g.winners[..., None] == numbers
        return torch.where(won, g.scores[..., None], 0.0).flatten(1)

    def _add_of_rows(self, start: int, stop: int, g: torch.Tensor, into: Gradients) -> None:
        weight = rows_of(self.weight, start, stop)
        inverse = inverse_norms(weight) if self.cosine else None
        if into.bias is not None:
            into.bias[start:stop] = g.sum(0, dtype=accumulation_dtype(g))
        if into.weight is not None:
            self._to_weight(g, weight, inverse, rows_of(into.weight, start, stop))
        if into.features is not None:
            self._add_to_features(g if inverse is None else g.mul_(inverse), weight, into.features)

    def _to_weight(
        self,
        g: torch.Tensor,
        weight: torch.Tensor,
        inverse: torch.Tensor | None,
        out: torch.Tensor,
    ) -> None:
        rows = g.T.to(self.features.dtype)
        if out.dtype == self.features.dtype == self.dtype:
            u = torch.mm(rows, self.features, out=out)
        else:
            u = product(rows, self.features, accumulation_dtype(self.features))
        if inverse is not None:
            _through_norm_(u, weight, inverse)
        if u is not out:
            out.copy_(u)

    def _add_to_features(self, g: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> None:
        g, weight = g.to(self.features.dtype), weight.to(self.features.dtype)
        if out.dtype == g.dtype:
            out.addmm_(g, weight)
        else:
            out.add_(product(g, weight, out.dtype))


def _through_norm_(u: torch.Tensor, weight: torch.Tensor, inverse: torch.Tensor) -> None:
    """Gradient with respect to ``weight`` (n, D) in place of that with respect to its unit rows."""
    weight = weight.to(u.dtype)
    along = torch.linalg.vecdot(u, weight) * inverse.square()
    along.masked_fill_(inverse >= 1.0 / SMALLEST_NORM, 0.0)
    u.addcmul_(along[:, None], weight, value=-1).mul_(inverse[:, None])


def sub_centres_of(weight: torch.Tensor) -> int:
    """K of a weight (C, K, D), 1 of (C, D)."""
    return weight.shape[1] if weight.dim() == 3 else 1


def rows_of(weight: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    """The rows of some classes, (c, D) or (c K, D); a view of a contiguous weight."""
    return weight[start:stop].flatten(0, -2)


def inverse_norms(weight: torch.Tensor) -> torch.Tensor:
    """1 / length of each row, (n,), float32 (float64 for float64)."""
    norms: torch.Tensor = torch.linalg.vector_norm(weight, dim=1, dtype=accumulation_dtype(weight))
    return norms.clamp_(min=SMALLEST_NORM).reciprocal_()


def product(left: torch.Tensor, right: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The product of two matrices of one type, in ``dtype``; unrounded in between where it can.

    CUDA sums 16-bit products in float32 and can hand those sums out; the CPU cannot.
    """
    if left.dtype == dtype:
        return torch.mm(left, right)
    if left.device.type == "cuda" and dtype == torch.float32:
        return torch.mm(left, right, out_dtype=dtype)
    return torch.mm(left, right).to(dtype)
