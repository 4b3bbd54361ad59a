"""Losses of CUDA tensors that have shapes and no memory, for test_loss_cuda_tensors.py.

What is not on the device, or would make the host wait, is an error.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import label_script
import torch
import torch._dynamo  # what fake tensors ask for: once, for all forks
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from distill.losses import (
    ClassShards,
    PairLossSpec,
    RowMargins,
    bench,
    bench_clock,
    fused,
    linear_cross_entropy,
    linear_pair_loss,
    pair_loss,
    pair_loss_and_grad,
)

B, C, D, WORLD = 4, 300, 16, 3
TYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


class OnTheDevice(TorchDispatchMode):
    """Every operator is given tensors of the device and numbers of the host, never a copy.

    An index on the host is copied by the operator itself, which then waits.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        for leaf in tree_leaves((args, kwargs, result)):
            if isinstance(leaf, torch.Tensor):
                number = leaf.dim() == 0 and func is not torch.ops.aten._to_copy.default
                assert leaf.is_cuda or number, f"{func}: a tensor {tuple(leaf.shape)} of the host"
        return result


class LabelsAsserted(TorchDispatchMode):
    """A call asks the device once whether labels are -1 .. C - 1, of however many ranks."""

    def __init__(self) -> None:
        super().__init__()
        self.compared: list[int] = []
        self.before: list[list[int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.ge.Scalar, torch.ops.aten.lt.Scalar):
            self.compared.append(args[1])
        elif func is torch.ops.aten._assert_async.msg:
            self.before.append(self.compared[-2:])
        return func(*args, **(kwargs or {}))

    def __exit__(self, *of_error: Any) -> None:
        super().__exit__(*of_error)
        assert any(of_error) or self.before == [[-1, C]], self.before


class Alone(ClassShards):
    """One of `WORLD` ranks, to whom nobody listens."""

    def gathered(self, values: torch.Tensor) -> torch.Tensor:
        return values.new_empty((WORLD, *values.shape))


def leaves(dtype: torch.dtype, *shapes: tuple[int, ...]) -> list[torch.Tensor]:
    made = {"device": "cuda", "dtype": dtype}
    return [torch.randn(shape, **made).requires_grad_() for shape in shapes]


def specs(**more: Any) -> Iterator[PairLossSpec]:
    for similarity in ("kl", "ce", "mmd", "none"):
        for smoothing in (0.0, 0.1):
            yield PairLossSpec(similarity=similarity, label_smoothing=smoothing, **more)


def labels() -> torch.Tensor:
    return torch.zeros(B, dtype=torch.int64, device="cuda")


def whole_scores() -> None:
    weights = torch.rand(B, device="cuda")
    for dtype, spec in itertools.product(TYPES, specs()):
        first, second = leaves(dtype, (B, C), (B, C))
        arguments = {"temperature": 2.0, "weight": 1.0, "spec": spec, "sample_weights": weights}
        loss = pair_loss(first, second, labels(), **arguments)
        torch.autograd.grad(loss.total, (first, second))
        for inplace in (False, True):
            pair_loss_and_grad(first, second, labels(), inplace=inplace, **arguments)


def chunks(
    shards: ClassShards | None = None,
    implementation: str = "auto",
    types: Sequence[torch.dtype] = TYPES[1:3],
) -> None:
    rows = C if shards is None else shards.rows
    margins = RowMargins(*torch.rand(2, 2 * B, device="cuda"))
    grouped = PairLossSpec(topk_classes=5, label_smoothing=0.1)
    for dtype, head in itertools.product(types, ("linear", "cosine")):
        for spec in (*specs(), grouped):
            first, second, weight = leaves(dtype, (B, D), (B, D), (rows, D))
            options = {"head": head, "spec": spec, "chunk_classes": 160, "shards": shards}
            options["implementation"] = implementation
            with LabelsAsserted():
                loss = linear_pair_loss(
                    *(first, second, weight, labels()),
                    temperature=2.0,
                    similarity_weight=1.0,
                    margins=margins if head == "cosine" else None,
                    memory_budget_bytes=2**12,
                    **options,
                )
            torch.autograd.grad(loss.total, (first, second, weight))
            if spec.similarity == "none" or spec is grouped:  # which others do not differ from
                with LabelsAsserted():
                    loss = linear_cross_entropy(first, weight, labels(), **options)
                torch.autograd.grad(loss.total, (first, weight))


def chunks_in_plain_torch() -> None:
    chunks(implementation="reference", types=[torch.float32])
    first, second = leaves(torch.float32, (B, C), (B, C))
    options = {"temperature": 2.0, "weight": 1.0, "spec": PairLossSpec()}
    with LabelsAsserted():
        pair_loss(first, second, labels(), implementation="reference", **options)


def shares_of_the_classes() -> None:
    shards = Alone(None, 1, (0, 100, 190, C), sum_feature_gradients=False, gather_entropies=True)
    shards._agreed = True  # comparing the ranks' arguments waits, once
    chunks(shards)


def waits() -> None:
    float(pair_loss(*leaves(torch.float32, (B, C), (B, C)), labels(), temperature=2.0, weight=1.0,
                    spec=PairLossSpec()).total)  # fmt: skip


def indexes_on_the_host() -> None:
    torch.zeros(B, 5, device="cuda")[:, torch.tensor([1, 3])]


class Order(TorchDispatchMode):
    """What a program asks of the device, in order; while it is busy, of tensors that are on it."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []
        self.busy = ExitStack()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace != "prim":  # which ask for a device's name
            self.told.append(func)
        return func(*args, **(kwargs or {}))

    def sleep(self, cycles: int) -> None:
        self.told.append("sleep")
        self.busy.enter_context(OnTheDevice())

    def note(self, word: str) -> Callable[..., float]:
        """What notes that it was called."""
        return lambda *_, **__: self.told.append(word) or 0.0


def labels_out_of_range() -> None:
    """The order of label_script.py: nothing is new to the device when the assertion is queued."""
    for what, implementation in itertools.product(
        ("single_images", "pairs", "scores"), ("native", "reference")
    ):
        with FakeTensorMode(), Order() as order, order.busy:
            torch.cuda.synchronize = order.note("synchronize")
            torch.cuda._sleep = order.sleep
            label_script.print = order.note("called")
            label_script.main(what, implementation, "37")
        at = order.told.index("sleep")
        before, after = order.told[:at], order.told[at + 1 :]
        assert before[-1] == "synchronize"
        assert after[-2:] == ["called", "synchronize"]
        assert set(after[:-2]) <= set(before), "the first use of a kernel while one may stop"
        assert len(after) < 1000, "more than the queue holds"
        asserting = torch.ops.aten._assert_async.msg, torch.ops.pairdistill.pair_loss.default
        assert set(asserting) & set(after)
    print("called", flush=True)
    os._exit(0)


def calls_timed_in_place() -> None:
    """Scores are put back, then the cache is filled with other bytes, then the events."""
    tensors = *(torch.zeros(B, C, device="cuda") for _ in range(2)), labels()
    step = bench.in_one_go(tensors, bench.Case(PairLossSpec(), 2.0), inplace=True)
    with Order() as order:
        events = SimpleNamespace(record=order.note("event"), elapsed_time=order.note("read"))
        torch.cuda.Event = lambda **_: events
        torch.cuda.synchronize, torch.cuda._sleep = order.note("wait"), order.sleep
        bench_clock.seconds(step, "cuda")
    aten, ours = torch.ops.aten, torch.ops.pairdistill
    copies = [aten.detach.default, aten.detach.default, aten.copy_.default] * 2
    one = [*copies, aten.sum.default, "event", ours.pair_loss_and_grad_.default, "event"]
    told = order.told[order.told.index("sleep") + 1 : order.told.index("wait")]
    assert told == bench_clock.CALLS_ON_CUDA * one, told


CALLS: dict[str, Callable[[], None]] = {
    one.__name__: one
    for one in (
        whole_scores,
        chunks,
        chunks_in_plain_torch,
        shares_of_the_classes,
        calls_timed_in_place,
        waits,
        indexes_on_the_host,
    )
}


def make(name: str) -> None:
    """The calls of that name, in a process of their own."""
    assert "cpu" in fused.native_devices(), "the native loss is not built"
    with FakeTensorMode(), OnTheDevice():
        CALLS[name]()
    print("called", flush=True)
    os._exit(0)  # autograd has a thread for each device, and no end of them here
