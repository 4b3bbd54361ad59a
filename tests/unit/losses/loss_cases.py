"""Random pairs at several logit scales, and the loss by each of its implementations."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from distill.losses import PairLossSpec, fused, plain, reference

needs_native = pytest.mark.skipif(
    "cpu" not in fused.native_devices(), reason="the native extension is not built"
)


@dataclass(frozen=True)
class Case:
    first: torch.Tensor
    second: torch.Tensor
    labels: torch.Tensor

    def to(self, dtype: torch.dtype) -> Case:
        return Case(self.first.to(dtype), self.second.to(dtype), self.labels)


def make_case(
    B: int,
    C: int,
    scale: float,
    *,
    apart: float | None = None,
    dtype: torch.dtype = torch.float32,
    ignored: bool = False,
    seed: int = 0,
) -> Case:
    """Logits that ``dtype`` can hold exactly, as float64; the sides lie ``apart``."""
    generator = torch.Generator().manual_seed(seed * 1000 + B * 7 + C)
    first = scale * torch.randn(B, C, generator=generator, dtype=torch.float64)
    noise = torch.randn(B, C, generator=generator, dtype=torch.float64)
    second = first + (scale if apart is None else apart) * noise
    labels = torch.randint(0, C, (B,), generator=generator)
    if ignored:
        labels[B // 2] = -1
    return Case(first.to(dtype).double(), second.to(dtype).double(), labels)


def cuda(case: Case, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits and labels on the GPU."""
    return case.first.to("cuda", dtype), case.second.to("cuda", dtype), case.labels.cuda()


FUNCTIONS = {"native": fused.row_terms, "reference": reference.row_terms, "plain": plain.row_terms}
Results = tuple[torch.Tensor, ...]


def values_and_gradients(
    how: str, case: Case, temperature: float, spec: PairLossSpec, upstream: Results | None = None
) -> Results:
    """Cross-entropies and similarity of each row, and both gradients; all as float64."""
    first, second = case.first.clone().requires_grad_(), case.second.clone().requires_grad_()
    terms = FUNCTIONS[how](first, second, case.labels, temperature, spec)
    ups = upstream or (torch.tensor(1.0), torch.tensor(1.0), torch.tensor(1.0))
    total = sum((t * u.to(t.dtype)).sum() for t, u in zip(terms.parts, ups, strict=True))
    total.backward()
    grads = (first.grad, second.grad)
    return tuple(t.detach().double() for t in (*terms.parts, *grads))
