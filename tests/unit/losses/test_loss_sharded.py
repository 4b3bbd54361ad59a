"""Classes spread over 1 to 4 gloo ranks: the same loss as on one, the same bits on all.

Four processes are started once and compute everything; the tests look at what they wrote.
"""

from __future__ import annotations

import json
import sys
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rank_processes import on_ranks
from torch.utils._python_dispatch import TorchDispatchMode

from distill.errors import UserError
from distill.losses import ClassShards, PairLossSpec, linear_plain, reference
from distill.losses.linear_state import Choices, State, empty_state
from distill.losses.linear_stream import numbers_told
from distill.losses.registration import NO_CLASS
from distill.losses.sharded import columns_told

sys.path.insert(0, str(Path(__file__).parent))
from linear_cases import loss_of, make_inputs

B, D = 6, 5
SPECS = {"mmd": {"similarity": "mmd"}, "smoothing": {"label_smoothing": 0.1}}
Told = list[dict]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """What each rank wrote."""
    out = tmp_path_factory.mktemp("ranks")
    script = Path(__file__).with_name("sharded_rank_script.py")
    done = on_ranks(script, out, ranks=4)
    assert done.returncode == 0, done.stderr
    return [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(4)]


def cases(told: Told, world: int) -> list[tuple[str, list[dict]]]:
    """Each case with the results of all ranks of a group."""
    names = [name for name in told[0][str(world)] if name != "local"]
    return [(name, [one[str(world)][name] for one in told[:world]]) for name in names]


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_ranks_find_what_one_process_does(told: Told, world: int) -> None:
    found = cases(told, world)
    assert len(found) == (1 if world == 1 else 2) * 16 + 5
    for name, results in found:
        tolerance = 2e-5 if "float32" in name else 1e-12
        for result in results:
            for field, error in result["errors"].items():
                exact = field in ("agreement", "correct_first", "correct_second")
                assert error <= (1e-6 if exact else tolerance), (name, field)


@pytest.mark.parametrize("world", [2, 3, 4])
def test_all_ranks_have_the_same_bits(told: Told, world: int) -> None:
    """Every field of the loss, and the gradient of the features."""
    for name, results in cases(told, world):
        assert len({result["bits"] for result in results}) == 1, name


@pytest.mark.parametrize("world", [2, 3, 4])
def test_one_gather_of_ten_numbers_a_pair(told: Told, world: int) -> None:
    """Two more for label smoothing, for entropies, and in a gather of their own for mmd; grouped
    classes need one of candidates."""
    share = -(-2 * B * D // world)
    for name, results in cases(told, world):
        numbers = 12 if "smoothing" in name or name == "entropies" else 10
        expected = [f"all_gather {numbers * B}"]
        if name.startswith("topk"):  # 3 candidates: both scores and the class; 2 arg-max
            expected += [f"all_gather {(3 * 3 + 2) * B}"]
        elif "mmd" in name:
            expected += [f"all_gather {2 * B}"]
        sum_of_dx = [f"all_to_all_single {share * world}", f"all_gather {share}"]
        if name != "entropies":
            words = {word: more for word, more in SPECS.items() if word in name}
            (spec,) = words.values() or ({},)
            more = {"topk_classes": 4} if name.startswith("topk") else {}
            told_of_pair = numbers_told(PairLossSpec(**spec, **more))
            assert told_of_pair * B == sum(int(one.split()[1]) for one in expected), name
        for result in results:
            assert result["forward"] == expected, name
            assert result["backward"] == sum_of_dx, name
        assert (results[0]["entropies"] == "nan") == (name != "entropies")


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_single_images_are_those_of_torch_with_three_numbers_each(told: Told, world: int) -> None:
    """Four with label smoothing. Of 7 images, so that one goes with a row of zeros."""
    share = -(-8 * D // world)
    for name in told[0][f"{world} single"]:
        results = [one[f"{world} single"][name] for one in told[:world]]
        tolerance = 2e-5 if "float32" in name else 1e-12
        numbers = 4 if " 0.1 " in name else 3
        assert len({result["bits"] for result in results}) == 1, name
        for result in results:
            for field, error in result["errors"].items():
                assert error <= (1e-6 if field == "correct" else tolerance), (name, field)
            expected = [f"all_gather {numbers * 8}"] if world > 1 else []
            assert result["forward"] == expected, name
            spec = PairLossSpec(label_smoothing=0.1 if " 0.1 " in name else 0.0, topk_classes=5)
            assert numbers_told(spec.without_similarity, single=True) == numbers, name
            if world > 1:
                expected = [f"all_to_all_single {share * world}", f"all_gather {share}"]
                assert result["backward"] == expected, name


def test_adaface_counts_the_lengths_of_all_ranks(told: Told) -> None:
    """Each rank finds for its rows what one process finds for all, and the same running numbers."""
    for one in told:
        assert max(one["adaface"]["errors"]) < 1e-5
        assert one["adaface"]["buffers"] == told[0]["adaface"]["buffers"]


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_a_caller_may_add_the_feature_gradients_up(told: Told, world: int) -> None:
    for one in told[:world]:
        assert one[str(world)]["local"]["backward"] == []
        assert one[str(world)]["local"]["error"] < 1e-12


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("temperature", "temperature differs between the ranks: 2.5 on rank 0, 3.0 on rank 2"),
        ("similarity_weight", "similarity_weight differs between the ranks: 0.7 on rank 0, 0.1"),
        ("spec", "spec differs between the ranks: "),
        ("reduction", "reduction differs between the ranks: mean on rank 0, sum on rank 2"),
        ("B", "features_first differs between the ranks: torch.float64 (6, 5) on rank 0, "),
        ("D", "(6, 9) on rank 2; pass the same on every rank"),
        ("dtype", "torch.float64 (6, 5) on rank 0, torch.float32 (6, 5) on rank 2"),
        ("labels", "the content of labels (checksum) differs between the ranks: "),
        ("sample_weights", "sample_weights differs between the ranks: torch.float64 (6,) on "),
        ("wrong", "weight has shape (14, 2): must be (C, 5), C = 14, "),
        ("requires_grad", "features' requires_grad differs between the ranks: True on rank 0, "),
        ("rows", "rows = -1 on rank 2: must be a whole number >= 0"),
        ("rows type", "rows = 'tensor([0., 0.])' on rank 2: must be a whole number >= 0"),
        ("too few", "rows: 1 classes over all ranks, must be at least 2"),
        ("options", "sum_feature_gradients differs between the ranks: False on rank 0, True on "),
    ],
)
def test_a_mistake_of_one_rank_is_an_error_of_all(told: Told, case: str, message: str) -> None:
    """And none waits for a rank that has left: the next call works."""
    for rank, one in enumerate(told[:3]):
        error = one["mistakes"][case]
        assert message in error, rank
        assert one["mistakes"]["after"] == ""
    if case == "wrong":
        assert told[0]["mistakes"][case].startswith("rank 2: weight has shape")


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=4), st.integers(0, 999), st.booleans())
def test_a_state_travels_with_what_is_asked_of_its_arg_max(sizes, seed, single) -> None:
    """Numbers to the bit; classes of the rank that told, with the order that they had."""
    sizes[0] += 2
    bounds, made = tuple(accumulate(sizes, initial=0)), torch.Generator().manual_seed(seed)
    shape = (B, 2) if single else (B,)
    labels = torch.randint(-1, bounds[-1], shape, generator=made)
    choices = Choices.of(PairLossSpec(similarity="none", label_smoothing=0.1), 1.0)
    sent, told = [], []
    for rank, size in enumerate(sizes):
        sums = torch.rand(B, 14, generator=made) * (torch.rand(B, 14, generator=made) < 0.8)
        tops = bounds[rank] + torch.randint(0, max(size, 1), (B, 2), generator=made)
        nothing = (tops == labels.view(B, -1)) | (size == 0)  # the label's column is none of these
        sums[:, :2].masked_fill_(nothing, -torch.inf)
        sent.append(State(sums, tops.masked_fill_(nothing, NO_CLASS)))
        shards = ClassShards(None, rank, bounds, gather_entropies=True)
        told.append(shards.pack(sent[-1], labels, choices))
    found = shards.unpack(torch.stack(told), labels, choices)
    columns = columns_told(0.1, entropies=not single, single=single)
    for rank, state in enumerate(sent):
        assert torch.equal(found.sums[rank][:, columns], state.sums[:, columns])
        ours, theirs, y = found.tops[rank], state.tops, labels.view(B, -1)
        there = theirs != NO_CLASS
        assert torch.equal(ours != NO_CLASS, there)
        assert torch.equal(ours < y, theirs < y)
        assert ((ours >= bounds[rank]) & (ours < bounds[rank + 1]) & (ours != y))[there].all()
        if not single:
            assert torch.equal(ours[:, 0] == ours[:, 1], theirs[:, 0] == theirs[:, 1])


class Launches(TorchDispatchMode):
    """Counts operators that do more than look at memory another way: kernels, on a GPU."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("single", [False, True])
def test_what_many_ranks_told_is_read_by_as_many_operators_as_of_few(single: bool) -> None:
    """Once what depends on the classes alone is there, which is filled in rank by rank."""
    counts, choices = {}, Choices.of(PairLossSpec(similarity="none"), 1.0)
    for world in (8, 64):
        shards = ClassShards(None, 0, tuple(range(0, 2 * world + 1, 2)))
        labels = torch.randint(-1, shards.classes, (B, 2) if single else (B,))
        told = torch.rand(world, B, len(columns_told(0.0, single=single)))
        shards.unpack(told, labels, choices)
        with Launches() as seen:
            shards.unpack(told, labels, choices)
        counts[world] = seen.count
    assert counts[64] == counts[8] <= 40


def test_64_ranks_find_what_whole_scores_do() -> None:
    """Ranks of 0 to 3 classes, one whose scores are all -inf, ignored pairs, and one of NaN."""
    bounds = tuple(accumulate((rank % 4 for rank in range(64)), initial=0))
    made = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 40, bounds[-1], generator=made, dtype=torch.float64)
    for scores in (first, second):
        scores[:, bounds[7] : bounds[8]] = -torch.inf
        scores[:20] = scores[:20].round()  # ties
        scores[3, 50] = torch.nan
    labels = torch.randint(bounds[8], bounds[-1], (40,), generator=made)
    labels[::7] = -1
    spec, told = PairLossSpec(), []
    choices = Choices.of(spec, 2.0)
    for rank, (start, stop) in enumerate(pairwise(bounds)):
        state = empty_state(40, first, torch.float64)
        if stop > start:
            own = first[:, start:stop], second[:, start:stop]
            linear_plain.accumulate_(state, *own, labels, start, choices)
        told.append(ClassShards(None, rank, bounds).pack(state, labels, choices))
    states = ClassShards(None, 5, bounds).unpack(torch.stack(told), labels, choices)
    done = linear_plain.finish(linear_plain.merge(states, choices), labels, bounds[-1], choices)
    true = reference.row_terms(first, second, labels, 2.0, spec)
    close = {"rtol": 1e-12, "atol": 1e-13, "equal_nan": True}
    torch.testing.assert_close(done.values, true.values, **close)
    ours, theirs = done.tops, true.tops
    assert torch.equal(ours == labels[:, None], theirs == labels[:, None])
    assert torch.equal(ours[:, 0] == ours[:, 1], theirs[:, 0] == theirs[:, 1])


def test_shards_without_a_process_group() -> None:
    with pytest.raises(UserError, match="there is no process group"):
        ClassShards.create(None, 5)


def test_weights_must_be_the_rows_that_shards_were_made_with() -> None:
    shards = ClassShards(None, 0, (0, 9, 12))
    longer, fitting = make_inputs(3, 4, 10, "linear"), make_inputs(3, 4, 9, "linear")
    with pytest.raises(UserError, match=r"weight has shape \(10, 4\): must be \(C, 4\), C = 9, "):
        loss_of(longer.leaves(), longer, PairLossSpec(), "linear", shards=shards)
    for spec in (PairLossSpec(topk_classes=12), PairLossSpec(topk_classes=40)):
        with pytest.raises(UserError, match="smaller than the number of classes, 12"):
            loss_of(fitting.leaves(), fitting, spec, "linear", shards=shards)
    fitting.labels[2] = 12  # labels count through the classes of all ranks
    with pytest.raises(UserError, match=r"labels\[2\] = 12: must be in \[0, 12\)"):
        loss_of(fitting.leaves(), fitting, PairLossSpec(), "linear", shards=shards)
