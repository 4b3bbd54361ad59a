"""The CUDA kernels on a GPU against the float64 reference on the CPU, on every way and type."""

from __future__ import annotations

import math
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from distill.losses import (
    PairLossSpec,
    fused,
    implementation_name,
    pair_loss,
    pair_loss_and_grad,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "losses"))
sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "losses" / "cuda_on_cpu"))
import agreement
from loss_cases import cuda, make_case

pytestmark = pytest.mark.gpu
OPS = torch.ops.pairdistill
WAYS = ("small", "cluster:2", "cluster:4", "cluster:8", "cluster:16", "split")


@pytest.fixture(autouse=True)
def on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "cuda" in fused.native_devices(), (
        "a GPU, and an extension that was built without CUDA: "
        "set CUDA_HOME to a toolkit with nvcc and run `PAIRDISTILL_CUDA=1 make setup`"
    )
    monkeypatch.setattr(agreement, "DEVICE", "cuda")
    # `ex2.approx` is off by up to 2^-22 where the emulation is exact; two sides, two sums.
    unit = {dtype: most + 4 * 2**-22 * (most > 1e-8) for dtype, most in agreement.UNIT.items()}
    monkeypatch.setattr(agreement, "UNIT", unit)


def go(
    way: str, monkeypatch: pytest.MonkeyPatch, C: int = 64, dtype: torch.dtype = torch.float32
) -> None:
    """Sends the rows ``way``; skips where the device has no such clusters, or no room for C."""
    monkeypatch.setenv("PAIRDISTILL_CUDA_PATH", way)
    z = torch.zeros(1, C, device="cuda", dtype=dtype)
    y = torch.zeros(1, dtype=torch.int64, device="cuda")
    try:
        OPS.pair_loss(z, z, y, *fused.choices(PairLossSpec(), 2.0))
    except RuntimeError as error:
        if not any(words in str(error) for words in ("has at most", "do not fit on the chip")):
            raise
        pytest.skip(str(error).split("\n")[0])


@pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_capability()[0] not in (9, 10),
    reason="no H100, H200 or B200",
)
def test_clusters_are_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what follows is not skipped for a mistake of ours in asking for them."""
    monkeypatch.setenv("PAIRDISTILL_CUDA_PATH", "cluster:8")
    case = make_case(2, 250_007, 3.0, dtype=torch.bfloat16)
    agreement.check(case, torch.bfloat16, 3.0, PairLossSpec())


@pytest.mark.parametrize("way", WAYS)
def test_every_way_agrees_with_the_reference(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    go(way, monkeypatch)
    agreement.run_all()
    agreement.streams_of_chunks()


@pytest.mark.parametrize("way", ["", *WAYS])
@pytest.mark.parametrize("C", [4097, 30_011, 250_007, 1_000_003])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_long_rows(way: str, C: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    go(way, monkeypatch, C, dtype)
    for similarity in ("kl", "mmd"):
        case = make_case(3, C, 3.0, dtype=dtype, ignored=True)
        agreement.check(case, dtype, 3.0, PairLossSpec(similarity=similarity))


def test_the_rule_on_many_pairs() -> None:
    """Enough pairs that every multiprocessor works on several, and waves follow each other."""
    for C in (1000, 20_000, 150_001):
        case = make_case(300, C, 3.0, dtype=torch.bfloat16, ignored=True)
        agreement.check(case, torch.bfloat16, 3.0, PairLossSpec(), torch.rand(300))


def test_a_far_target_keeps_its_digits() -> None:
    z = torch.zeros(1, 3, device="cuda")
    z[0, 0] = 30.0
    y = torch.zeros(1, dtype=torch.int64, device="cuda")
    terms = fused.row_terms(z, z, y, 1.0, PairLossSpec())
    assert terms.values[0, 0].item() == pytest.approx(2 * math.exp(-30), rel=1e-5)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("similarity", ["kl", "mmd"])
def test_the_same_bits_every_time(
    way: str, similarity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(way, monkeypatch, 40_003, torch.bfloat16)
    tensors = cuda(make_case(40, 40_003, 3.0), torch.bfloat16)
    arguments = (None, 1.0, 1.0, 1, *fused.choices(PairLossSpec(similarity=similarity), 2.0))
    once = OPS.pair_loss_and_grad(*tensors, *arguments)
    for _ in range(20):
        again = OPS.pair_loss_and_grad(*tensors, *arguments)
        assert all(agreement.same_bits(a, b) for a, b in zip(once, again, strict=True))


@pytest.mark.parametrize("way", WAYS)
def test_nothing_waits_for_the_device(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    go(way, monkeypatch, 20_001, torch.bfloat16)
    first, second, labels = cuda(make_case(3, 20_001, 3.0), torch.bfloat16)
    first.requires_grad_()
    options = {"temperature": 2.0, "weight": 1.0, "spec": PairLossSpec()}
    torch.cuda.set_sync_debug_mode("error")
    try:
        pair_loss(first, second, labels, **options).total.backward()
        pair_loss_and_grad(first.detach(), second, labels, **options)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("similarity", ["kl", "mmd"])
def test_captured_in_a_cuda_graph(
    way: str, similarity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(way, monkeypatch, 20_000, torch.float32)
    first, second, labels = cuda(make_case(4, 20_000, 2.0), torch.float32)
    arguments = (None, 1.0, 1.0, 1, *fused.choices(PairLossSpec(similarity=similarity), 2.0))

    def step() -> tuple[torch.Tensor, ...]:
        values, _, _, stats = OPS.pair_loss(first, second, labels, *arguments[4:])
        up = torch.ones_like(values)
        grads = OPS.pair_loss_backward(up, first, second, labels, stats, *arguments[4:])
        return (*OPS.pair_loss_and_grad(first, second, labels, *arguments), *grads)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    first.mul_(0.5)
    graph.replay()
    assert all(agreement.same_bits(a, b) for a, b in zip(captured, step(), strict=True))


def test_the_current_stream_is_followed() -> None:
    """The loss waits for what its own stream still computes, and for nothing else."""
    first, second, labels = cuda(make_case(4, 50_000, 2.0), torch.float32)
    arguments = (None, 1.0, 1.0, 1, *fused.choices(PairLossSpec(), 2.0))
    true = OPS.pair_loss_and_grad(first, second, labels, *arguments)
    late = torch.full_like(first, torch.nan)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        late.copy_(first)
        ours = OPS.pair_loss_and_grad(late, second, labels, *arguments)
    torch.cuda.current_stream().wait_stream(stream)
    assert all(agreement.same_bits(a, b) for a, b in zip(ours, true, strict=True))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_device_that_is_not_the_current_one() -> None:
    tensors = cuda(make_case(4, 5000, 2.0), torch.float32)
    arguments = (None, 1.0, 1.0, 1, *fused.choices(PairLossSpec(), 2.0))
    true = OPS.pair_loss_and_grad(*tensors, *arguments)
    ours = OPS.pair_loss_and_grad(*(t.to("cuda:1") for t in tensors), *arguments)
    for a, b in zip(ours, true, strict=True):
        assert a.device.index == 1
        torch.testing.assert_close(a.cpu(), b.cpu())


def test_more_than_2_31_scores() -> None:
    """Rows that lie beyond 32 bits of columns answer as the same rows alone."""
    B, C = 2200, 1_000_003
    if torch.cuda.mem_get_info()[0] < 4.5 * B * C * 2:
        pytest.skip("needs 20 GB of free GPU memory")
    first = torch.randn(B, C, device="cuda", dtype=torch.bfloat16)
    second = torch.randn(B, C, device="cuda", dtype=torch.bfloat16)
    labels = torch.arange(B, device="cuda") * 400
    arguments = (None, 1.0, 1.0, 2, *fused.choices(PairLossSpec(), 2.0))
    rows = slice(B - 8, B, 7)
    kept = first[rows].clone(), second[rows].clone(), labels[rows].clone()
    _, values, _, tops = OPS.pair_loss_and_grad_(first, second, labels, *arguments)
    _, few, _, few_tops, *grads = OPS.pair_loss_and_grad(*kept, *arguments)
    torch.testing.assert_close(values[rows], few, rtol=1e-5, atol=1e-5)
    assert torch.equal(tops[rows], few_tops)
    for a, b in ((first[rows], grads[0]), (second[rows], grads[1])):
        torch.testing.assert_close(a, b, rtol=2**-7, atol=1e-9)


def test_threads_of_a_process_do_not_take_each_others_shared_memory() -> None:
    """Rows that need much shared memory in one thread and less in the other, both at once.

    In both more than the 48 KB that a kernel has without asking: so many pairs have a block each.
    What they need is told by test_loss_cuda_plan.py.
    """
    calls = []
    for C in (12_000, 25_000):
        tensors = cuda(make_case(150, C, 2.0), torch.bfloat16)
        arguments = (*tensors, None, 1.0, 1.0, 1, *fused.choices(PairLossSpec(), 2.0))
        calls.append((arguments, OPS.pair_loss_and_grad(*arguments)))

    def repeat(call: tuple) -> bool:
        totals = [OPS.pair_loss_and_grad(*call[0])[0] for _ in range(300)]
        return all(agreement.same_bits(total, call[1][0]) for total in totals)

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(repeat, calls))


@pytest.mark.parametrize("way", WAYS)
def test_no_memory_beside_the_gradients(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place, a call needs less than a hundredth of the scores; else the gradients, and that."""
    go(way, monkeypatch, 40_000, torch.bfloat16)
    first, second, labels = cuda(make_case(64, 40_000, 1.0), torch.bfloat16)
    arguments = (None, 1.0, 1.0, 1, *fused.choices(PairLossSpec(similarity="mmd"), 2.0))
    scores = 2 * first.numel() * first.element_size()
    for op, most in ((OPS.pair_loss_and_grad_, 0.01), (OPS.pair_loss_and_grad, 1.01)):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        op(first, second, labels, *arguments)
        assert torch.cuda.max_memory_allocated() - before < most * scores + 2**20


def test_a_way_that_cannot_be_gone_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, labels = cuda(make_case(2, 2_000_000, 1.0), torch.float32)
    for way in ("small", "fast"):
        monkeypatch.setenv("PAIRDISTILL_CUDA_PATH", way)
        with pytest.raises(RuntimeError, match="PAIRDISTILL_CUDA_PATH"):
            OPS.pair_loss(first, second, labels, *fused.choices(PairLossSpec(), 2.0))


def test_native_is_what_runs_on_this_device() -> None:
    assert implementation_name("native", "cuda") == "native"
