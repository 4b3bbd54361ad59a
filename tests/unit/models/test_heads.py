"""Heads: cosines, their types, their settings."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import is_tensor
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from distill.config.tree import HeadConfig
from distill.errors import UserError
from distill.heads import (
    ClassRanges,
    CosineHead,
    LinearHead,
    build_head,
    build_sharded_head,
    exchange,
    rows,
)
from distill.heads.answers import answers_to, logits_of
from distill.models.classifier import PairClassifier


def test_cosine_head_against_the_plain_formula():
    head = CosineHead(5, 7, 30.0).double()
    embeddings = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    cosines = torch.stack(
        [F.cosine_similarity(embeddings, w[None].expand(6, -1)) for w in head.weight], dim=1
    )
    torch.testing.assert_close(head(embeddings), cosines)
    assert torch.autograd.gradcheck(head, embeddings)


def test_gradients_of_ranks_are_added_in_float32_and_rounded_once(monkeypatch):
    """What three ranks contribute to the embeddings of one; times their number (see there)."""
    made = torch.Generator().manual_seed(0)
    ranks = torch.randn(3, 3, 4, 5, generator=made).bfloat16()  # of each, for those of each

    def added(mine, wide):
        assert torch.equal(wide, ranks[0].flatten(0, 1).to(wide.dtype))
        mine.copy_(ranks[:, 1].to(wide.dtype).sum(0))

    monkeypatch.setattr(exchange, "_reduce_scatter", added)
    monkeypatch.setattr(exchange, "gathered", lambda rows: torch.stack([rows] * 3))
    rows = torch.randn(4, 5, generator=made).bfloat16().requires_grad_()
    (found,) = torch.autograd.grad(exchange.gathered_embeddings(rows), rows, ranks[0])
    expected = 3 * ranks[:, 1].double().sum(0)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected.float().bfloat16())


def test_scores_are_wide():
    assert CosineHead(16, 9, 64.0).bfloat16()(torch.randn(4, 16).bfloat16()).dtype == torch.float32
    assert LinearHead(16, 9).bfloat16()(torch.randn(4, 16).bfloat16()).dtype == torch.float32


def test_cosines_stay_float32_under_autocast():
    head, embeddings = CosineHead(64, 50, 64.0), torch.randn(8, 64)
    with torch.autocast("cpu", torch.bfloat16):
        scores = head(embeddings)
    assert torch.equal(scores, head(embeddings))


@pytest.mark.parametrize("build", [LinearHead, lambda d, c: CosineHead(d, c, 64.0)])
def test_logits_from_a_lent_weight_stay_float32_under_autocast(build):
    head, embeddings = build(64, 50), torch.randn(8, 64)
    args = (embeddings, head.weight.detach(), head.bias, head.scale)
    with torch.autocast("cpu", torch.bfloat16):
        logits = logits_of(*args)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, logits_of(*args))


class New(TorchDispatchMode):
    """How many numbers the largest new tensor has that a block makes."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        old = {each.untyped_storage().data_ptr() for each in tree_leaves(args) if is_tensor(each)}
        for each in tree_leaves(found):
            if is_tensor(each) and each.untyped_storage().data_ptr() not in old:
                self.largest = max(self.largest, each.numel())
        return found


@pytest.mark.parametrize(
    "head", [LinearHead(64, 50), CosineHead(64, 50, 16.0), CosineHead(64, 50, 16.0, sub_centres=3)]
)
def test_answers_are_those_of_the_scores_without_a_copy_of_the_weight(head):
    embeddings, classes = torch.randn(2, 64), torch.tensor([7, -1])
    model = PairClassifier(torch.nn.Identity(), head)
    with torch.no_grad():
        expected = model(embeddings).logits
    with New() as new:
        logits, found = model.logits(embeddings), model.answers(embeddings, classes)
    torch.testing.assert_close(logits, expected)
    assert found.predicted.tolist() == expected.argmax(1).tolist()
    assert 0 < new.largest <= 3 * len(embeddings) * 50


def test_answers_that_are_not_numbers_count_as_wrong():
    """One logit that is not a number spoils the row: its probabilities are none either."""
    logits = torch.tensor([[3.0, 1.0, 2.0, 0.0], [3.0, 1.0, 2.0, 0.0]])
    logits[1, 0] = torch.nan
    for row in (0, 1):
        found = answers_to(logits[row : row + 1], torch.tensor([0]))
        assert found.places.item() == (3 if row else 0)
    assert answers_to(torch.full((1, 4), torch.nan), torch.tensor([2])).places.item() == 3


def test_settings_choose_head_and_scale():
    head = build_head(HeadConfig(margin="arcface", scale=12.0), 4, 3)
    assert isinstance(head, CosineHead) and head.scale == 12.0
    linear = build_head(HeadConfig(kind="linear"), 4, 3)
    assert isinstance(linear, LinearHead) and linear.scale == 1.0


def test_linear_head_refuses_a_margin():
    with pytest.raises(UserError, match=r"head\.margin = 'arcface'"):
        build_head(HeadConfig(kind="linear", margin="arcface"), 4, 3)


def test_linear_head_refuses_sub_centres():
    with pytest.raises(UserError, match=r"head\.sub_centres = 3: .*set head\.kind = 'cosine' or"):
        build_head(HeadConfig(kind="linear", sub_centres=3), 4, 3)


def test_sub_centres_against_the_plain_formula():
    """Values, gradients by finite differences, and the logits that evaluations make."""
    torch.manual_seed(1)
    head = CosineHead(5, 7, 30.0, sub_centres=3).double()
    embeddings = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    x, w = embeddings.detach().numpy(), head.weight.detach().numpy()
    x, w = (one / np.linalg.norm(one, axis=-1, keepdims=True) for one in (x, w))
    expected = np.array([[max(row @ one for one in several) for several in w] for row in x])
    torch.testing.assert_close(head(embeddings).detach(), torch.from_numpy(expected))
    logits = logits_of(embeddings.detach(), head.weight.detach(), None, head.scale)
    torch.testing.assert_close(logits, 30.0 * torch.from_numpy(expected))
    inputs = (embeddings, head.weight.detach().requires_grad_())
    assert torch.autograd.gradcheck(lambda x, w: functional_call(head, {"weight": w}, x), inputs)


def test_of_equal_sub_centres_the_first_gets_the_gradient():
    torch.manual_seed(1)
    head = CosineHead(4, 4, 30.0, sub_centres=3)
    head.weight.data.sign_()  # cosines without rounding
    head.weight.data[:, 2] = head.weight.data[:, 1]
    (head(torch.randn(64, 4).sign()) * torch.randn(64, 4)).sum().backward()
    assert head.weight.grad[:, 0].any() and head.weight.grad[:, 1].any()
    assert not head.weight.grad[:, 2].any()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 30), st.integers(1, 5), st.integers(1, 4), st.integers(1, 40), st.booleans())
def test_shards_are_the_rows_of_the_whole_head(classes, ranks, count, block, cosine):
    """Whole identities in their order, however the draw of the numbers is cut."""
    kind, count = ("cosine", count) if cosine else ("linear", 1)
    config = HeadConfig(kind=kind, sub_centres=count)

    def drawn(make):
        torch.manual_seed(3)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rows, "ELEMENTS_DRAWN_AT_ONCE", block)
            return make(), torch.get_rng_state()

    whole, state = drawn(lambda: build_head(config, 3, classes))
    assert whole.weight.shape == ((classes, 3) if count == 1 else (classes, count, 3))
    parts = []
    for rank in range(ranks):
        ranges = ClassRanges.even(classes, rank, ranks)
        shard, after = drawn(lambda r=ranges: build_sharded_head(config, 3, r))
        assert shard.local.weight.shape == (len(ranges.mine), *whole.weight.shape[1:])
        assert torch.equal(after, state)
        parts.append(shard.local)
    assert torch.equal(torch.cat([part.weight for part in parts]), whole.weight)
    if not cosine:
        assert torch.equal(torch.cat([part.bias for part in parts]), whole.bias)


def test_a_linear_head_begins_as_torchs_layer():
    """To the bit, and its logits are that layer's."""
    torch.manual_seed(3)
    head = build_head(HeadConfig(kind="linear"), 5, 7)
    torch.manual_seed(3)
    layer = torch.nn.Linear(5, 7)
    assert torch.equal(head.weight, layer.weight) and torch.equal(head.bias, layer.bias)
    x = torch.randn(6, 5)
    assert torch.equal(head(x), layer(x))


def test_one_sub_centre_is_the_head_without_any():
    """To the bit: what `nn.init` draws, and the product that was always made."""
    torch.manual_seed(3)
    head = build_head(HeadConfig(sub_centres=1), 5, 7)
    torch.manual_seed(3)
    weight = torch.nn.init.normal_(torch.empty(7, 5), std=0.01)
    assert torch.equal(head.weight, weight)
    x = torch.randn(6, 5)
    assert torch.equal(head(x), F.normalize(x) @ F.normalize(weight).T)
