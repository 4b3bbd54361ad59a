"""The native pair loss: finds the extension and calls it.

`kernels/` builds into `distill/_kernels.so`, which registers on being loaded

    torch.ops.pairdistill.pair_loss           values and statistics of each pair: one read of scores
    torch.ops.pairdistill.pair_loss_backward  gradients from the statistics: one read, one write
    torch.ops.pairdistill.pair_loss_and_grad  both in one read and one write; with _ in place

and the primitives for classes in chunks, with an implementation for the CPU and, where it was built
with nvcc, for CUDA.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch

from distill.losses import registration
from distill.losses.margin import RowMargins, logits_of
from distill.losses.reference import similarity as plain_similarity
from distill.losses.reference import valid_rows
from distill.losses.spec import PairLossSpec, RowTerms, accumulation_dtype

LIBRARY = Path(__file__).resolve().parent.parent / "_kernels.so"
"""The built extension; `pip install -e .` puts it there."""

KINDS = {"none": 0, "kl": 1, "ce": 2, "mmd": 3}
SIDES = {"none": 0, "first": 1, "second": 2}
REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}


@functools.cache
def native_devices() -> tuple[str, ...]:
    """Device types the extension was built for, e.g. ``("cpu", "cuda")``; empty where not built.

    Loads the extension at the first call.
    """
    if not LIBRARY.exists():
        return ()
    torch.ops.load_library(str(LIBRARY))  # type: ignore[no-untyped-call]
    registration.register()
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    op = "pairdistill::pair_loss"
    return tuple(name for name, key in (("cpu", "CPU"), ("cuda", "CUDA")) if has(op, key))


def build_info() -> tuple[str, str]:
    """Vector instructions of the CPU path, and how the extension was built; one line each."""
    if not native_devices():
        return "", ""
    ops = torch.ops.pairdistill
    return str(ops.cpu_instructions()), str(ops.build_description())


def choices(spec: PairLossSpec, temperature: float) -> tuple[Any, ...]:
    """The last arguments of every operator.

    The RBF discrepancy of a batch is no sum over pairs, and the operators know no groups of
    classes: for both they take no similarity.
    """
    return (
        temperature,
        KINDS[spec.kernel_similarity],
        *spec.direction_weights,
        spec.similarity_scale(temperature),
        spec.label_smoothing,
        SIDES[spec.stop_gradient],
        spec.logit_scale,
        spec.margin_angle_rad,
        spec.margin_cosine,
    )


def margin_table(margins: RowMargins | None, scores: torch.Tensor) -> torch.Tensor | None:
    """Margins of each pair as the operators take them, for scores (or features) of any type."""
    return None if margins is None else margins.table(accumulation_dtype(scores))


def row_terms(
    first: torch.Tensor,
    second: torch.Tensor,
    labels: torch.Tensor,
    temperature: float,
    spec: PairLossSpec,
    margins: RowMargins | None = None,
) -> RowTerms:
    """The terms of each pair by the native op; see :func:`distill.losses.reference.row_terms`.

    Of the RBF discrepancy, and of grouped classes, the native op gives the cross-entropies, and
    plain torch the similarity.
    """
    values, extras, tops, _ = torch.ops.pairdistill.pair_loss(
        first,
        second,
        labels.contiguous(),
        *choices(spec, temperature),
        margins=margin_table(margins, first),
    )
    if spec.whole_in_kernels:
        return RowTerms(values, extras, tops)
    z1, z2, _ = valid_rows(first, second, labels)
    similarity = plain_similarity(
        logits_of(z1, spec), logits_of(z2, spec), labels, temperature, spec
    )
    if spec.over_batch:
        return RowTerms(values, extras, tops, similarity)
    return RowTerms(torch.cat([values[:, :2], similarity[:, None]], 1), extras, tops)
