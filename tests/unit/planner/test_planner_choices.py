"""Which choice the planner takes, and what it says of those that do not fit."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from distill.config import load_config
from distill.errors import UserError
from distill.planner.choose import Comparison, compare, job_of, row_of
from distill.planner.clock import Machine
from distill.planner.facts import Choice
from distill.planner.gpus import gpu_named
from distill.planner.show import what_would_fit
from distill.planner.trace import streamed_head_cost

H100 = Machine(gpu_named("h100"))
SMALL = ("model.name=tiny", "model.embedding_dim=32", "train.global_batch_pairs=64")


def compared(*words: str, classes: int = 5000, ranks: int = 8, gib: float = 80) -> Comparison:
    machine = replace(H100, gpu=replace(H100.gpu, memory_gib=gib))
    return compare(load_config(None, [*SMALL, *words]), classes, machine, ranks)


def test_without_pairs_every_choice_is_there_for_half_of_the_head() -> None:
    """Half of the rows: half of the products, which is what the head's time is."""
    words = ("loss.similarity=mmd", "head.sample_rate=0.5")
    pairs, first = compared(*words), compared(*words, "train.images=first")
    assert [row.choice for row in first.rows] == [row.choice for row in pairs.rows]
    assert len(first.rows) == 24
    config = load_config(None, [*SMALL, *words])
    alone = load_config(None, [*SMALL, *words, "train.images=first"])
    for budget in (0.0, 1e12):
        of_pairs = streamed_head_cost(config, 400_000, 128, 4, budget)
        of_first = streamed_head_cost(alone, 400_000, 64, 4, budget)
        again = 2 if budget == 0.0 else 0  # mmd goes through the classes once more
        assert of_pairs.flops == 2.0 * 128 * 400_000 * 32 * (3 + again)
        assert of_first.flops == 2.0 * 64 * 400_000 * 32 * (3 + again / 2)


def test_the_fastest_that_fits_is_taken() -> None:
    found = compared()
    fitting = [row for row in found.rows if row.fits]
    assert found.best in fitting
    assert found.best.seconds.step <= 1.02 * min(row.seconds.step for row in fitting)
    assert len(found.rows) == 16


def test_a_remedy_is_one_and_the_smallest() -> None:
    largest = max(row.memory.peak_bytes for row in compared(ranks=1).rows)
    gib = 0.8 * largest / 2**30 / 0.9
    found = compared(ranks=1, gib=gib)
    row = next(r for r in found.rows if not r.fits and r.remedy.startswith("accumulation"))
    assert not any(row.remedy for row in found.rows if row.fits)
    times = int(row.remedy.split()[1])
    config = load_config(None, SMALL)
    job, usable = job_of(config, 5000, 1), found.machine.usable_bytes
    peaks = [
        row_of(config, job.accumulating(n), row.choice, found.machine).memory.peak_bytes
        for n in (times // 2, times)
    ]
    assert peaks[1] <= usable < peaks[0]


def test_no_remedy_is_one_that_training_refuses() -> None:
    """Six people are no sharded head of eight ranks, however much of the backbone these save."""
    words = ("model.embedding_dim=8192", "train.global_batch_pairs=16")
    choice, found = Choice(1, "sharded", "fused"), {}
    for classes in (6, 8):
        job = job_of(load_config(None, [*SMALL, *words]), classes, 4)
        peak = row_of(load_config(None, [*SMALL, *words]), job, choice, H100).memory.peak_bytes
        rows = compared(*words, classes=classes, ranks=4, gib=0.92 * peak / 0.9 / 2**30).rows
        found[classes] = next(row.remedy for row in rows if row.choice == choice)
    assert found == {6: "", 8: "8 ranks"}


def test_blocks_that_are_made_again_are_a_remedy_for_activations() -> None:
    """Where they would fit, and neither where they would not nor where they are asked for."""
    config, words = load_config(None, SMALL), ["model.recompute=blocks"]
    job, choice = job_of(config, 5000, 1), Choice(0, "sharded", "fused")
    kept, again = (
        row_of(load_config(None, [*SMALL, *more]), job, choice, H100) for more in ([], words)
    )
    peaks = [row.memory.peak_bytes for row in (again, kept)]
    assert peaks[0] < 0.9 * peaks[1]
    assert again.seconds.arithmetic > 1.1 * kept.seconds.arithmetic
    said = []
    for usable in (0.99 * peaks[0], 1.01 * peaks[0], 0.99 * peaks[1]):
        found = compared(ranks=1, gib=usable / 0.9 / 2**30)
        (row,) = (row for row in found.rows if row.choice == choice)
        said.append("recompute blocks" in row.remedy)
    assert said == [False, True, True]
    found = compared(*words, ranks=1, gib=0.99 * peaks[0] / 0.9 / 2**30)
    assert not any("recompute" in row.remedy for row in found.rows)


def test_where_nothing_fits_the_error_says_what_would() -> None:
    found = compared(gib=0.005)
    assert found.best is None
    error = what_would_fit(found)
    assert re.search(r"nothing fits: 0\.0 GiB of a 0\.005 GiB GPU", error.what)
    assert "would fit" in error.fix or "take GPUs of" in error.fix


ONE_PERSON = "data.train: 1 person in all, and a classifier needs two; pack the photographs of more"


@pytest.mark.parametrize(
    ("words", "classes", "ranks", "message"),
    [
        ((), 1, 8, ONE_PERSON),
        ((), 5000, 7, "train.global_batch_pairs = 64: not divisible by 7 ranks"),
        (("model.name=tinny",), 5000, 8, "model.name = 'tinny': no such backbone"),
        (("loss.topk_classes=5000",), 5000, 8, "loss.topk_classes = 5000: must be smaller"),
        (("head.kind=linear", "head.margin=arcface"), 5000, 8, "head.margin = 'arcface'"),
    ],
)
def test_what_cannot_be_planned(words, classes, ranks, message) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        compared(*words, classes=classes, ranks=ranks)


def test_fewer_identities_than_ranks_leave_no_sharded_head() -> None:
    placements = {row.choice.placement for row in compared(classes=4).rows}
    assert placements == {"replicated"}


def test_an_unknown_gpu_is_named_with_those_known() -> None:
    with pytest.raises(UserError, match="--gpu h1000: not known; choose one of h100, h200"):
        gpu_named("h1000")
