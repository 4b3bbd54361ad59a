"""Clear errors for wrong arguments of a streamed head's loss, before any arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from distill.errors import UserError
from distill.losses.checks import (
    FLOAT_TYPES,
    assert_label_values,
    check_alike,
    check_device,
    check_margins,
    check_numbers,
    check_reduction,
    check_topk,
    check_values,
    check_weights,
)
from distill.losses.linear_scores import MOST_SUB_CENTRES, sub_centres_of
from distill.losses.margin import RowMargins
from distill.losses.spec import PairLossSpec


@dataclass(frozen=True)
class HeadArguments:
    """What every loss was called with that streams the classes of a head."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    labels: torch.Tensor
    sample_weights: torch.Tensor | None
    margins: RowMargins | None
    spec: PairLossSpec
    head: str
    reduction: str
    memory_budget_bytes: int | None
    chunk_classes: int | None
    implementation: str

    ALIKE: ClassVar[tuple[str, ...]] = ("head", "reduction", "implementation")
    """Fields that are the same on all ranks, by equality."""

    @property
    def features(self) -> dict[str, torch.Tensor]:
        """One or two matrices of features, by the names of the arguments."""
        raise NotImplementedError

    def check(self, classes: int | None = None, rows: int | None = None) -> None:
        """Raise `UserError` naming the argument, its value and the fix.

        Args:
            classes: all classes; None where ``weight`` has them all.
            rows: rows that ``weight`` must have, where it is one rank's share.
        """
        check_features(self.features)
        like, *_ = self.features.values()
        check_weight(self.weight, self.bias, like, rows, self.head)
        check_target_labels(self.labels, like)
        check_head(self.head, self.bias, self.spec, self.margins)
        check_sizes(self.memory_budget_bytes, self.chunk_classes)
        check_reduction(self.reduction, self.spec)
        if self.sample_weights is not None:
            check_weights(self.sample_weights, like)
        if self.margins is not None:
            check_margins(self.margins, like, self.spec, sides=len(self.features))
        labels, classes = self.labels, classes or self.weight.shape[0]
        check_values(labels, self.sample_weights, self.margins, classes)
        if labels.is_cuda:  # plain torch asserts nothing, and of single images kernels see no label
            assert_label_values(labels, classes)

    @property
    def features_need_gradient(self) -> bool:
        """Whether backward will ask for it."""
        return torch.is_grad_enabled() and any(f.requires_grad for f in self.features.values())

    @property
    def needs_gradient(self) -> bool:
        """Whether there will be a backward."""
        others = [one for one in (self.weight, self.bias) if one is not None]
        wanted = torch.is_grad_enabled() and any(one.requires_grad for one in others)
        return wanted or self.features_need_gradient

    def described(self) -> dict[str, Any]:
        """What must be alike on all ranks that share the classes out, by name."""
        tensors = {
            **self.features,
            "labels": self.labels,
            "sample_weights": self.sample_weights,
            "margins' angles": self.margins and self.margins.angle_rad,
            "margins' cosines": self.margins and self.margins.cosine,
        }
        return {
            **{name: one if one is None else described(one) for name, one in tensors.items()},
            "weight's type and width": f"{self.weight.dtype}, {width_of(self.weight)}",
            "bias": self.bias is not None,
            **{name: getattr(self, name) for name in self.ALIKE},
            "spec": str(self.spec),
            "features' requires_grad": self.features_need_gradient,
            **{
                f"the content of {name} (checksum)": one if one is None else checksum(one)
                for name, one in tensors.items()
            },
        }


@dataclass(frozen=True)
class PairArguments(HeadArguments):
    """What `linear_pair_loss` was called with."""

    features_first: torch.Tensor
    features_second: torch.Tensor
    temperature: float
    similarity_weight: float

    ALIKE = ("temperature", "similarity_weight", *HeadArguments.ALIKE)

    @property
    def features(self) -> dict[str, torch.Tensor]:
        """Of both sides."""
        return {"features_first": self.features_first, "features_second": self.features_second}

    def check(self, classes: int | None = None, rows: int | None = None) -> None:
        """See `HeadArguments.check`."""
        super().check(classes, rows)
        check_numbers(self.temperature, self.similarity_weight)
        check_topk(self.spec, classes or self.weight.shape[0])


@dataclass(frozen=True)
class RowArguments(HeadArguments):
    """What `linear_cross_entropy` was called with."""

    rows: torch.Tensor

    @property
    def features(self) -> dict[str, torch.Tensor]:
        """Of all images."""
        return {"features": self.rows}


def check_features(given: dict[str, torch.Tensor]) -> None:
    """(B, D) floating tensors by name, of one shape, type and device, B and D >= 1."""
    for name, features in given.items():
        if features.dtype not in FLOAT_TYPES:
            raise UserError(
                f"{name} are {features.dtype}: must be floating point",
                fix="pass float32, float64, float16 or bfloat16",
            )
        if features.dim() != 2 or 0 in features.shape:
            raise UserError(
                f"{name} have shape {tuple(features.shape)}: must be (B, D), B >= 1, D >= 1",
                fix="pass one row of features for each image",
            )
    for second in list(given.values())[1:]:
        check_alike(" and ".join(given), next(iter(given.values())), second)


def check_weight(
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    features: torch.Tensor,
    rows: int | None,
    head: str,
) -> None:
    """(C, D) and (C,), floating, on the features' device; C >= 2, or ``rows`` where given.

    For a cosine head also (C, K, D).
    """
    check_floating("weight", weight, features)
    D = features.shape[1]
    wanted = "C >= 2" if rows is None else f"C = {rows}, the rows that shards were made with"
    several = f", or (C, K, {D}), K <= {MOST_SUB_CENTRES}" if head == "cosine" else ""
    fits = weight.dim() == 2 or (weight.dim() == 3 and head == "cosine")
    fits = fits and weight.shape[-1] == D and 1 <= sub_centres_of(weight) <= MOST_SUB_CENTRES
    if not fits or (weight.shape[0] < 2 if rows is None else weight.shape[0] != rows):
        raise UserError(
            f"weight has shape {tuple(weight.shape)}: must be (C, {D}), {wanted}{several}",
            fix="pass one row a class, as wide as the features",
        )
    if bias is None:
        return
    check_floating("bias", bias, features)
    if tuple(bias.shape) != (weight.shape[0],):
        raise UserError(
            f"bias has shape {tuple(bias.shape)}: must be ({weight.shape[0]},)",
            fix="pass one number a class, or None",
        )


def check_floating(name: str, tensor: torch.Tensor, features: torch.Tensor) -> None:
    """A floating tensor on the features' device."""
    if tensor.dtype not in FLOAT_TYPES:
        raise UserError(
            f"{name} is {tensor.dtype}: must be floating point",
            fix="pass float32, float64, float16 or bfloat16",
        )
    check_device(f"{name} is", tensor, "the features", features)


def check_target_labels(labels: torch.Tensor, features: torch.Tensor) -> None:
    """(B,) int64 on the features' device."""
    B = features.shape[0]
    if labels.dtype != torch.int64 or tuple(labels.shape) != (B,):
        raise UserError(
            f"labels are {labels.dtype} {tuple(labels.shape)}: must be torch.int64 ({B},)",
            fix="pass one class number a pair",
        )
    check_device("labels are", labels, "the features", features)


def check_head(
    head: str, bias: torch.Tensor | None, spec: PairLossSpec, margins: RowMargins | None
) -> None:
    """A known head that fits the bias and the margin, and a similarity that can be streamed."""
    if head not in ("linear", "cosine"):
        raise UserError(f"head = {head!r}: unknown", fix="choose one of linear, cosine")
    if head == "cosine" and bias is not None:
        raise UserError("bias: a cosine head has none", fix="pass bias=None")
    if head == "linear" and (spec.has_margin or margins is not None):
        raise UserError(
            "head = 'linear': it has no cosine to put a margin on",
            fix="set head='cosine', or both of spec's margins to 0 and margins to None",
        )
    if spec.over_batch:
        raise UserError(
            "loss.mmd_kernel = 'rbf': compares all pairs of a batch over all classes at once, "
            "which classes in chunks cannot",
            fix="set loss.mmd_kernel = 'linear', or call pair_loss with whole logits",
        )


def check_sizes(budget_bytes: int | None, chunk_classes: int | None) -> None:
    """A budget of at least 0 bytes, a chunk of at least one class."""
    if budget_bytes is not None and (not isinstance(budget_bytes, int) or budget_bytes < 0):
        raise UserError(
            f"memory_budget_bytes = {budget_bytes!r}: must be a whole number >= 0",
            fix="pass None for the default, 0 to keep no scores, 2**30 to keep up to 1 GiB of them",
        )
    if chunk_classes is not None and (not isinstance(chunk_classes, int) or chunk_classes < 1):
        raise UserError(
            f"chunk_classes = {chunk_classes!r}: must be a whole number >= 1",
            fix="pass None for a size that fits the caches",
        )


def checksum(tensor: torch.Tensor) -> int:
    """A number that changes with any bit of ``tensor`` and with their order."""
    data = tensor.contiguous().flatten()
    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[data.itemsize]
    bits = data.view(whole).to(torch.int64)
    return int((bits * torch.arange(1, 2 * len(bits), 2, device=bits.device)).sum())


def width_of(weight: torch.Tensor) -> str:
    """Of what a class has in a weight: D, or K x D."""
    return " x ".join(map(str, weight.shape[1:]))


def described(tensor: torch.Tensor) -> str:
    """Type and shape, for a comparison between ranks."""
    return f"{tensor.dtype} {tuple(tensor.shape)}"
