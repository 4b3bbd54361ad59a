"""Clear errors for wrong arguments of the pair loss, before any arithmetic.

Shapes, types and devices are always looked at. Values of labels and weights are looked at on the
CPU; on a GPU looking would make the host wait, so there a kernel asserts that labels are in range:
that of the whole loss itself, elsewhere `assert_label_values`. With PAIRDISTILL_DEBUG=1 in the
environment values are looked at everywhere, and cosines too.
"""

from __future__ import annotations

import math
import os

import torch

from distill.errors import UserError
from distill.losses.margin import RowMargins
from distill.losses.spec import IGNORED_LABEL, PairLossSpec

FLOAT_TYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
DEBUG = "PAIRDISTILL_DEBUG"


def check_arguments(
    first: torch.Tensor,
    second: torch.Tensor,
    labels: torch.Tensor,
    temperature: float,
    weight: float,
    spec: PairLossSpec,
    sample_weights: torch.Tensor | None,
    margins: RowMargins | None,
    reduction: str,
) -> None:
    """Raise :class:`UserError` naming the argument, its value and the fix."""
    check_numbers(temperature, weight)
    check_scores(first, second)
    check_labels(labels, first)
    check_reduction(reduction, spec)
    check_topk(spec, first.shape[1])
    if sample_weights is not None:
        check_weights(sample_weights, first)
    if margins is not None:
        check_margins(margins, first, spec)
    # Values can only be looked at in eager mode.
    if torch.compiler.is_compiling():
        return
    check_values(labels, sample_weights, margins, first.shape[1])
    if debugging() and (spec.has_margin or margins is not None):
        check_cosines(first, second)


def debugging() -> bool:
    """Whether values are looked at on a GPU too, though it makes the host wait."""
    return os.environ.get(DEBUG, "0") not in ("", "0")


def check_values(
    labels: torch.Tensor,
    sample_weights: torch.Tensor | None,
    margins: RowMargins | None,
    classes: int,
) -> None:
    """Values of labels, weights and margins; on the CPU, or when debugging."""
    if labels.device.type != "cpu" and not debugging():
        return
    check_label_values(labels, classes)
    if sample_weights is not None:
        check_weight_values(sample_weights)
    if margins is not None:
        check_margin_values(margins)


def check_numbers(temperature: float, weight: float) -> None:
    """T must be a finite number above 0, the weight a finite number not below 0."""
    for name, value in (("temperature", temperature), ("weight", weight)):
        if not isinstance(value, (int, float)):
            raise UserError(
                f"loss.{name} is a {type(value).__name__}: must be a Python number",
                fix="pass a float; a tensor would make the device wait",
            )
    if not 0.0 < temperature < math.inf:
        raise UserError(
            f"loss.temperature = {temperature}: must be greater than 0", fix="set it to 1 .. 8"
        )
    if not 0.0 <= weight < math.inf:
        raise UserError(
            f"loss.weight = {weight}: must be a number of at least 0", fix="set it to 0 or more"
        )


def check_scores(first: torch.Tensor, second: torch.Tensor) -> None:
    """Two (B, C) tensors of one shape, type and device, C >= 2, whose rows are contiguous."""
    for name, scores in (("first", first), ("second", second)):
        if scores.dtype not in FLOAT_TYPES:
            raise UserError(
                f"{name} scores are {scores.dtype}: must be floating point",
                fix="pass float32, float64, float16 or bfloat16",
            )
        if scores.dim() != 2 or scores.shape[0] < 1 or scores.shape[1] < 2:
            raise UserError(
                f"{name} scores have shape {tuple(scores.shape)}: must be (B, C), B >= 1, C >= 2",
                fix="pass one row of at least two class scores for each image",
            )
        if scores.stride(1) != 1:
            raise UserError(
                f"{name} scores have stride {scores.stride(1)} between classes: must be 1",
                fix="call .contiguous() on them",
            )
    check_alike("first and second scores", first, second)


def check_alike(names: str, first: torch.Tensor, second: torch.Tensor) -> None:
    """Two tensors of one shape, type and device."""
    for what in ("shape", "dtype", "device"):
        a, b = getattr(first, what), getattr(second, what)
        if a != b:
            raise UserError(
                f"{names} differ in {what}: {a} and {b}", fix="pass the two halves of one batch"
            )


def check_device(what: str, tensor: torch.Tensor, others: str, like: torch.Tensor) -> None:
    """A tensor ("labels are") on the device of ``like``."""
    if tensor.device != like.device:
        raise UserError(
            f"{what} on {tensor.device}, {others} on {like.device}",
            fix=f"move both to the device of the {others.removeprefix('the ')}",
        )


def check_labels(labels: torch.Tensor, scores: torch.Tensor) -> None:
    """(B,) int64 on the scores' device."""
    B = scores.shape[0]
    if labels.dtype != torch.int64:
        raise UserError(
            f"labels are {labels.dtype}: must be integers (int64)", fix="call .long() on them"
        )
    if tuple(labels.shape) != (B,):
        raise UserError(
            f"labels have shape {tuple(labels.shape)}: must be ({B},)", fix="one label a pair"
        )
    check_device("labels are", labels, "scores", scores)


def check_label_values(labels: torch.Tensor, classes: int) -> None:
    """Every label must be -1 or in [0, C); names the first that is not (waits for the device)."""
    wrong = ((labels < 0) & (labels != IGNORED_LABEL)) | (labels >= classes)
    if bool(wrong.any()):
        at = int(wrong.nonzero()[0, 0])
        raise UserError(
            f"labels[{at}] = {int(labels[at])}: must be in [0, {classes}), or -1 for ignored",
            fix="check that the pack and the head have the same classes",
        )


def assert_label_values(labels: torch.Tensor, classes: int) -> None:
    """`check_label_values` by the device, for which nobody waits: a wrong label stops a GPU.

    Raises:
        RuntimeError: on the CPU at once; of a GPU, whatever waits for it next.
    """
    within = (labels >= IGNORED_LABEL) & (labels < classes)
    message = f"a label is out of range: must be in [0, {classes}), or -1 for ignored"
    torch._assert_async(within.all(), message)


def check_reduction(reduction: str, spec: PairLossSpec) -> None:
    """One of the three; a similarity of the batch has no rows."""
    if reduction not in ("none", "mean", "sum"):
        raise UserError(f"reduction = {reduction!r}: unknown", fix="choose one of none, mean, sum")
    if reduction == "none" and spec.over_batch:
        raise UserError(
            "reduction = 'none' with loss.mmd_kernel = 'rbf': it is of the batch, not of pairs",
            fix="choose reduction 'mean' or 'sum', or the kernel 'linear'",
        )


def check_topk(spec: PairLossSpec, classes: int) -> None:
    """Fewer primary classes than classes."""
    if spec.topk_classes >= classes:
        raise UserError(
            f"loss.topk_classes = {spec.topk_classes}: must be smaller than the number of classes, "
            f"{classes}",
            fix="set it to 0 for all classes",
        )


def check_weights(weights: torch.Tensor, scores: torch.Tensor) -> None:
    """(B,) floating point on the scores' device."""
    if weights.dtype not in FLOAT_TYPES:
        raise UserError(
            f"sample_weights are {weights.dtype}: must be floating point",
            fix="call .float() on them",
        )
    if tuple(weights.shape) != (scores.shape[0],):
        raise UserError(
            f"sample_weights have shape {tuple(weights.shape)}: must be ({scores.shape[0]},)",
            fix="one weight a pair",
        )
    check_device("sample_weights are", weights, "scores", scores)


def check_weight_values(weights: torch.Tensor) -> None:
    """Every weight must be a finite number of at least 0; names the first that is not."""
    wrong = ~((weights >= 0) & (weights < math.inf))
    if bool(wrong.any()):
        at = int(wrong.nonzero()[0, 0])
        raise UserError(
            f"sample_weights[{at}] = {float(weights[at])}: must be a finite number of at least 0",
            fix="set it to 0 for a pair that shall not count",
        )


def check_margins(
    margins: RowMargins, scores: torch.Tensor, spec: PairLossSpec, sides: int = 2
) -> None:
    """Two (``sides`` B,) floating tensors on the scores' device, and no margin in ``spec``."""
    if spec.has_margin:
        raise UserError(
            "margins: spec has margins too, of all images", fix="set both of spec's margins to 0"
        )
    rows = sides * scores.shape[0]
    for name, values in zip(("angle_rad", "cosine"), margins, strict=True):
        if values.dtype not in FLOAT_TYPES or tuple(values.shape) != (rows,):
            raise UserError(
                f"margins.{name} is {values.dtype} {tuple(values.shape)}: "
                f"must be floating ({rows},)",
                fix="pass one number an image, those of second images after those of all first",
            )
        check_device(f"margins.{name} is", values, "scores", scores)


def check_margin_values(margins: RowMargins) -> None:
    """Angles within a quarter turn, finite cosines; names the first that is not.

    NaN passes: it poisons the loss of its row, and the step is skipped.
    """
    limits = (("angle_rad", math.pi / 2, "smaller than pi/2"), ("cosine", math.inf, "finite"))
    for (name, limit, words), values in zip(limits, margins, strict=True):
        wrong = values.abs() >= limit
        if bool(wrong.any()):
            at = int(wrong.nonzero()[0, 0])
            raise UserError(
                f"margins.{name}[{at}] = {float(values[at])}: must be {words} in size",
                fix="check how the margins are computed",
            )


def check_cosines(first: torch.Tensor, second: torch.Tensor) -> None:
    """Where there is a margin, scores must lie in [-1, 1], up to rounding."""
    for name, scores in (("first", first), ("second", second)):
        largest = float(scores.abs().max())
        if largest > 1.0 + 16 * torch.finfo(scores.dtype).eps:
            raise UserError(
                f"{name} scores reach {largest:g}: with a margin they must be cosines in [-1, 1]",
                fix="pass cosines and give their scale as the spec's logit_scale",
            )
