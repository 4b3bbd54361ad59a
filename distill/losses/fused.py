"""The native pair loss: finds the extension, registers its fake and its gradient, calls it.

`kernels/` builds into `distill/_kernels.so`, which registers on being loaded

    torch.ops.pairdistill.pair_loss           values and statistics of each pair: one read of logits
    torch.ops.pairdistill.pair_loss_backward  gradients from the statistics: one read, one write

with an implementation for the CPU and, where it was built with nvcc, for CUDA.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch

from distill.losses.reference import similarity as plain_similarity
from distill.losses.reference import valid_rows
from distill.losses.spec import PairLossSpec, RowTerms, Targets, accumulation_dtype

LIBRARY = Path(__file__).resolve().parent.parent / "_kernels.so"
"""The built extension; `pip install -e .` puts it there."""

KINDS = {"none": 0, "kl": 1, "ce": 2, "mmd": 3}
SIDES = {"none": 0, "first": 1, "second": 2}
STATS_OF_ROW = 12

Gradients = tuple[torch.Tensor | None, ...]


@functools.cache
def native_devices() -> tuple[str, ...]:
    """Device types the extension was built for, e.g. ``("cpu", "cuda")``; empty where not built.

    Loads the extension at the first call.
    """
    if not LIBRARY.exists():
        return ()
    torch.ops.load_library(str(LIBRARY))  # type: ignore[no-untyped-call]
    _register()
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    op = "pairdistill::pair_loss"
    return tuple(name for name, key in (("cpu", "CPU"), ("cuda", "CUDA")) if has(op, key))


def build_info() -> tuple[str, str]:
    """Vector instructions of the CPU path, and how the extension was built; one line each."""
    if not native_devices():
        return "", ""
    ops = torch.ops.pairdistill
    return str(ops.cpu_instructions()), str(ops.build_description())


def row_terms(
    first: torch.Tensor,
    second: torch.Tensor,
    labels: torch.Tensor,
    temperature: float,
    spec: PairLossSpec,
    targets: Targets | None = None,
) -> RowTerms:
    """The terms of each pair by the native op; see :func:`distill.losses.reference.row_terms`.

    The RBF discrepancy of a batch is no sum over pairs: there the native op gives the
    cross-entropies, and plain torch the similarity.
    """
    dtype = accumulation_dtype(first)
    target_first, target_second = (
        (None, None) if targets is None else (t.to(dtype).contiguous() for t in targets)
    )
    forward, reverse = spec.direction_weights
    ce_first, ce_second, similarity, top_first, top_second, _ = torch.ops.pairdistill.pair_loss(
        first,
        second,
        labels.contiguous(),
        target_first,
        target_second,
        temperature,
        KINDS["none" if spec.over_batch else spec.similarity],
        forward,
        reverse,
        spec.similarity_scale(temperature),
        spec.label_smoothing,
        SIDES[spec.stop_gradient],
    )
    if spec.over_batch:
        similarity = batch_similarity(first, second, labels, temperature, spec)
    return RowTerms(ce_first, ce_second, similarity, top_first, top_second)


def batch_similarity(
    first: torch.Tensor,
    second: torch.Tensor,
    labels: torch.Tensor,
    temperature: float,
    spec: PairLossSpec,
) -> torch.Tensor:
    """The RBF discrepancy in plain torch, a scalar."""
    return plain_similarity(*valid_rows(first, second, labels), temperature, spec)


def _register() -> None:
    """The op's shapes for tracing, and its gradient."""
    torch.library.register_fake("pairdistill::pair_loss", _fake_forward)
    torch.library.register_fake("pairdistill::pair_loss_backward", _fake_backward)
    torch.library.register_autograd(
        "pairdistill::pair_loss", _backward, setup_context=_setup_context
    )
    torch.library.register_autograd(
        "pairdistill::pair_loss_backward", _double_backward, setup_context=_keep_nothing
    )


def _fake_forward(first: torch.Tensor, *_: Any) -> tuple[torch.Tensor, ...]:
    B = first.shape[0]
    dtype = accumulation_dtype(first)
    values = [first.new_empty((B,), dtype=dtype) for _ in range(3)]
    tops = [first.new_empty((B,), dtype=torch.int64) for _ in range(2)]
    return (*values, *tops, first.new_empty((B, STATS_OF_ROW), dtype=dtype))


def _fake_backward(
    _ce_first: torch.Tensor,
    _ce_second: torch.Tensor,
    _similarity: torch.Tensor,
    first: torch.Tensor,
    second: torch.Tensor,
    _labels: torch.Tensor,
    target_first: torch.Tensor | None,
    *_: Any,
) -> tuple[torch.Tensor, ...]:
    count = 0 if target_first is None else first.shape[0]
    targets = [first.new_empty((count,), dtype=accumulation_dtype(first)) for _ in range(2)]
    return (first.new_empty(first.shape), second.new_empty(second.shape), *targets)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    first, second, labels, target_first, target_second, *choices = inputs
    top_first, top_second, stats = output[3:]
    ctx.save_for_backward(first, second, labels, target_first, target_second, stats)
    ctx.choices = choices
    ctx.mark_non_differentiable(top_first, top_second, stats)


def _backward(ctx: Any, *grads: torch.Tensor) -> Gradients:
    upstream = [g.contiguous() for g in grads[:3]]
    has_targets = ctx.saved_tensors[3] is not None
    first, second, target_first, target_second = torch.ops.pairdistill.pair_loss_backward(
        *upstream, *ctx.saved_tensors, *ctx.choices
    )
    targets = (target_first, target_second) if has_targets else (None, None)
    return (first, second, None, *targets, *([None] * len(ctx.choices)))


def _keep_nothing(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    """A second derivative is refused: nothing to keep."""


def _double_backward(ctx: Any, *grads: torch.Tensor) -> Gradients:
    raise RuntimeError(
        "pair_loss: a second derivative is not implemented by the native op; "
        "choose loss.implementation = 'reference'"
    )
