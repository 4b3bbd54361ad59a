"""The CUDA kernels against the float64 reference on the CPU; run wherever there is a GPU."""

from __future__ import annotations

import math

import pytest
import torch

from distill.losses import PairLossSpec, fused, implementation_name, pair_loss, reference

pytestmark = pytest.mark.gpu

SCALES = (0.1, 1.0, 10.0, 64.0)
TYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
# What a gradient loses by being rounded to its type, relative; and float32's arithmetic, absolute,
# of values of order 1 (times T^2), besides half a unit in the last place of the largest logit.
ROUNDING = {torch.float64: 0.0, torch.float32: 0.0, torch.float16: 2.0**-11, torch.bfloat16: 2**-8}


def make(B: int, C: int, scale: float, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(B * 7 + C)
    first = scale * torch.randn(B, C, generator=generator)
    second = first + scale * torch.randn(B, C, generator=generator)
    labels = torch.randint(0, C, (B,), generator=generator)
    return first.to(dtype), second.to(dtype), labels


def run(function, first, second, labels, temperature, spec, targets=None):
    z1, z2 = first.clone().requires_grad_(), second.clone().requires_grad_()
    terms = function(z1, z2, labels, temperature, spec, targets)
    (terms.ce_first + terms.ce_second + terms.similarity).sum().backward()
    return [x.detach().double().cpu() for x in (*terms[:3], z1.grad, z2.grad)]


def agree(first, second, labels, temperature: float, spec: PairLossSpec) -> None:
    true = run(
        reference.row_terms, first.double().cpu(), second.double().cpu(), labels, temperature, spec
    )
    ours = run(fused.row_terms, first.cuda(), second.cuda(), labels.cuda(), temperature, spec)
    largest = max(first.abs().max().item(), second.abs().max().item())
    unit = 2.0**-53 if first.dtype == torch.float64 else 2.0**-24
    tolerance = unit * (16 * max(1.0, spec.similarity_scale(temperature)) + 2 * largest)
    for index, (a, b) in enumerate(zip(ours, true, strict=True)):
        rounding = ROUNDING[first.dtype] if index >= 3 else 0.0
        torch.testing.assert_close(a, b, rtol=rounding + tolerance, atol=tolerance)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "symmetric"])
@pytest.mark.parametrize("similarity", ["none", "kl", "ce", "mmd"])
def test_every_similarity_direction_scale_and_type(similarity, direction, scale) -> None:
    for dtype in TYPES:
        for B, C in ((1, 2), (3, 37), (5, 1003), (2, 70001)):
            spec = PairLossSpec(
                similarity=similarity, direction=direction, label_smoothing=0.1 if C > 2 else 0.0
            )
            agree(*make(B, C, scale, dtype), 3.0, spec)


@pytest.mark.parametrize("C", [2, 7, 8, 9, 255, 4095, 4096, 4097, 100_001, 1_000_003])
def test_labels_at_every_edge(C: int) -> None:
    first, second, _ = make(4, C, 4.0, torch.bfloat16)
    labels = torch.tensor([0, C - 1, C // 2, -1])
    agree(first, second, labels, 2.0, PairLossSpec())
    terms = fused.row_terms(first.cuda(), second.cuda(), labels.cuda(), 2.0, PairLossSpec())
    assert torch.equal(terms.top_first[:3].cpu(), first[:3].float().argmax(1))


@pytest.mark.parametrize("similarity", ["kl", "ce", "mmd"])
def test_strided_rows_of_different_alignment(similarity: str) -> None:
    first, second, labels = make(4, 5001, 2.0, torch.float16)
    spec = PairLossSpec(similarity=similarity)
    wide = torch.full((4, 11_000), torch.nan, dtype=torch.float16, device="cuda")
    a, b = wide[:, 1:5002], wide[:, 5004:10_005]
    a.copy_(first)
    b.copy_(second)
    ours = fused.row_terms(a, b, labels.cuda(), 2.0, spec)
    true = reference.row_terms(first.double(), second.double(), labels, 2.0, spec)
    for x, y in zip(ours[:3], true[:3], strict=True):
        torch.testing.assert_close(x.double().cpu(), y, rtol=1e-5, atol=1e-5)


def test_excluded_classes_nan_and_ignored_pairs() -> None:
    first, second, _ = make(4, 9000, 1.0, torch.float32)
    labels = torch.tensor([0, 8999, 3, -1])
    first[:, 100:7000] = second[:, 100:7000] = -torch.inf
    first[3] = torch.nan
    for similarity in ("kl", "ce", "mmd"):
        agree(first[:3], second[:3], labels[:3], 2.0, PairLossSpec(similarity=similarity))
    second[1, 8000] = torch.nan
    ours = run(fused.row_terms, first.cuda(), second.cuda(), labels.cuda(), 2.0, PairLossSpec())
    for value in ours:
        assert not value[3].any()
        assert value[[0, 2]].isfinite().all()
    assert ours[1][1].isnan()
    assert ours[2][1].isnan()
    assert ours[4][1].isnan().all()


def test_margin_targets_and_a_far_target() -> None:
    first, second, labels = make(5, 300, 3.0, torch.float32)
    results = []
    for function, device in ((reference.row_terms, "cpu"), (fused.row_terms, "cuda")):
        wide = torch.float64 if device == "cpu" else torch.float32
        z1, z2, y = first.to(device, wide), second.to(device, wide), labels.to(device)
        margined = tuple((z.gather(1, y[:, None])[:, 0] - 2).requires_grad_() for z in (z1, z2))
        terms = function(z1, z2, y, 2.0, PairLossSpec(), margined)
        (terms.ce_first + 3 * terms.ce_second).sum().backward()
        results.append([x.double().cpu() for x in (*terms[:2], *(m.grad for m in margined))])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    z = torch.zeros(1, 3, device="cuda")
    z[0, 0] = 30.0
    ce = fused.row_terms(z, z, torch.zeros(1, dtype=torch.long, device="cuda"), 1.0, PairLossSpec())
    assert ce.ce_first.item() == pytest.approx(2 * math.exp(-30), rel=1e-5)


@pytest.mark.parametrize("similarity", ["kl", "ce", "mmd"])
def test_the_same_bits_every_time_and_no_waiting_for_the_device(similarity: str) -> None:
    first, second, labels = (x.cuda() for x in make(3, 300_001, 3.0, torch.bfloat16))
    spec = PairLossSpec(similarity=similarity)
    run(fused.row_terms, first, second, labels, 2.0, spec)
    torch.cuda.set_sync_debug_mode("error")
    try:
        z1 = first.clone().requires_grad_()
        loss = pair_loss(z1, second, labels, temperature=2.0, weight=1.0, spec=spec)
        loss.total.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    once, again = (run(fused.row_terms, first, second, labels, 2.0, spec) for _ in range(2))
    for a, b in zip(once, again, strict=True):
        assert torch.equal(a, b)


def test_captured_in_a_cuda_graph() -> None:
    first, second, labels = (x.cuda() for x in make(4, 20_000, 2.0, torch.float32))
    z1, z2 = first.clone().requires_grad_(), second.clone().requires_grad_()

    def step() -> torch.Tensor:
        loss = pair_loss(z1, z2, labels, temperature=2.0, weight=1.0, spec=PairLossSpec())
        return torch.autograd.grad(loss.total, (z1, z2))[0]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        z1.mul_(0.5)
    graph.replay()
    assert torch.equal(captured, step())


def test_native_is_what_runs_on_this_device() -> None:
    assert implementation_name("native", "cuda") == "native"
