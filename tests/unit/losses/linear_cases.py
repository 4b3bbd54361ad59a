"""Features, weights and labels, and the pair loss of them over whole scores: the oracle."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
import torch.nn.functional as F

from distill.losses import PairLoss, PairLossSpec, RowMargins, linear_pair_loss, pair_loss

ARC = {"logit_scale": 16.0, "margin_angle_rad": 0.5, "margin_cosine": 0.1}


@dataclass(frozen=True)
class Inputs:
    first: torch.Tensor
    second: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None
    labels: torch.Tensor
    sample_weights: torch.Tensor | None = None

    def to(self, dtype: torch.dtype) -> Inputs:
        made = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {k: v.to(dtype) for k, v in made.items() if v is not None and k != "labels"}
        return replace(self, **moved)

    def leaves(self) -> list[torch.Tensor]:
        """Fresh leaves: both features, the weight, and the bias where there is one."""
        tensors = (self.first, self.second, self.weight, self.bias)
        return [t.detach().clone().requires_grad_() for t in tensors if t is not None]


def make_inputs(
    B: int,
    D: int,
    C: int,
    head: str,
    *,
    scale: float = 1.0,
    seed: int = 0,
    weighted: bool = True,
    sub_centres: int = 1,
) -> Inputs:
    """float64; one ignored label where B > 2, and the first and last class among the labels."""
    made = torch.Generator().manual_seed(1000 * seed + B + 10 * D + 100 * C)
    first, noise = (torch.randn(B, D, generator=made, dtype=torch.float64) for _ in range(2))
    shape = (C, D) if sub_centres == 1 else (C, sub_centres, D)
    weight = scale * torch.randn(shape, generator=made, dtype=torch.float64)
    bias = torch.randn(C, generator=made, dtype=torch.float64) if head == "linear" else None
    labels = torch.randint(0, C, (B,), generator=made)
    labels[0], labels[-1] = 0, C - 1
    if B > 2:
        labels[1] = -1
    weights = torch.rand(B, generator=made, dtype=torch.float64) if weighted else None
    return Inputs(first, first + 0.5 * noise, weight, bias, labels, weights)


def row_margins(B: int, seed: int = 0) -> RowMargins:
    """Margins of 2B images, float64: angles of both signs, the first and the last 0."""
    made = torch.Generator().manual_seed(seed)
    angle = torch.rand(2 * B, generator=made, dtype=torch.float64) - 0.5
    angle[0] = angle[-1] = 0.0
    return RowMargins(angle, 0.8 * torch.rand(2 * B, generator=made, dtype=torch.float64))


def cosines(features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """With each class, (N, C); of sub-centres the largest, of equal ones the first (numpy says)."""
    if weight.dim() == 2:
        return F.normalize(features) @ F.normalize(weight).T
    lengths = features.norm(dim=1)[:, None, None] * weight.norm(dim=2)
    of_each = torch.einsum("nd,ckd->nck", features, weight) / lengths
    winners = torch.from_numpy(np.argmax(of_each.detach().numpy(), axis=2))
    return of_each.gather(2, winners[..., None])[..., 0]


def whole_scores(leaves: list[torch.Tensor], head: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of both sides for all classes, differentiable."""
    first, second, weight, *bias = leaves
    if head == "cosine":
        return cosines(first, weight), cosines(second, weight)
    return F.linear(first, weight, *bias), F.linear(second, weight, *bias)


def by_whole_scores(
    inputs: Inputs, spec: PairLossSpec, head: str, implementation: str = "reference", **options
) -> list[torch.Tensor]:
    """All fields of the loss, then the gradients."""
    leaves = inputs.leaves()
    loss = pair_loss(
        *whole_scores(leaves, head),
        inputs.labels,
        temperature=options.get("temperature", 2.5),
        weight=0.7,
        spec=spec,
        sample_weights=inputs.sample_weights,
        margins=options.get("margins"),
        reduction=options.get("reduction", "mean"),
        implementation=implementation,
    )
    return with_gradients(loss, leaves)


def by_chunks(
    inputs: Inputs, spec: PairLossSpec, head: str, implementation: str = "reference", **options
) -> list[torch.Tensor]:
    """The same by `linear_pair_loss`."""
    leaves = inputs.leaves()
    return with_gradients(loss_of(leaves, inputs, spec, head, implementation, **options), leaves)


def loss_of(
    leaves: list[torch.Tensor],
    inputs: Inputs,
    spec: PairLossSpec,
    head: str,
    implementation: str = "reference",
    **options,
) -> PairLoss:
    """`linear_pair_loss` of ``leaves``, with the labels and sample weights of ``inputs``."""
    given = {"temperature": 2.5, "similarity_weight": 0.7, "chunk_classes": 5} | options
    return linear_pair_loss(
        *leaves[:3],
        inputs.labels,
        bias=leaves[3] if len(leaves) > 3 else None,
        spec=spec,
        head=head,
        sample_weights=inputs.sample_weights,
        implementation=implementation,
        **given,
    )


def with_gradients(loss: PairLoss, leaves: list[torch.Tensor]) -> list[torch.Tensor]:
    """Fields of the loss, and gradients of the total for an upstream gradient that is not 1."""
    upstream = torch.linspace(1.3, 2.0, loss.total.numel(), dtype=loss.total.dtype)
    gradients = torch.autograd.grad((loss.total * upstream).sum(), leaves)
    return [x.detach() for x in (*loss, *gradients)]
