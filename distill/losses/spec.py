"""What a pair loss is asked for, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from distill.errors import UserError

if TYPE_CHECKING:
    from distill.config.tree import LossConfig

Implementation = Literal["auto", "native", "reference"]
Targets = tuple[torch.Tensor, torch.Tensor]
"""Margined target logits of the first and the second images, (B,) each."""

IGNORED_LABEL = -1
"""A pair with this label adds nothing to the loss, to the means or to the gradient."""


@dataclass(frozen=True)
class PairLossSpec:
    """The choices of a run that never change from step to step.

    Attributes:
        similarity: ``kl``, ``ce`` (cross-entropy of the softened answers), ``mmd`` or ``none``.
        direction: ``forward`` S(p, q), ``reverse`` S(q, p), ``symmetric`` their mean, where p
            is the softened answer to the first image and q to the second; no matter for ``mmd``.
        mmd_kernel: ``linear`` |p - q|^2 of each pair; ``rbf`` Gaussian kernels over the batch.
        scale_by_t2: multiply the similarity by T^2.
        stop_gradient: side that the similarity treats as a constant.
        ce: ``sum`` CE(first) + CE(second), or their ``mean``.
        label_smoothing: share of the target spread evenly over all C classes, in [0, 1).
    """

    similarity: Literal["kl", "ce", "mmd", "none"] = "kl"
    direction: Literal["forward", "reverse", "symmetric"] = "symmetric"
    mmd_kernel: Literal["linear", "rbf"] = "linear"
    scale_by_t2: bool = True
    stop_gradient: Literal["none", "first", "second"] = "none"
    ce: Literal["sum", "mean"] = "sum"
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        _one_of("loss.similarity", self.similarity, ("kl", "ce", "mmd", "none"))
        _one_of("loss.direction", self.direction, ("forward", "reverse", "symmetric"))
        _one_of("loss.mmd_kernel", self.mmd_kernel, ("linear", "rbf"))
        _one_of("loss.stop_gradient", self.stop_gradient, ("none", "first", "second"))
        _one_of("loss.ce", self.ce, ("sum", "mean"))
        if not 0.0 <= self.label_smoothing < 1.0:
            raise UserError(
                f"loss.label_smoothing = {self.label_smoothing}: must be in [0, 1)",
                fix="set it to 0 .. 0.2",
            )

    @classmethod
    def from_config(cls, config: LossConfig) -> PairLossSpec:
        """The static part of a ``[loss]`` section; T and the weight vary with the step."""
        return cls(
            similarity=config.similarity,
            direction=config.direction,
            mmd_kernel=config.mmd_kernel,
            scale_by_t2=config.scale_by_t2,
            stop_gradient=config.stop_gradient,
            ce=config.ce,
            label_smoothing=config.label_smoothing,
        )

    @property
    def over_batch(self) -> bool:
        """True where the similarity belongs to the batch and not to each pair."""
        return self.similarity == "mmd" and self.mmd_kernel == "rbf"

    @property
    def direction_weights(self) -> tuple[float, float]:
        """Weights of S(p, q) and S(q, p)."""
        return {"forward": (1.0, 0.0), "reverse": (0.0, 1.0), "symmetric": (0.5, 0.5)}[
            self.direction
        ]

    @property
    def ce_weight(self) -> float:
        """Weight of each cross-entropy in the total."""
        return 1.0 if self.ce == "sum" else 0.5

    def similarity_scale(self, temperature: float) -> float:
        """Factor T^2 of the similarity, or 1."""
        return temperature * temperature if self.scale_by_t2 else 1.0


class PairLoss(NamedTuple):
    """The loss of a batch; all fields are scalars, means over the pairs that are not ignored.

    Attributes:
        total: ``w_ce * (ce_first + ce_second) + weight * similarity``; the one with a gradient.
        ce_first: cross-entropy of the first images, in nats.
        ce_second: cross-entropy of the second images, in nats.
        similarity: similarity term, T^2 included where asked for, before its weight.
        agreement: share of pairs whose two answers (arg-max) are equal.
        correct_first: share of first images answered with their label.
        correct_second: share of second images answered with their label.
    """

    total: torch.Tensor
    ce_first: torch.Tensor
    ce_second: torch.Tensor
    similarity: torch.Tensor
    agreement: torch.Tensor
    correct_first: torch.Tensor
    correct_second: torch.Tensor


class RowTerms(NamedTuple):
    """What every implementation computes for each pair; 0 in the rows of ignored pairs.

    Attributes:
        ce_first: (B,) cross-entropies with gradient, float32 (float64 for float64 logits).
        ce_second: likewise for the second images.
        similarity: (B,) similarity with gradient; a scalar where it belongs to the batch.
        top_first: (B,) int64 arg-max of the first logits; -1 in rows with NaN.
        top_second: likewise for the second logits.
    """

    ce_first: torch.Tensor
    ce_second: torch.Tensor
    similarity: torch.Tensor
    top_first: torch.Tensor
    top_second: torch.Tensor


def accumulation_dtype(logits: torch.Tensor) -> torch.dtype:
    """float64 for float64 logits, else float32."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def _one_of(field: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise UserError(f"{field} = {value!r}: unknown", fix=f"choose one of {', '.join(valid)}")
