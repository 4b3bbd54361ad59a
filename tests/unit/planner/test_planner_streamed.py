"""What the planner foresees of a head whose scores are streamed, against sums and real tensors."""

from __future__ import annotations

import pytest
import torch

from distill.config import load_config
from distill.errors import UserError
from distill.heads import build_head
from distill.losses import PairLossSpec, choice, fused, linear_pair_loss
from distill.losses.live_memory import LiveMemory
from distill.planner import trace
from distill.planner.trace import stored_head_cost, streamed_head_cost

SMALL = ("model.name=tiny", "model.embedding_dim=32", "train.global_batch_pairs=64")


def test_streamed_scores_grow_by_the_gradient_alone() -> None:
    config = load_config(None, SMALL)
    small, large = (streamed_head_cost(config, c, 128, 4, 0.0) for c in (400_000, 4_000_000))
    assert large.peak_bytes - small.peak_bytes == 4 * 32 * 3_600_000
    assert large.flops == 10 * small.flops == 8 * 128 * 4_000_000 * 32


def test_sub_centres_are_rows_and_products_and_their_scores_a_byte_more() -> None:
    config = load_config(None, [*SMALL, "head.sub_centres=3"])
    small, large = (streamed_head_cost(config, c, 128, 4, 0.0) for c in (400_000, 4_000_000))
    assert large.peak_bytes - small.peak_bytes == 3 * 4 * 32 * 3_600_000
    assert large.flops == 10 * small.flops == 3 * 8 * 128 * 4_000_000 * 32
    kept = streamed_head_cost(config, 400_000, 128, 4, 1e12)
    chunk = 8704
    assert kept.peak_bytes - small.peak_bytes == (4 + 1) * 128 * (400_000 - chunk)


def test_kept_scores_spare_one_product_in_four() -> None:
    config = load_config(None, SMALL)
    none, every = (streamed_head_cost(config, 400_000, 128, 4, b) for b in (0.0, 1e12))
    chunk = 26_112  # of which one is there in any case
    assert every.peak_bytes - none.peak_bytes == 4 * 128 * (400_000 - chunk)
    assert every.flops == none.flops * 3 / 4


@pytest.mark.parametrize("budget_bytes", [0, 3_000_000, 10**9])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "head", [("head.kind=linear", "head.margin=none"), (), ("head.sub_centres=3",)]
)
def test_a_streamed_head_holds_what_a_real_one_does(
    head: tuple[str, ...], precision: str, budget_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of chunks of 256 classes, the last one smaller; the budget is for none, some, or all."""
    monkeypatch.setattr("distill.losses.linear.CHUNK_BYTES", 1)
    config = load_config(None, [*SMALL, f"train.precision={precision}", *head])
    rows, classes = 64, 20_000
    narrow = torch.bfloat16 if precision == "bf16" else torch.float32
    network = build_head(config.head, 32, classes)
    first, second = torch.ones(2, rows // 2, 32, dtype=narrow).requires_grad_()
    with LiveMemory() as memory:
        loss = linear_pair_loss(
            first,
            second,
            network.weight,
            torch.zeros(rows // 2, dtype=torch.int64),
            temperature=2.0,
            similarity_weight=1.0,
            spec=PairLossSpec.from_config(config.loss, config.head),
            bias=network.bias,
            head=config.head.kind,
            memory_budget_bytes=budget_bytes,
        )
        forward = memory.live_bytes
        loss.total.backward()
    found = streamed_head_cost(config, classes, rows, narrow.itemsize, budget_bytes)
    assert found.forward_bytes == pytest.approx(forward, abs=10_000)
    assert found.peak_bytes == pytest.approx(memory.peak_bytes, rel=0.003)


@pytest.mark.skipif("cpu" not in fused.native_devices(), reason="the native extension is not built")
def test_memory_is_that_of_the_loss_that_will_run_on_the_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where torch is built for CUDA and the native loss is not, plain torch."""

    def peaks(*words: str) -> list[float]:
        trace._run_chunks.cache_clear()
        config = load_config(None, ["head.kind=cosine", *words])
        of_chunks = streamed_head_cost(config, 400_000, 128, 4, 0.0)
        return [of_chunks.peak_bytes, stored_head_cost(config, 10_000, 128, 4).peak_bytes]

    monkeypatch.setattr(choice, "native_devices", lambda: ("cpu",))
    elsewhere, plain = peaks(), peaks("loss.implementation=reference")
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    assert peaks() == plain
    assert elsewhere == peaks("run.device=cpu") != plain
    with pytest.raises(UserError, match="built for cpu, the logits are on cuda; load a CUDA"):
        peaks("loss.implementation=native")
    trace._run_chunks.cache_clear()
