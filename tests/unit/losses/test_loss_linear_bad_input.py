"""Every wrong argument of the streamed losses is one line that names it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.errors import UserError
from distill.losses import PairLossSpec, RowMargins, linear_cross_entropy, linear_pair_loss
from distill.losses.linear_checks import checksum

X = torch.zeros(3, 4)
W = torch.zeros(5, 4)
Y = torch.tensor([0, 4, -1])
DEFAULTS = {
    "features_first": X,
    "features_second": X,
    "weight": W,
    "labels": Y,
    "temperature": 2.0,
    "similarity_weight": 1.0,
    "spec": PairLossSpec(),
}


def test_the_defaults_are_fine() -> None:
    assert linear_pair_loss(**DEFAULTS).total.isfinite()
    assert linear_pair_loss(**DEFAULTS | {"features_first": X.T.contiguous().T}).total > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features_first": X.long()}, r"features_first are torch.int64: must be floating"),
        ({"features_second": torch.zeros(3)}, r"features_second have shape \(3,\)"),
        ({"features_first": X[:0], "features_second": X[:0]}, r"shape \(0, 4\).*B >= 1"),
        ({"features_second": torch.zeros(2, 4)}, "differ in shape"),
        ({"features_second": X.double()}, "differ in dtype: torch.float32 and torch.float64"),
        ({"features_second": X.to("meta")}, "differ in device"),
        ({"weight": torch.zeros(5, 3)}, r"weight has shape \(5, 3\): must be \(C, 4\)"),
        ({"weight": torch.zeros(1, 4)}, r"weight has shape \(1, 4\).*C >= 2"),
        ({"weight": torch.zeros(5)}, r"weight has shape \(5,\)"),
        ({"weight": torch.zeros(5, 2, 4)}, r"shape \(5, 2, 4\): must be \(C, 4\), C >= 2;"),
        *(
            ({"weight": torch.zeros(shape), "head": "cosine"}, r"C >= 2, or \(C, K, 4\), K <= 256")
            for shape in ((5, 2, 3), (5, 0, 4), (5, 257, 4), (1, 2, 4), (5, 1, 2, 4))
        ),
        ({"weight": W.int()}, "weight is torch.int32"),
        ({"weight": W.to("meta")}, "weight is on meta, the features on cpu"),
        ({"bias": torch.zeros(4)}, r"bias has shape \(4,\): must be \(5,\)"),
        ({"bias": torch.zeros(5).long()}, "bias is torch.int64"),
        ({"labels": Y.int()}, r"labels are torch.int32 \(3,\): must be torch.int64 \(3,\)"),
        ({"labels": Y[:2]}, r"labels are torch.int64 \(2,\)"),
        ({"labels": Y.to("meta")}, "labels are on meta"),
        ({"labels": torch.tensor([0, 5, 1])}, r"labels\[1\] = 5: must be in \[0, 5\)"),
        ({"temperature": 0.0}, "temperature = 0.0"),
        ({"similarity_weight": -1.0}, "weight = -1.0"),
        ({"sample_weights": torch.tensor([1.0, torch.nan, 1.0])}, r"sample_weights\[1\] = nan"),
        ({"sample_weights": torch.ones(2)}, r"sample_weights have shape \(2,\)"),
        ({"reduction": "max"}, "reduction = 'max'"),
        ({"head": "arc"}, "head = 'arc': unknown; choose one of linear, cosine"),
        ({"head": "cosine", "bias": torch.zeros(5)}, "bias: a cosine head has none"),
        ({"spec": PairLossSpec(margin_cosine=0.3)}, "head = 'linear': it has no cosine"),
        ({"spec": PairLossSpec(similarity="mmd", mmd_kernel="rbf")}, "mmd_kernel = 'rbf'"),
        ({"memory_budget_bytes": -1}, "memory_budget_bytes = -1"),
        ({"memory_budget_bytes": 1e9}, "memory_budget_bytes = 1000000000.0"),
        ({"chunk_classes": 0}, "chunk_classes = 0: must be a whole number >= 1"),
        ({"implementation": "cuda"}, "loss.implementation = 'cuda': unknown"),
    ],
)
def test_bad_arguments(changes, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        linear_pair_loss(**DEFAULTS | changes)
    assert caught.value.fix


OF_IMAGES = {"features": X, "weight": W, "labels": Y, "spec": PairLossSpec()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": X.long()}, r"features are torch.int64: must be floating"),
        ({"features": X[:0]}, r"features have shape \(0, 4\).*B >= 1"),
        ({"weight": torch.zeros(5, 3)}, r"weight has shape \(5, 3\): must be \(C, 4\)"),
        ({"labels": Y[:2]}, r"labels are torch.int64 \(2,\)"),
        ({"labels": torch.tensor([0, 5, 1])}, r"labels\[1\] = 5: must be in \[0, 5\)"),
        ({"sample_weights": torch.ones(2)}, r"sample_weights have shape \(2,\)"),
        ({"reduction": "max"}, "reduction = 'max'"),
        ({"head": "arc"}, "head = 'arc': unknown; choose one of linear, cosine"),
        ({"head": "cosine", "bias": torch.zeros(5)}, "bias: a cosine head has none"),
        ({"spec": PairLossSpec(margin_cosine=0.3)}, "head = 'linear': it has no cosine"),
        (
            {"head": "cosine", "margins": RowMargins(torch.zeros(6), torch.zeros(6))},
            r"margins.angle_rad is torch.float32 \(6,\): must be floating \(3,\)",
        ),
        ({"memory_budget_bytes": -1}, "memory_budget_bytes = -1"),
        ({"chunk_classes": 0}, "chunk_classes = 0: must be a whole number >= 1"),
        ({"implementation": "cuda"}, "loss.implementation = 'cuda': unknown"),
    ],
)
def test_bad_arguments_of_single_images(changes, message: str) -> None:
    assert linear_cross_entropy(**OF_IMAGES).total.isfinite()
    with pytest.raises(UserError, match=message) as caught:
        linear_cross_entropy(**OF_IMAGES | changes)
    assert caught.value.fix


WHOLE = {torch.float64: torch.int64, torch.float32: torch.int32, torch.bfloat16: torch.int16}


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.sampled_from(list(WHOLE)), st.integers(0, 63), st.integers(0, 11), st.integers(0, 11))
def test_a_checksum_changes_with_any_bit_and_with_the_order(dtype, bit, one, other) -> None:
    """By it ranks find that they were given other things; the highest bit is a number's sign."""
    made = torch.Generator().manual_seed(one)
    values = torch.randn(3, 4, generator=made, dtype=torch.float64).to(dtype)
    assert checksum(values) == checksum(values.clone().requires_grad_())
    assert checksum(values) == checksum(values.T.contiguous().T)
    bit %= torch.finfo(dtype).bits
    changed = values.clone()
    flip = 1 << bit if bit < torch.finfo(dtype).bits - 1 else torch.iinfo(WHOLE[dtype]).min
    changed.view(WHOLE[dtype]).view(-1)[one] ^= flip
    assert checksum(changed) != checksum(values)
    order = torch.arange(12)
    order[[one, other]] = order[[other, one]]
    swapped = values.flatten()[order].view(3, 4)
    assert (checksum(swapped) == checksum(values)) == torch.equal(swapped, values)
