"""Random pairs at several logit scales, and the loss as one writes it in plain torch."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F

from distill.losses import PairLossSpec, fused, reference
from distill.losses.spec import RowTerms

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


def plain_terms(
    first: torch.Tensor,
    second: torch.Tensor,
    labels: torch.Tensor,
    temperature: float,
    spec: PairLossSpec,
) -> RowTerms:
    """What a user would write; float16 and bfloat16 computed in float32, as autocast does."""
    work = torch.float64 if first.dtype == torch.float64 else torch.float32
    z1, z2 = first.to(work), second.to(work)
    ce = [
        F.cross_entropy(
            z, labels, reduction="none", ignore_index=-1, label_smoothing=spec.label_smoothing
        )
        for z in (z1, z2)
    ]
    a, b = (z1 / temperature).log_softmax(1), (z2 / temperature).log_softmax(1)
    p, q = a.exp(), b.exp()
    one_way = {
        "none": (torch.zeros_like(ce[0]),) * 2,
        "kl": [
            F.kl_div(y, x, reduction="none", log_target=True).sum(1) for x, y in ((a, b), (b, a))
        ],
        "ce": [-(p * b).sum(1), -(q * a).sum(1)],
        "mmd": [(p - q).square().sum(1)] * 2,
    }[spec.similarity]
    forward, reverse = spec.direction_weights
    similarity = spec.similarity_scale(temperature) * (forward * one_way[0] + reverse * one_way[1])
    keep = labels != -1
    return RowTerms(ce[0], ce[1], similarity * keep, z1.argmax(1), z2.argmax(1))


FUNCTIONS = {"native": fused.row_terms, "reference": reference.row_terms, "plain": plain_terms}
Results = tuple[torch.Tensor, ...]


def values_and_gradients(
    how: str, case: Case, temperature: float, spec: PairLossSpec, upstream: Results | None = None
) -> Results:
    """Cross-entropies and similarity of each row, and both gradients; all as float64."""
    first, second = case.first.clone().requires_grad_(), case.second.clone().requires_grad_()
    terms = FUNCTIONS[how](first, second, case.labels, temperature, spec)
    ups = upstream or (torch.tensor(1.0), torch.tensor(1.0), torch.tensor(1.0))
    total = sum((t * u.to(t.dtype)).sum() for t, u in zip(terms[:3], ups, strict=True))
    total.backward()
    grads = (first.grad, second.grad)
    return tuple(t.detach().double() for t in (*terms[:3], *grads))
