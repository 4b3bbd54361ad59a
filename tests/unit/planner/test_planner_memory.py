"""Parts of a rank's memory, and what it sends, against sums by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distill.config import load_config
from distill.planner.choose import job_of
from distill.planner.facts import Choice, HeadCost, Job, NetworkCost
from distill.planner.memory import Parts, memory_of
from distill.planner.network import Traffic, traffic_of

NETWORK = NetworkCost(((1_000_000, True), (24, False)), 500, 2, 60, 50, 0, 90, 70, 76, 8e9, 3e9)
HEAD = HeadCost(((4_000_000, True), (4_000_000, True)), 6, 400, 32_000_000, 6e9, 2e9, True)
WHOLE = 4 * 9_000_024
OWN = 4 * 8_000_024
"""Of the third of four ranks, whose slice has some of both parts of the head."""


def job_with(*words: str, ranks: int = 4) -> Job:
    common = ["model.name=tiny", "model.embedding_dim=32", "train.global_batch_pairs=64"]
    return job_of(load_config(None, [*common, *words]), 500_000, ranks)


def phases_of(job: Job, choice: Choice, head: HeadCost = HEAD) -> dict[str, Parts]:
    return memory_of(job, choice, NETWORK, head).phases


@pytest.mark.parametrize(("images", "bytes_each"), [("pair", 112), ("first", 48)])
def test_what_ranks_tell_each_other_of_a_pair_or_an_image(images: str, bytes_each: int) -> None:
    """Where it is more than the most that head and loss hold by themselves."""
    job = job_with(f"train.images={images}")
    loss = phases_of(job, Choice(0, "sharded", "plain"))["loss"]
    assert loss["head"] == 6 + 4 * 64 * bytes_each
    large = replace(HEAD, peak_bytes=10**9)
    assert phases_of(job, Choice(0, "sharded", "plain"), large)["loss"]["head"] == 10**9


@pytest.mark.parametrize(
    ("stage", "gradients", "activations"), [(0, 32_000_000, 90), (1, 32_000_000, 90), (2, 0, 70)]
)
def test_gradients_come_as_activations_go(stage: int, gradients: int, activations: int) -> None:
    """Stage 2 takes each away as it comes, and has its own ones once a bucket was full."""
    choice = Choice(stage, "replicated", "plain")
    found = phases_of(job_with(), choice)["backward"]
    assert (found["gradients"], found["activations"]) == (gradients, activations)
    small = replace(job_with(), bucket_elements=1_000_000)
    full = phases_of(small, choice)["backward"]["gradients"]
    assert full == (OWN if stage == 2 else gradients)
    apart = phases_of(job_with(), Choice(stage, "sharded", "plain"))["backward"]
    assert apart["gradients"] == 32_000_000  # of the head by ranges, in any stage


@pytest.mark.parametrize(("stage", "earlier"), [(0, WHOLE), (1, WHOLE), (2, OWN)])
def test_gradients_of_an_earlier_pass(stage: int, earlier: int) -> None:
    job = job_with("train.accumulation=2")
    found = phases_of(job, Choice(stage, "replicated", "plain"))
    assert [found[p]["gradients"] for p in ("forward", "loss", "backward")] == [earlier] * 3
    assert found["backward"]["activations"] == 70


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("run.device=cuda",), WHOLE),
        (("run.device=cpu",), 16_000_000),
        (("run.device=cuda", "optimizer.weight_decay=0"), 0),
        (("run.device=cuda", "optimizer.name=adamw"), WHOLE),
        (("run.device=cpu", "optimizer.name=adamw"), 32_000_000),
    ],
)
def test_temporaries_of_the_update(words: tuple[str, ...], expected: int) -> None:
    """Torch goes over all tensors at once on CUDA, one after another on the CPU."""
    found = phases_of(job_with(*words), Choice(0, "replicated", "plain"))
    assert found["update"]["update"] == expected


def test_a_sample_is_copied_and_has_moments_of_its_own() -> None:
    whole, half = (
        phases_of(job_with(), Choice(0, "sharded", "fused", rate)) for rate in (1.0, 0.5)
    )
    for phase in ("forward", "backward", "reduction", "update"):
        assert half[phase]["head"] - whole[phase]["head"] == 32_000_000, phase
    assert half["update"]["update"] - whole["update"]["update"] == 32_000_000
    assert half["reduction"]["gradients"] == 4 * 1_000_024 + 32_000_000


def test_running_statistics_and_weights_that_stage_3_leaves_whole() -> None:
    choice = Choice(3, "replicated", "plain")
    assert phases_of(job_with(), choice)["between steps"]["weights"] == WHOLE // 4 + 96 + 1000
    alone = phases_of(job_with(ranks=1), choice)
    assert alone["between steps"]["weights"] == WHOLE + 1000
    assert alone["forward"]["buckets"] == alone["between steps"]["buckets"]


@pytest.mark.parametrize(("ranks", "joined"), [(1, 0), (2, 3_200_000_000)])
def test_gradients_of_stage_0_are_joined_half_a_billion_at_a_time(ranks: int, joined: int) -> None:
    """And the tensor that is beyond it."""
    large = replace(HEAD, weights=((300_000_000, True),) * 3)
    found = phases_of(job_with(ranks=ranks), Choice(0, "replicated", "plain"), large)
    assert found["reduction"]["buckets"] == joined


def test_collectives_of_a_head_by_ranges_and_of_more_weights_than_stay() -> None:
    job = job_with("train.accumulation=2")
    apart = traffic_of(job, Choice(0, "sharded", "plain"), NETWORK, HEAD)
    assert Traffic("labels", "all-gather", 8 * 64) in apart
    assert Traffic("their gradients", "reduce-scatter", 4 * 128 * 32) in apart
    assert Traffic("embeddings", "all-gather", 2 * 128 * 32) in apart
    for elements, times in ((999_999_976 - 1_000_000, 1), (10**9, 2)):
        head = replace(HEAD, weights=((elements, True),))
        found = traffic_of(job, Choice(3, "replicated", "plain"), NETWORK, head)
        bytes_of_all = 4 * (elements + 1_000_024)
        assert Traffic("weights", "all-gather", 2 * times * bytes_of_all) in found
        assert Traffic("gradients", "reduce-scatter", 2 * bytes_of_all) in found
