"""The pair loss by chunks of classes on a GPU, against float64 whole scores on the CPU."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F

from distill.losses import PairLossSpec, linear_cross_entropy, linear_pair_loss, pair_loss
from distill.losses.checks import assert_label_values

pytestmark = pytest.mark.gpu
T = 2.5
ARC = {"logit_scale": 64.0, "margin_angle_rad": 0.5, "margin_cosine": 0.1}
HEADS = ("linear", "cosine")
CASES = list(itertools.product(HEADS, ("kl", "ce", "mmd")))
ROUNDING = {torch.float64: 1e-12, torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def make(B: int, D: int, C: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    made = torch.Generator().manual_seed(B + D + C)
    first, noise = (torch.randn(B, D, generator=made) for _ in range(2))
    weight = torch.randn(C, D, generator=made) * D**-0.5
    labels = torch.randint(-1, C, (B,), generator=made)
    return *(t.to(dtype) for t in (first, first + 0.5 * noise, weight)), labels


def by_whole_scores(inputs: tuple[torch.Tensor, ...], spec: PairLossSpec, head: str):
    leaves = [t.double().requires_grad_() for t in inputs[:3]]
    first, second, weight = (F.normalize(t) for t in leaves) if head == "cosine" else leaves
    loss = pair_loss(
        *(first @ weight.T, second @ weight.T, inputs[3]),
        temperature=T,
        weight=0.7,
        spec=spec,
        implementation="reference",
    )
    return [loss.total.detach(), *torch.autograd.grad(loss.total, leaves)]


def by_chunks(leaves: list[torch.Tensor], labels: torch.Tensor, spec: PairLossSpec, head: str):
    loss = linear_pair_loss(
        *(*leaves, labels),
        temperature=T,
        similarity_weight=0.7,
        spec=spec,
        head=head,
        chunk_classes=1024,
        memory_budget_bytes=2**19,
    )
    return [loss.total.detach(), *torch.autograd.grad(loss.total, leaves)]


def on_gpu(inputs: tuple[torch.Tensor, ...]) -> tuple[list[torch.Tensor], torch.Tensor]:
    return [t.cuda().requires_grad_() for t in inputs[:3]], inputs[3].cuda()


@contextmanager
def waiting_is_an_error() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(("head", "similarity"), CASES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_chunks_agree_and_nothing_waits(dtype, head, similarity) -> None:
    """Cosines of 16-bit features keep float32: their loss is good to the features' rounding."""
    inputs = make(24, 64, 5003, dtype)
    spec = PairLossSpec(similarity=similarity, **(ARC if head == "cosine" else {}))
    true = by_whole_scores(inputs, spec, head)
    leaves, labels = on_gpu(inputs)
    by_chunks(leaves, labels, spec, head)  # what is set up once may wait
    with waiting_is_an_error():
        ours = by_chunks(leaves, labels, spec, head)
    for a, t in zip(ours, true, strict=True):
        assert (a.cpu().double() - t).abs().max() <= ROUNDING[dtype] * t.abs().max()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_single_images_agree_and_nothing_waits(dtype, head) -> None:
    """Of an odd number, each with its own label; torch's cross-entropy in float64."""
    features, _, weight, labels = make(23, 64, 5003, dtype)
    spec = PairLossSpec(logit_scale=64.0 if head == "cosine" else 1.0, label_smoothing=0.1)
    leaves = [t.double().requires_grad_() for t in (features, weight)]
    x, w = (F.normalize(t) for t in leaves) if head == "cosine" else leaves
    logits = spec.logit_scale * (x @ w.T)
    total = F.cross_entropy(logits, labels, ignore_index=-1, label_smoothing=0.1)
    true = [total.detach(), *torch.autograd.grad(total, leaves)]
    mine, own = [t.cuda().requires_grad_() for t in (features, weight)], labels.cuda()

    def found() -> list[torch.Tensor]:
        options = {"spec": spec, "head": head, "chunk_classes": 1024}
        loss = linear_cross_entropy(*mine, own, memory_budget_bytes=2**18, **options)
        return [loss.total.detach(), *torch.autograd.grad(loss.total, mine)]

    found()  # what is set up once may wait
    with waiting_is_an_error():
        ours = found()
    for a, t in zip(ours, true, strict=True):
        assert (a.cpu().double() - t).abs().max() <= ROUNDING[dtype] * t.abs().max()


def test_what_is_asserted_of_labels_is_captured_in_a_cuda_graph() -> None:
    labels = torch.tensor([0, 36, -1], device="cuda")
    assert_label_values(labels, 37)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        assert_label_values(labels, 37)
    graph.replay()
    torch.cuda.synchronize()


@pytest.mark.parametrize("head", HEADS)
def test_the_same_bits_every_time(head) -> None:
    leaves, labels = on_gpu(make(24, 64, 5003, torch.bfloat16))
    one, two = (by_chunks(leaves, labels, PairLossSpec(), head) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("head", HEADS)
def test_memory_does_not_grow_with_the_classes(head) -> None:
    beyond = []
    for C in (20_000, 200_000):
        leaves, labels = on_gpu(make(64, 64, C, torch.bfloat16))
        by_chunks(leaves, labels, PairLossSpec(), head)  # workspaces of the products
        # Autograd's thread lets go of the last gradients a moment after the caller has gone on.
        time.sleep(0.2)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        by_chunks(leaves, labels, PairLossSpec(), head)
        beyond.append(torch.cuda.max_memory_allocated() - before - leaves[2].nbytes)
        del leaves
    assert abs(beyond[1] - beyond[0]) <= 2**20
