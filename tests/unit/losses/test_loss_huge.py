"""Rows further apart, and more scores together, than 32 bits count; in memory that is not there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from distill.losses import PairLossSpec, fused, pair_loss_and_grad

sys.path.insert(0, str(Path(__file__).parent))
from loss_cases import make_case, needs_native

pytestmark = needs_native
FAR = 2**31 + 5  # elements from row to row


def far_apart(rows: torch.Tensor) -> torch.Tensor:
    """The same two rows, ``FAR`` elements apart; only their pages are ever touched."""
    try:
        memory = torch.empty(FAR + rows.shape[1], dtype=rows.dtype)
    except RuntimeError as error:
        pytest.skip(f"no 4 GB of address space here: {error}")
    view = memory.as_strided(rows.shape, (FAR, 1))
    view.copy_(rows)
    return view


@pytest.mark.parametrize("similarity", ["kl", "mmd"])
def test_rows_far_apart(similarity: str) -> None:
    case = make_case(2, 70_001, 2.0, dtype=torch.bfloat16).to(torch.bfloat16)
    settings = {"temperature": 2.0, "weight": 1.0, "spec": PairLossSpec(similarity=similarity)}
    expected = pair_loss_and_grad(case.first, case.second, case.labels, **settings)
    first, second = far_apart(case.first), far_apart(case.second)
    apart = fused.row_terms(first, second, case.labels, 2.0, settings["spec"])
    near = fused.row_terms(case.first, case.second, case.labels, 2.0, settings["spec"])
    assert torch.equal(apart.values, near.values)
    ours = pair_loss_and_grad(first, second, case.labels, **settings, inplace=True)
    assert torch.equal(ours.loss.total, expected.loss.total)
    assert torch.equal(first, expected.grad_first)
    assert torch.equal(second, expected.grad_second)


def test_more_scores_than_32_bits_count() -> None:
    """2^32 of them: one row given 32768 times, all but the last ignored."""
    case = make_case(1, 2**17, 1.0, dtype=torch.bfloat16).to(torch.bfloat16)
    labels = torch.full((2**15,), -1)
    labels[-1] = case.labels[0]
    many = (case.first.expand(2**15, -1), case.second.expand(2**15, -1))
    ours = fused.row_terms(*many, labels, 2.0, PairLossSpec())
    one = fused.row_terms(case.first, case.second, case.labels, 2.0, PairLossSpec())
    assert torch.equal(ours.values[-1:], one.values)
    assert torch.equal(ours.tops[-1:], one.tops)
    assert not ours.values[:-1].any()
