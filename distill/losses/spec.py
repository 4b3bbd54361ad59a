"""What a pair loss is asked for, and what it answers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from distill.errors import UserError

if TYPE_CHECKING:
    from distill.config.tree import Config, HeadConfig, LossConfig

Implementation = Literal["auto", "native", "reference"]
Reduction = Literal["none", "mean", "sum"]

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
        topk_classes: K > 0 compares answers over K classes, with all the rest as one
            (`topk.py`); 0 over all classes.
        scale_by_t2: multiply the similarity by T^2.
        stop_gradient: side that the similarity treats as a constant.
        ce: ``sum`` CE(first) + CE(second), or their ``mean``.
        label_smoothing: share of the target spread evenly over all C classes, in [0, 1).
        logit_scale: s > 0; the scores given to the loss are logits divided by it, for a cosine
            head the cosines.
        margin_angle_rad: ArcFace's additive angle on the target's cosine, in [0, pi/2); it and
            the next want scores that are cosines, and only the cross-entropies see them.
        margin_cosine: CosFace's margin on the target's cosine, in [0, 1).
    """

    similarity: Literal["kl", "ce", "mmd", "none"] = "kl"
    direction: Literal["forward", "reverse", "symmetric"] = "symmetric"
    mmd_kernel: Literal["linear", "rbf"] = "linear"
    topk_classes: int = 0
    scale_by_t2: bool = True
    stop_gradient: Literal["none", "first", "second"] = "none"
    ce: Literal["sum", "mean"] = "sum"
    label_smoothing: float = 0.0
    logit_scale: float = 1.0
    margin_angle_rad: float = 0.0
    margin_cosine: float = 0.0

    def __post_init__(self) -> None:
        _one_of("loss.similarity", self.similarity, ("kl", "ce", "mmd", "none"))
        _one_of("loss.direction", self.direction, ("forward", "reverse", "symmetric"))
        _one_of("loss.mmd_kernel", self.mmd_kernel, ("linear", "rbf"))
        _one_of("loss.stop_gradient", self.stop_gradient, ("none", "first", "second"))
        _one_of("loss.ce", self.ce, ("sum", "mean"))
        self._check_topk()
        _in_range("loss.label_smoothing", self.label_smoothing, 1.0, "0 .. 0.2")
        _in_range("head.arc_margin_rad", self.margin_angle_rad, math.pi / 2, "0 .. 0.5")
        _in_range("head.cos_margin", self.margin_cosine, 1.0, "0 .. 0.4")
        if not 0.0 < self.logit_scale < math.inf:
            raise UserError(
                f"head.scale = {self.logit_scale}: must be greater than 0",
                fix="set it to 1 for logits, to 10 .. 64 for cosines",
            )

    def _check_topk(self) -> None:
        if not isinstance(self.topk_classes, int) or self.topk_classes < 0:
            raise UserError(
                f"loss.topk_classes = {self.topk_classes!r}: must be a whole number >= 0",
                fix="set it to 0 for all classes, to 50 .. 1000 for that many",
            )
        if self.topk_classes and self.over_batch:
            raise UserError(
                f"loss.topk_classes = {self.topk_classes} with loss.mmd_kernel = 'rbf': pairs have "
                "other classes each, which a comparison of all pairs cannot have",
                fix="set loss.topk_classes = 0 or loss.mmd_kernel = 'linear'",
            )

    @classmethod
    def from_config(cls, config: LossConfig, head: HeadConfig | None = None) -> PairLossSpec:
        """The static part of a ``[loss]`` section; T and the weight vary with the step.

        ``head`` says what the scores are: cosines with their scale and margin, or logits.
        """
        cosine = head is not None and head.kind == "cosine"
        margin = head.margin if head is not None and cosine else "none"
        return cls(
            similarity=config.similarity,
            direction=config.direction,
            mmd_kernel=config.mmd_kernel,
            topk_classes=config.topk_classes,
            scale_by_t2=config.scale_by_t2,
            stop_gradient=config.stop_gradient,
            ce=config.ce,
            label_smoothing=config.label_smoothing,
            logit_scale=head.scale if head is not None and cosine else 1.0,
            margin_angle_rad=(
                head.arc_margin_rad if head and margin in ("arcface", "combined") else 0.0
            ),
            margin_cosine=head.cos_margin if head and margin in ("cosface", "combined") else 0.0,
        )

    @classmethod
    def of_run(cls, config: Config) -> PairLossSpec:
        """That of a run; without pairs it has no similarity, whatever the settings of one are."""
        loss = config.loss
        if config.train.images == "first":
            loss = loss.model_copy(update={"similarity": "none"})
        return cls.from_config(loss, config.head)

    @property
    def without_similarity(self) -> PairLossSpec:
        """The same for images without partners."""
        return replace(self, similarity="none")

    @property
    def over_batch(self) -> bool:
        """True where the similarity belongs to the batch and not to each pair."""
        return self.similarity == "mmd" and self.mmd_kernel == "rbf"

    @property
    def grouped(self) -> bool:
        """True where the similarity sees most classes as one."""
        return self.topk_classes > 0 and self.similarity != "none"

    @property
    def kernel_similarity(self) -> Literal["kl", "ce", "mmd", "none"]:
        """The similarity that the kernels compute; ``none`` where plain torch adds it to theirs."""
        return "none" if self.over_batch or self.grouped else self.similarity

    @property
    def whole_in_kernels(self) -> bool:
        """True where nothing is left to plain torch."""
        return self.kernel_similarity == self.similarity

    @property
    def two_sweeps(self) -> bool:
        """True where streamed classes are gone through twice before the value is known."""
        return self.kernel_similarity == "mmd"

    @property
    def has_margin(self) -> bool:
        """True where the cross-entropies see a margin on the target."""
        return self.margin_angle_rad > 0.0 or self.margin_cosine > 0.0

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
    """The loss of a batch.

    With the reductions ``mean`` and ``sum`` all fields are scalars, and all but the total are
    weighted means over the pairs that are not ignored. With ``none`` every field is (B,), one value
    a pair, 0 in ignored ones; the total has its sample weight, the others have not.

    Attributes:
        total: ``w_ce * (ce_first + ce_second) + weight * similarity``; the one with a gradient.
        ce_first: cross-entropy of the first images, in nats.
        ce_second: cross-entropy of the second images, in nats.
        similarity: similarity term, T^2 included where asked for, before its weight.
        entropy_first: entropy of the softened answers to the first images, in nats.
        entropy_second: likewise of the second images.
        p_target_first: softened probability of the own class of the first images.
        p_target_second: likewise of the second images.
        agreement: share of pairs whose two answers (arg-max) are equal.
        correct_first: share of first images answered with their label.
        correct_second: share of second images answered with their label.
    """

    total: torch.Tensor
    ce_first: torch.Tensor
    ce_second: torch.Tensor
    similarity: torch.Tensor
    entropy_first: torch.Tensor
    entropy_second: torch.Tensor
    p_target_first: torch.Tensor
    p_target_second: torch.Tensor
    agreement: torch.Tensor
    correct_first: torch.Tensor
    correct_second: torch.Tensor


class RowLoss(NamedTuple):
    """The cross-entropy of images without partners; reduced as a `PairLoss`.

    Attributes:
        total: the cross-entropy; the one with a gradient.
        ce: the same in nats, without the sample weight where the reduction is ``none``.
        correct: share of images answered with their label.
    """

    total: torch.Tensor
    ce: torch.Tensor
    correct: torch.Tensor


class PairLossAndGrad(NamedTuple):
    """A loss without autograd, and the gradients of its total.

    Attributes:
        loss: detached; with the reduction ``none`` the gradients are of the sum of its totals.
        grad_first: (B, C) gradient to the first scores, in their type.
        grad_second: likewise to the second scores.
    """

    loss: PairLoss
    grad_first: torch.Tensor
    grad_second: torch.Tensor


class RowTerms(NamedTuple):
    """What every implementation computes for each pair; 0 in the rows of ignored pairs.

    Attributes:
        values: (B, 3) both cross-entropies and the similarity, with gradient, float32 (float64 for
            float64 scores).
        extras: (B, 4) entropies of both softened answers in nats, and their probabilities of the
            target; None where nobody computed them.
        tops: (B, 2) int64 arg-max of the first and of the second scores; -1 in rows with NaN and
            of ignored pairs.
        batch_similarity: scalar with gradient where the similarity belongs to the batch.
    """

    values: torch.Tensor
    extras: torch.Tensor | None
    tops: torch.Tensor
    batch_similarity: torch.Tensor | None = None

    @property
    def ce_first(self) -> torch.Tensor:
        """(B,) cross-entropies of the first images."""
        return self.values[:, 0]

    @property
    def ce_second(self) -> torch.Tensor:
        """(B,) cross-entropies of the second images."""
        return self.values[:, 1]

    @property
    def similarity(self) -> torch.Tensor:
        """(B,) similarities; a scalar where it belongs to the batch."""
        return self.values[:, 2] if self.batch_similarity is None else self.batch_similarity

    @property
    def parts(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The three terms of the loss."""
        return self.ce_first, self.ce_second, self.similarity


def accumulation_dtype(logits: torch.Tensor) -> torch.dtype:
    """float64 for float64 logits, else float32."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def _one_of(field: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise UserError(f"{field} = {value!r}: unknown", fix=f"choose one of {', '.join(valid)}")


def _in_range(field: str, value: float, end: float, usual: str) -> None:
    if not 0.0 <= value < end:
        raise UserError(f"{field} = {value}: must be in [0, {end:.6g})", fix=f"set it to {usual}")
