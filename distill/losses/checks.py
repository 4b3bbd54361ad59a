"""Clear errors for wrong arguments of the pair loss, before any arithmetic."""

from __future__ import annotations

import math

import torch

from distill.errors import UserError
from distill.losses.spec import IGNORED_LABEL, Targets

FLOAT_TYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def check_arguments(
    first: torch.Tensor,
    second: torch.Tensor,
    labels: torch.Tensor,
    temperature: float,
    weight: float,
    targets: Targets | None,
) -> None:
    """Raise :class:`UserError` naming the argument, its value and the fix; reads no GPU memory."""
    check_numbers(temperature, weight)
    check_logits(first, second)
    check_labels(labels, first)
    if targets is not None:
        check_targets(targets, first)


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


def check_logits(first: torch.Tensor, second: torch.Tensor) -> None:
    """Two (B, C) tensors of one shape, type and device, C >= 2, whose rows are contiguous."""
    for name, logits in (("first", first), ("second", second)):
        if logits.dtype not in FLOAT_TYPES:
            raise UserError(
                f"{name} logits are {logits.dtype}: must be floating point",
                fix="pass float32, float64, float16 or bfloat16",
            )
        if logits.dim() != 2 or logits.shape[0] < 1 or logits.shape[1] < 2:
            raise UserError(
                f"{name} logits have shape {tuple(logits.shape)}: must be (B, C), B >= 1, C >= 2",
                fix="pass one row of at least two class scores for each image",
            )
        if logits.stride(1) != 1:
            raise UserError(
                f"{name} logits have stride {logits.stride(1)} between classes: must be 1",
                fix="call .contiguous() on them",
            )
    for what in ("shape", "dtype", "device"):
        a, b = getattr(first, what), getattr(second, what)
        if a != b:
            raise UserError(
                f"first and second logits differ in {what}: {a} and {b}",
                fix="pass the two halves of one batch",
            )


def check_labels(labels: torch.Tensor, logits: torch.Tensor) -> None:
    """(B,) int64 on the logits' device; on the CPU also -1 or in [0, C), the value named."""
    B, C = logits.shape
    if labels.dtype != torch.int64:
        raise UserError(
            f"labels are {labels.dtype}: must be integers (int64)", fix="call .long() on them"
        )
    if tuple(labels.shape) != (B,):
        raise UserError(
            f"labels have shape {tuple(labels.shape)}: must be ({B},)", fix="one label a pair"
        )
    if labels.device != logits.device:
        raise UserError(
            f"labels are on {labels.device}, logits on {logits.device}",
            fix="move the labels to the logits' device",
        )
    # Values can only be looked at in eager mode, and on a GPU looking would make the host wait:
    # there the kernel asserts on the device.
    if labels.device.type == "cpu" and not torch.compiler.is_compiling():
        check_label_values(labels, C)


def check_label_values(labels: torch.Tensor, classes: int) -> None:
    """Every label must be -1 or in [0, C); names the first that is not (waits for the device)."""
    wrong = ((labels < 0) & (labels != IGNORED_LABEL)) | (labels >= classes)
    if bool(wrong.any()):
        at = int(wrong.nonzero()[0, 0])
        raise UserError(
            f"labels[{at}] = {int(labels[at])}: must be in [0, {classes}), or -1 for ignored",
            fix="check that the pack and the head have the same classes",
        )


def check_targets(targets: Targets, logits: torch.Tensor) -> None:
    """Two floating (B,) tensors on the logits' device."""
    if len(targets) != 2:
        raise UserError(f"targets holds {len(targets)} tensors: must be 2", fix="one for each side")
    for name, target in zip(("first", "second"), targets, strict=True):
        if tuple(target.shape) != (logits.shape[0],) or target.dtype not in FLOAT_TYPES:
            raise UserError(
                f"targets of the {name} images: {target.dtype} {tuple(target.shape)}, must be "
                f"floating point ({logits.shape[0]},)",
                fix="one target logit a pair",
            )
        if target.device != logits.device:
            raise UserError(
                f"targets of the {name} images are on {target.device}, logits on {logits.device}",
                fix="move them to the logits' device",
            )
