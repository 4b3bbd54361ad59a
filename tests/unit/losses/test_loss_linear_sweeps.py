"""How often scores are made, what is kept of them, and that no way of cutting classes matters."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.losses import ClassShards, PairLossSpec, fused, linear, linear_native, linear_plain
from distill.losses.linear_scores import ClassScores
from distill.losses.linear_state import Choices, State, empty_state
from distill.losses.live_memory import LiveMemory

sys.path.insert(0, str(Path(__file__).parent))
from linear_cases import by_chunks, by_whole_scores, loss_of, make_inputs

needs_native = pytest.mark.skipif(
    "cpu" not in fused.native_devices(), reason="the native extension is not built"
)
PRIMITIVES = [linear_plain, pytest.param(linear_native, marks=needs_native)]
SPECS = [PairLossSpec(similarity=s, label_smoothing=0.1) for s in ("none", "kl", "ce", "mmd")]
CHUNK_BYTES = 2 * 4 * 5 * 8  # B = 4 pairs, 5 classes, float64


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """First class of every chunk of scores, as they are made."""
    starts: list[int] = []
    original = ClassScores.of

    def of(self: ClassScores, start: int, stop: int) -> torch.Tensor:
        starts.append(start)
        return original(self, start, stop)

    monkeypatch.setattr(ClassScores, "of", of)
    return starts


@pytest.mark.parametrize("similarity", ["kl", "mmd"])
@pytest.mark.parametrize("kept", [0, 1, 3, 5])
def test_a_budget_says_how_many_chunks_are_made_again(made, similarity, kept) -> None:
    """23 classes are 5 chunks; the last is smaller and fits wherever any does."""
    inputs, spec = make_inputs(4, 6, 23, "linear"), PairLossSpec(similarity=similarity)
    all_kept = by_chunks(inputs, spec, "linear", memory_budget_bytes=2**30)
    assert made == [0, 5, 10, 15, 20]
    made.clear()
    ours = by_chunks(inputs, spec, "linear", memory_budget_bytes=kept * CHUNK_BYTES)
    again = [0, 5, 10, 15, 20][kept:]
    sweeps = 2 if similarity == "mmd" else 1
    assert made == [0, 5, 10, 15, 20] + again * sweeps
    assert all(torch.equal(a, b) for a, b in zip(ours, all_kept, strict=True))


@pytest.mark.parametrize("similarity", ["kl", "mmd"])
def test_without_a_gradient_there_is_no_sweep_for_one(made, similarity) -> None:
    inputs, spec = make_inputs(4, 6, 23, "linear"), PairLossSpec(similarity=similarity)
    expected = by_whole_scores(inputs, spec, "linear")[0]
    leaves = inputs.leaves()
    with torch.no_grad():
        loss = loss_of(leaves, inputs, spec, "linear", memory_budget_bytes=0)
    torch.testing.assert_close(loss.total, expected, rtol=1e-12, atol=0.0)
    assert not loss.total.requires_grad
    assert len(made) == (10 if similarity == "mmd" else 5)


def test_without_a_gradient_nothing_is_kept() -> None:
    inputs = make_inputs(4, 6, 4096, "linear")
    leaves = inputs.leaves()
    with torch.no_grad(), LiveMemory() as memory:
        loss_of(
            leaves, inputs, PairLossSpec(), "linear", memory_budget_bytes=2**30, chunk_classes=64
        )
    assert memory.peak_bytes < 2 * 4 * 4096 * 8 / 2


def test_backward_twice_gives_the_same_bits() -> None:
    """The first one uses up what was kept."""
    inputs = make_inputs(4, 6, 23, "cosine")
    leaves = inputs.leaves()
    total = loss_of(leaves, inputs, PairLossSpec(), "cosine").total
    one = torch.autograd.grad(total, leaves, retain_graph=True)
    two = torch.autograd.grad(total, leaves)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_changing_the_weight_before_backward_is_noticed() -> None:
    inputs = make_inputs(4, 6, 23, "linear")
    leaves = inputs.leaves()
    total = loss_of(leaves, inputs, PairLossSpec(), "linear").total
    with torch.no_grad():
        leaves[2].mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 40), st.integers(1, 45), st.integers(0, 3), st.integers(0, 999))
def test_any_chunk_size_gives_the_same(C: int, chunk: int, which: int, seed: int) -> None:
    inputs = make_inputs(3, 4, C, "linear", seed=seed)
    one = by_chunks(inputs, SPECS[which], "linear", chunk_classes=C)
    ours = by_chunks(inputs, SPECS[which], "linear", chunk_classes=chunk)
    for a, b in zip(ours, one, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)


def scores_with_ties(B: int, C: int, seed: int) -> tuple[torch.Tensor, ...]:
    """Small whole numbers, so that the largest often stands in several places."""
    made = torch.Generator().manual_seed(seed)
    first, second = torch.randint(-2, 3, (2, B, C), generator=made).double()
    labels = torch.randint(-1, C, (B,), generator=made)
    return first, second, labels


def state_of(
    primitives, scores: tuple[torch.Tensor, ...], start: int, stop: int, choices: Choices
) -> State:
    first, second, labels = scores
    state = empty_state(len(first), first, first.dtype)
    args = (first[:, start:stop].contiguous(), second[:, start:stop].contiguous(), labels)
    if stop > start:
        primitives.accumulate_(state, *args, start, choices)
    return state


@pytest.mark.parametrize("primitives", PRIMITIVES)
@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.lists(st.integers(0, 12), max_size=5), st.integers(0, 9999))
def test_shards_of_any_sizes_tell_all_that_matters(primitives, C, cuts, seed) -> None:
    """Ten numbers a pair: the loss, and exactly who agrees and who is right, ties included."""
    scores = scores_with_ties(6, C, seed)
    first, second, labels = scores
    bounds = (0, *sorted(min(cut, C) for cut in cuts), C)
    choices = Choices.of(PairLossSpec(), 2.0)
    told = []
    for rank, (start, stop) in enumerate(itertools.pairwise(bounds)):
        shards = ClassShards(None, rank, bounds)
        told.append(
            shards.pack(state_of(primitives, scores, start, stop, choices), labels, choices)
        )
    packed = torch.stack(told)
    assert packed.shape[2] == 10
    states = ClassShards(None, 0, bounds).unpack(packed, labels, choices)
    done = primitives.finish(primitives.merge(states, choices), labels, C, choices)
    whole = primitives.finish(state_of(primitives, scores, 0, C, choices), labels, C, choices)
    torch.testing.assert_close(done.values, whole.values, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(done.extras[:, 2:], whole.extras[:, 2:], rtol=1e-12, atol=0.0)
    valid = labels >= 0
    tops = torch.stack([first.argmax(1), second.argmax(1)], 1)[valid]
    found = done.tops[valid]
    assert torch.equal(found[:, 0] == found[:, 1], tops[:, 0] == tops[:, 1])
    assert torch.equal(found == labels[valid, None], tops == labels[valid, None])


def test_an_arg_max_that_is_told_lies_among_its_ranks_classes() -> None:
    """One class before the label, one after it, and the next rank's first is a top too."""
    scores = (torch.tensor([[2.0, 0, 1, 3]]), torch.tensor([[0.0, 0, 3, 1]]), torch.tensor([1]))
    choices, bounds = Choices.of(PairLossSpec(), 2.0), (0, 3, 4)
    shards = [ClassShards(None, rank, bounds) for rank in range(2)]
    told = [
        one.pack(state_of(linear_plain, scores, *bounds[r : r + 2], choices), scores[2], choices)
        for r, one in enumerate(shards)
    ]
    tops = shards[0].unpack(torch.stack(told), scores[2], choices).tops
    assert tops.tolist() == [[[0, 2]], [[3, 3]]]


def peak_beyond_weight_gradient(C: int, head: str, implementation: str, **options) -> int:
    inputs = make_inputs(4, 8, C, head).to(torch.float32)
    leaves = inputs.leaves()
    with LiveMemory() as memory:
        loss = loss_of(leaves, inputs, PairLossSpec(), head, implementation, **options)
        torch.autograd.grad(loss.total, leaves)
    result = sum(leaf.nbytes for leaf in leaves[2:])
    return memory.peak_bytes - result


@needs_native
@pytest.mark.parametrize("implementation", ["native", "reference"])
@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_memory_does_not_grow_with_the_classes(head, implementation) -> None:
    options = {"chunk_classes": 64, "memory_budget_bytes": 0}
    small, large = (
        peak_beyond_weight_gradient(C, head, implementation, **options) for C in (512, 4096)
    )
    assert abs(small - large) <= 64
    scores = 2 * 4 * 4096 * 4
    assert 0 < small < scores / 4
    budget = scores // 2
    options["memory_budget_bytes"] = budget
    with_budget = peak_beyond_weight_gradient(4096, head, implementation, **options)
    assert small + budget // 2 < with_budget <= small + budget


@pytest.mark.parametrize(("small_bytes", "made_again"), [(4 * 2 * 4 * 23, 0), (4 * 2 * 4 * 22, 5)])
def test_by_default_all_scores_are_kept_or_none(monkeypatch, made, small_bytes, made_again) -> None:
    monkeypatch.setattr(linear, "SMALL_BYTES", small_bytes)
    inputs = make_inputs(4, 6, 23, "linear").to(torch.float32)
    by_chunks(inputs, PairLossSpec(), "linear")
    assert len(made) == 5 + made_again


def test_live_memory_leaves_out_a_size() -> None:
    with LiveMemory(except_sizes=(400,)) as memory:
        kept = [torch.zeros(100), torch.zeros(50)]
    assert memory.peak_bytes == 200
    assert len(kept) == 2


def test_live_memory_counts_what_is_made_and_alive() -> None:
    before = torch.zeros(1000)
    with LiveMemory() as memory:
        view = before[10:20]
        kept = before + 1.0
        dropped = kept * 2.0
        assert (memory.live_bytes, memory.peak_bytes) == (8000, 8000)
        del dropped
        kept.add_(view[:1])
        assert (memory.live_bytes, memory.peak_bytes) == (4000, 8000)


@pytest.mark.parametrize("sub_centres", [1, 3])
@pytest.mark.parametrize(("B", "D"), [(16, 64), (512, 512), (8192, 512), (65536, 2048)])
def test_a_chunk_is_as_many_classes_as_fit_and_256_at_least(
    B: int, D: int, sub_centres: int
) -> None:
    """A class takes K rows of D weights, and K scores of each of B rows of features."""
    rows = torch.empty(B, D, dtype=torch.bfloat16, device="meta")
    classes = linear.default_chunk(rows, sub_centres)
    of_class = sub_centres * (B + D) * 2
    assert classes % 256 == 0
    assert classes == 256 or classes * of_class <= 2**24
    assert (classes + 256) * of_class > 2**24
