"""Measures the errors of the pair loss; `docs/numerics.md` shows what it prints.

python -m distill.losses.error_tables          errors against float64, as Markdown
python -m distill.losses.error_tables --exp    the polynomial of the CPU path's exp, fitted again
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch

from distill.losses import PairLossSpec, fused, implementation_info, plain, reference
from distill.losses.spec import RowTerms

SCALES = (0.1, 1.0, 10.0, 64.0)
APART = {"near (1e-3)": 1e-3, "apart (scale)": None}
B, C, T = 16, 10_007, 3.0

Results = tuple[torch.Tensor, ...]


def make_pairs(
    scale: float, apart: float | None, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random logits that ``dtype`` holds exactly, (B, C) float64 each, and labels (B,)."""
    generator = torch.Generator().manual_seed(7)
    first = scale * torch.randn(B, C, generator=generator, dtype=torch.float64)
    noise = torch.randn(B, C, generator=generator, dtype=torch.float64)
    second = first + (scale if apart is None else apart) * noise
    labels = torch.randint(0, C, (B,), generator=generator)
    return first.to(dtype).double(), second.to(dtype).double(), labels


def results(
    function: Callable[..., RowTerms],
    pairs: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    dtype: torch.dtype,
    spec: PairLossSpec,
) -> Results:
    """Values (cross-entropies, similarity) and gradients of the sum of all, as float64."""
    first, second = (z.to(dtype).clone().requires_grad_() for z in pairs[:2])
    terms = function(first, second, pairs[2], T, spec)
    total = sum(t.sum() for t in terms.parts)
    torch.autograd.backward(torch.as_tensor(total))
    assert first.grad is not None and second.grad is not None
    return tuple(t.detach().double() for t in (*terms.parts, first.grad, second.grad))


def largest_errors(ours: Results, true: Results) -> tuple[float, float, float]:
    """Largest absolute error of the cross-entropies, the similarity and the gradients."""
    errors = [float((a - b).abs().max()) for a, b in zip(ours, true, strict=True)]
    return max(errors[:2]), errors[2], max(errors[3:])


def rows(dtype: torch.dtype) -> Iterator[str]:
    """Lines of the table of one type."""
    similarities: tuple[Literal["kl", "ce", "mmd"], ...] = ("kl", "ce", "mmd")
    for similarity in similarities:
        spec = PairLossSpec(similarity=similarity, scale_by_t2=False)
        for scale in SCALES:
            for name, apart in APART.items():
                pairs = make_pairs(scale, apart, dtype)
                true = results(reference.row_terms, pairs, torch.float64, spec)
                cells = [similarity, f"{scale:g}", name]
                for function in (fused.row_terms, plain.row_terms):
                    errors = largest_errors(results(function, pairs, dtype, spec), true)
                    cells += [f"{e:.1e}" for e in errors]
                yield "| " + " | ".join(cells) + " |"


def print_tables() -> None:
    """One table a type."""
    print(f"{implementation_info().summary()}\nB = {B}, C = {C}, T = {T:g}, no T^2, symmetric\n")
    head = "| similarity | scale | p, q | CE | S | gradient | plain CE | plain S | plain gradient |"
    for dtype in (torch.float32, torch.bfloat16):
        print(f"**{dtype}**\n\n{head}\n|" + "---|" * 9)
        for line in rows(dtype):
            print(line)
        print()


def fit_exp(degree: int = 4) -> tuple[list[float], float]:
    """P of exp(r) = 1 + r + r^2 P(r) for |r| <= ln 2 / 2, lowest power first, and its error.

    Reweighted least squares of the relative error on 2000 Chebyshev nodes.
    """
    nodes = 2000
    r = np.log(2) / 2 * np.cos((2 * np.arange(nodes) + 1) * np.pi / (2 * nodes))
    small = np.abs(r) < 1e-3
    series = 0.5 + r / 6 + r**2 / 24 + r**3 / 120
    target = np.where(small, series, (np.expm1(r) - r) / np.where(small, 1.0, r * r))
    relative: Any = r * r / np.exp(r) + 1e-9
    powers, weight = np.vander(r, degree + 1, increasing=True), relative.copy()
    for _ in range(60):
        fit = np.linalg.lstsq(powers * weight[:, None], target * weight, rcond=None)[0]
        error = np.abs((powers @ fit - target) * relative)
        weight = weight * np.sqrt(0.02 + error / error.max())
        weight /= weight.max()
    return [float(c) for c in fit], float(error.max())


def main() -> None:
    """Entry of ``python -m``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--exp", action="store_true", help="fit the polynomial of exp again")
    if parser.parse_args().exp:
        coefficients, error = fit_exp()
        print(
            f"coefficients, lowest power first: {coefficients}\nlargest relative error {error:.1e}"
        )
    elif "cpu" in fused.native_devices():
        print_tables()
    else:
        raise SystemExit("error: the native op is not built; run `make setup`")


if __name__ == "__main__":
    main()
