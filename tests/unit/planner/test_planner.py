"""The planner's arithmetic against sums by hand, its traces against real tensors, its documents."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.config import load_config
from distill.losses.live_memory import LiveMemory
from distill.models.recompute import recompute_blocks
from distill.models.registry import build_backbone
from distill.planner.choose import Machine, job_of, row_of
from distill.planner.clock import seconds_of
from distill.planner.engine import Engine
from distill.planner.facts import Choice, HeadCost, NetworkCost
from distill.planner.gpus import gpu_named
from distill.planner.growth import markdown
from distill.planner.memory import memory_of
from distill.planner.network import traffic_of
from distill.planner.trace import network_cost

ROOT = Path(__file__).resolve().parents[3]
H100 = Machine(gpu_named("h100"))
SMALL = ("model.name=tiny", "model.embedding_dim=32", "train.global_batch_pairs=64")
NETWORK = NetworkCost(
    ((1_000_000, True), (24, False)), 0, 4, 6000, 5000, 0, 9000, 7000, 7600, 8e9, 3e9
)
HEAD = HeadCost(((4_000_000, True),), 600, 40_000_000, 16_000_000, 6e9, 2e9, True)
RECIPES = {"ms1mv3": (8, 93_431), "glint360k": (8, 360_232), "webface42m": (32, 2_059_906)}


@pytest.mark.parametrize("name", ["tiny", "vit_small"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("recompute", ["none", "blocks"])
def test_a_trace_counts_what_a_real_pass_holds(name: str, precision: str, recompute: str) -> None:
    found = network_cost(name, 32, 0.0, 2, precision, recompute)
    network = build_backbone(name, embedding_dim=32)
    if recompute == "blocks":
        recompute_blocks(network, name)
    with LiveMemory() as memory:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            embeddings = network(torch.zeros(2, 3, 112, 112))
        assert found.forward_bytes == pytest.approx(memory.peak_bytes, rel=0.01)
        saved = memory.peak_bytes = memory.live_bytes
        embeddings.backward(torch.ones_like(embeddings))
    assert found.saved_bytes == pytest.approx(saved, rel=0.01)
    assert found.backward_kept_bytes == pytest.approx(memory.peak_bytes, rel=0.01)
    wide = sum(p.numel() for p in network.parameters() if p.ndim > 1)
    assert found.cast_bytes == (2 * wide if (precision, recompute) == ("bf16", "none") else 0)


def test_flops_are_three_times_those_of_forward() -> None:
    """Backward has two products for each of forward; 3x3x24x48 at 14x14 is a part of tiny's."""
    flops = network_cost("tiny", 32, 0.0, 4, "fp32").flops
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        build_backbone("tiny", embedding_dim=32)(torch.zeros(4, 3, 112, 112))
    assert flops == pytest.approx(3 * counter.get_total_flops(), rel=0.2)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=12), st.integers(1, 9))
def test_own_tensors_by_brute_force(sizes: list[int], ranks: int) -> None:
    owner = [index for index, size in enumerate(sizes) for _ in range(size)]
    share = -(-len(owner) // ranks)
    slices = [set(owner[r * share : (r + 1) * share]) for r in range(ranks)]
    expected = max(sum(sizes[i] for i in touched) for touched in slices)
    engine = Engine(tuple((size, True) for size in sizes), ranks, 10**9)
    assert engine.own_tensors_bytes == 4 * expected


def test_parts_by_hand() -> None:
    """A million weights in the network, four in the head, on 4 ranks, SGD with momentum."""
    job = job_of(load_config(None, SMALL), 500_000, 4)
    P = 4 * (5_000_024)
    zero1 = memory_of(job, Choice(1, "replicated", "plain"), NETWORK, HEAD).phases["between steps"]
    assert (zero1["weights"], zero1["master"], zero1["optimizer"]) == (P, P // 4, P // 4)
    zero3 = memory_of(job, Choice(3, "replicated", "plain"), NETWORK, HEAD).phases["between steps"]
    assert (zero3["master"], zero3["gradients"], zero3["buckets"]) == (P // 4, P // 4, P)
    apart = memory_of(job, Choice(0, "sharded", "fused"), NETWORK, HEAD).phases
    assert apart["between steps"]["weights"] == P
    assert apart["loss"]["features"] == 128 // 4 * 4 * 32 * 4
    assert apart["update"]["gradients"] == 16_000_000 + 4 * 1_000_024
    whole = Choice(0, "replicated", "plain")
    assert memory_of(job, whole, NETWORK, HEAD).phases["reduction"]["buckets"] == P
    alone = job_of(load_config(None, SMALL), 500_000, 1)
    assert not memory_of(alone, whole, NETWORK, HEAD).phases["reduction"]["buckets"]


@pytest.mark.parametrize(
    ("stage", "device", "times"), [(0, "cuda", 0), (1, "cuda", 1), (2, "cuda", 2), (2, "cpu", 1)]
)
def test_buckets_in_backward_by_hand(stage: int, device: str, times: int) -> None:
    """One of 200 MB, or of all weights; on CUDA stage 2 fills one while another travels."""
    job = job_of(load_config(None, [*SMALL, f"run.device={device}"]), 500_000, 4)
    phases = memory_of(job, Choice(stage, "replicated", "plain"), NETWORK, HEAD).phases
    assert phases["backward"]["buckets"] == times * 4 * 5_000_024
    large = replace(HEAD, weights=((60_000_000, True),))
    phases = memory_of(job, Choice(stage, "replicated", "plain"), NETWORK, large).phases
    assert phases["backward"]["buckets"] == times * 200_000_000


@pytest.mark.parametrize("elements", [4_000_000, 60_000_000])
def test_gradients_and_buckets_while_they_are_reduced_by_hand(elements: int) -> None:
    """The first rank's slice has some of every tensor, so that whole gradients are its own."""
    job = job_of(load_config(None, SMALL), 500_000, 4)
    head = replace(HEAD, weights=((elements, True),))
    whole = own = 4 * (elements + 1_000_024)
    bucket = min(whole, 200_000_000)
    phases = [
        memory_of(job, Choice(stage, "replicated", "plain"), NETWORK, head).phases["reduction"]
        for stage in range(4)
    ]
    found = [(phase["gradients"], phase["buckets"]) for phase in phases]
    moved = whole - bucket + own
    assert found == [(whole, whole), (moved, bucket), (own, bucket), (whole // 4, bucket)]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_gradients_of_earlier_passes_are_there_in_forward(accumulation: int) -> None:
    """Of the backbone where it is no ZeRO 3, and of a head by ranges of classes."""
    words = [*SMALL, f"train.accumulation={accumulation}"]
    job, earlier = job_of(load_config(None, words), 500_000, 4), accumulation - 1
    apart, whole = (
        memory_of(job, Choice(1, placement, "fused"), NETWORK, HEAD).phases["forward"]["gradients"]
        for placement in ("sharded", "replicated")
    )
    assert apart == earlier * (4 * 1_000_024 + 16_000_000)
    assert whole == earlier * 4 * 5_000_024
    third = memory_of(job, Choice(3, "replicated", "fused"), NETWORK, HEAD).phases["forward"]
    assert third["gradients"] == 5_000_024  # its share of four


@pytest.mark.parametrize(
    ("ranks", "elements", "in_loss", "left"),
    [
        (4, 4_000_000, 4 * 9_000_024, 600),
        (1, 4_000_000, 0, 0),
        (4, 600_000_000, 4 * (10**9 + 50_000_000), 4 * (10**9 + 50_000_000)),
    ],
)
def test_weights_of_stage_3_that_are_left_in_backward(ranks, elements, in_loss, left) -> None:
    """What the trace saw; on one rank none is gathered, and too many are gathered once more."""
    job = job_of(load_config(None, SMALL), 500_000, ranks)
    head = replace(HEAD, weights=((elements, True),) * 2)
    phases = memory_of(job, Choice(3, "replicated", "plain"), NETWORK, head).phases
    assert phases["loss"]["gathered"] == in_loss
    assert phases["backward"]["gathered"] == left


def test_network_by_hand() -> None:
    """A ring of 4: three quarters of what is gathered, and twice that of what is reduced."""
    job = job_of(load_config(None, [*SMALL, "train.accumulation=2"]), 500_000, 4)
    P = 4 * 5_000_024
    sent = {
        stage: sum(
            one.bytes_a_rank(4)
            for one in traffic_of(job, Choice(stage, "replicated", "plain"), NETWORK, HEAD)
        )
        for stage in range(4)
    }
    assert sent == {0: 1.5 * P, 1: 2.25 * P, 2: 3.75 * P, 3: 3.0 * P}
    apart = {
        t.what: t.payload for t in traffic_of(job, Choice(0, "sharded", "plain"), NETWORK, HEAD)
    }
    assert apart["statistics"] == 40 * 64 * 4, "40 bytes a pair and rank"
    assert apart["embeddings"] == 4 * 32 * 2 * 64


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        ((), 10),
        (("loss.label_smoothing=0.1",), 12),
        (("loss.similarity=mmd",), 12),
        (("loss.topk_classes=20",), 10 + 19 + 2 * 19 + 2),  # classes, two scores of each, tops
        (("loss.topk_classes=20", "loss.similarity=mmd"), 69),
        (("loss.topk_classes=20", "loss.similarity=none"), 10),
        (("train.images=first",), 3),
        (("train.images=first", "loss.label_smoothing=0.1", "loss.similarity=mmd"), 4),
        (("train.images=first", "loss.topk_classes=20"), 3),
    ],
)
def test_what_ranks_tell_of_a_pair(words: tuple[str, ...], numbers: int) -> None:
    job = job_of(load_config(None, [*SMALL, *words]), 500_000, 4)
    traffic = traffic_of(job, Choice(0, "sharded", "plain"), NETWORK, HEAD)
    (payload,) = (one.payload for one in traffic if one.what == "statistics")
    assert payload == numbers * 4 * 64 * 4


@pytest.mark.parametrize("accumulation", [1, 2])
def test_without_pairs_batches_hold_half_of_the_images(accumulation: int) -> None:
    words = [*SMALL, f"train.accumulation={accumulation}"]
    jobs = [
        job_of(load_config(None, [*words, f"train.images={images}"]), 1000, 1)
        for images in ("pair", "first")
    ]
    pairs, first = (
        memory_of(job, Choice(1, "replicated", "plain"), NETWORK, HEAD).phases["between steps"]
        for job in jobs
    )
    assert pairs["loader"] == 2 * first["loader"]
    ahead = 1  # on CUDA one batch is copied while another is worked on
    assert first["loader"] == 3 * 112 * 112 * (64 // accumulation) * (accumulation + ahead)


def test_time_is_the_slowest_of_three() -> None:
    job = job_of(load_config(None, [*SMALL, "train.precision=bf16"]), 500_000, 16)
    choice = Choice(0, "replicated", "plain")
    traffic = traffic_of(job, choice, NETWORK, HEAD)
    found = seconds_of(job, choice, NETWORK, HEAD, traffic, H100)
    assert found.arithmetic == pytest.approx((8e9 + 6e9) / (0.5 * 989e12))
    assert found.memory == pytest.approx((5e9 + 12 * 4 * 5_000_024) / (0.75 * 3350e9))
    assert found.network == pytest.approx(2 * 15 / 16 * 4 * 5_000_024 / (0.75 * 50e9))
    assert found.step == found.memory and found.bound_by == "memory"


@pytest.mark.parametrize(
    ("precision", "low_precision", "network_tflops", "head_tflops"),
    [("fp32", True, 67, 67), ("bf16", False, 989, 67), ("bf16", True, 989, 989)],
)
def test_products_in_float32_have_a_peak_of_their_own(
    precision: str, low_precision: bool, network_tflops: int, head_tflops: int
) -> None:
    """And a rank updates its part of weights and head alone."""
    job = job_of(load_config(None, [*SMALL, f"train.precision={precision}"]), 500_000, 8)
    head = replace(HEAD, low_precision=low_precision)
    found = seconds_of(job, Choice(1, "sharded", "fused"), NETWORK, head, [], H100)
    seconds = 8e9 / (0.5e12 * network_tflops) + 6e9 / (0.5e12 * head_tflops)
    assert found.arithmetic == pytest.approx(seconds)
    updated = 4 * 1_000_024 / 8 + 16_000_000
    assert found.memory == pytest.approx((5e9 + 12 * updated) / (0.75 * 3350e9))


@pytest.mark.parametrize(("ranks", "gb_s"), [(8, 450), (16, 50)])
def test_a_node_has_its_own_links_for_all_of_its_ranks(ranks: int, gb_s: float) -> None:
    job, choice = job_of(load_config(None, SMALL), 500_000, ranks), Choice(0, "sharded", "plain")
    traffic = traffic_of(job, choice, NETWORK, HEAD)
    found = seconds_of(job, choice, NETWORK, HEAD, traffic, H100)
    sent = sum(one.bytes_a_rank(ranks) for one in traffic)
    assert found.network == pytest.approx(sent / (0.75e9 * gb_s))


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_load_and_say_the_memory_that_is_predicted(name: str) -> None:
    path, (ranks, classes) = ROOT / "recipes" / f"{name}.toml", RECIPES[name]
    config = load_config(path)
    choice = Choice(
        config.train.zero_stage,
        config.head.placement,
        config.loss.form,
        config.head.sample_rate,
    )
    row = row_of(config, job_of(config, classes, ranks), choice, H100)
    said = re.search(r"not measured: ([\d.]+) GiB a GPU", path.read_text())
    assert said is not None and said.group(1) == f"{row.memory.peak_bytes / 2**30:.1f}"
    assert row.fits


def test_the_table_in_the_documents_is_what_the_code_says() -> None:
    text = (ROOT / "docs" / "planner.md").read_text()
    shown = re.search(r"<!-- growth -->\n(.*)<!-- end -->", text, re.DOTALL)
    assert shown is not None and shown.group(1) == markdown()
