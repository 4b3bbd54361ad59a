"""Scores of a chunk of classes, and what a chunk's gradient adds to features, weight and bias.

Matrix products stay `torch.mm`; only one chunk's scores are made at a time.

A cosine head never gets a normalised copy of its weight. With x_hat the unit features and g the
gradient with respect to the cosines, folding the norms in (the quotient rule, by hand):

    cos = (x_hat . w) / |w|       dx_hat = sum over classes of (g / |w|) w
    u = sum over rows of g x_hat  dw = (u - (u . w_hat) w_hat) / |w|
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from distill.losses.spec import accumulation_dtype

SMALLEST_NORM = 1e-12
"""Below it a weight counts as this long, as in `torch.nn.functional.normalize`."""


@dataclass
class Gradients:
    """Where the chunks' gradients go; None where none is asked for.

    Attributes:
        features: (2B, D) in float32 (float64 for float64), a sum over the chunks.
        weight: (C, D) in the weight's type, each row written once.
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
        weight: (C, D), any floating type.
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
        """Bytes of the scores of all these classes."""
        return self.features.shape[0] * self.weight.shape[0] * self.dtype.itemsize

    def of(self, start: int, stop: int) -> torch.Tensor:
        """Scores (2B, stop - start) of the classes from ``start`` to ``stop``."""
        weight = self.weight[start:stop]
        columns = weight.to(self.features.dtype).T
        if self.cosine:
            return product(self.features, columns, self.dtype).mul_(inverse_norms(weight))
        if self.bias is None:
            return torch.mm(self.features, columns)
        bias = self.bias[start:stop].to(self.features.dtype)
        return torch.addmm(bias, self.features, columns)

    def add_gradients(self, start: int, stop: int, g: torch.Tensor, into: Gradients) -> None:
        """Carry the gradient ``g`` of a chunk's scores on; ``g`` is overwritten."""
        weight = self.weight[start:stop]
        inverse = inverse_norms(weight) if self.cosine else None
        if into.bias is not None:
            into.bias[start:stop] = g.sum(0, dtype=accumulation_dtype(g))
        if into.weight is not None:
            self._to_weight(g, weight, inverse, into.weight[start:stop])
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
