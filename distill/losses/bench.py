"""Times the pair loss with its gradients against plain torch, torch.compile and other kernels.

    make bench-loss                                 # the CPU's table, with torch.compile
    make bench-loss BENCH_ARGS="--preset h100"      # on a GPU; not run so far
    python -m distill.losses.bench --logits 8e6 --classes 1000,100000 --compile

    forward+backward   pair_loss, then its gradient through autograd: two reads, one write
    loss and gradient  pair_loss_and_grad: one read, one write; "in place" over the logits, which
                       are put back before each call, outside its time
    plain              torch.nn.functional, forward and backward; with --compile compiled too
    Liger, QuACK       `bench_peers.py`, which says how to install them; they need a CUDA device

Every round times each implementation once, so that what else the machine does hits all of them;
the median over the rounds is shown, and the least is in the CSV. GB/s are the bytes that must move,
six or four times the size of one side's logits, over the time; beside it their share of the
machine's copy bandwidth in the same rounds. On CUDA each call starts with a level-2 cache full of
other bytes, and is queued while the device is kept busy, so that what the host needs for a launch
does not count. Peak memory: on CUDA that of the allocator; on the CPU
that of the tensors a call makes, counted exactly (`live_memory.py`; what an operator uses inside
itself is not seen). What could not be measured stays blank, and a note says why.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import torch

from distill.losses import PairLossSpec, fused, implementation_info, plain
from distill.losses.bench_clock import COMPILED, failure, times
from distill.losses.bench_peers import InPlace, Step, peer_steps
from distill.losses.bench_table import HEAD, PRESETS, Line, Size, device_name, notes, save, stamp
from distill.losses.live_memory import LiveMemory

TYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


NATIVE, IN_ONE_GO, IN_PLACE = "forward+backward", "loss and gradient", "the same in place"
SWEEPS = {IN_ONE_GO: 4, IN_PLACE: 4}
"""Logits of one side that must move, read or written; 6 in everything else."""
COPIED = (2**24, 2**28)
"""The fewest and the most float32 numbers of the copy that bandwidth is taken from."""


class Case(NamedTuple):
    """What is computed."""

    spec: PairLossSpec
    temperature: float


def make_step(function: Any, tensors: tuple[torch.Tensor, ...], case: Case) -> Step:
    """Forward and backward of the mean total, gradients thrown away."""
    first, second, labels = tensors

    def step() -> None:
        terms = function(first, second, labels, case.temperature, case.spec)
        total = (terms.ce_first + terms.ce_second + terms.similarity).mean()
        torch.autograd.grad(total, (first, second))

    return step


def in_one_go(tensors: tuple[torch.Tensor, ...], case: Case, inplace: bool) -> Step:
    """Value and gradient by one operator; in place of copies, made anew before each timed call."""
    kept = tuple(x.detach() for x in tensors[:2])
    scores = tuple(x.clone() for x in kept) if inplace else kept
    ops = torch.ops.pairdistill
    op = ops.pair_loss_and_grad_ if inplace else ops.pair_loss_and_grad
    choices = fused.choices(case.spec, case.temperature)
    settings = (None, case.spec.ce_weight, 1.0, fused.REDUCTIONS["mean"], *choices)

    def step() -> object:
        return op(*scores, tensors[2], *settings)

    return InPlace(step, scores, kept) if inplace else step


def make_steps(
    tensors: tuple[torch.Tensor, ...], case: Case, compiled: bool
) -> dict[str, Step | str]:
    """Everything in the table by its name: what is timed, or why it is not."""
    steps: dict[str, Step | str] = {
        NATIVE: make_step(fused.row_terms, tensors, case),
        IN_ONE_GO: in_one_go(tensors, case, inplace=False),
        IN_PLACE: in_one_go(tensors, case, inplace=True),
        "plain": make_step(plain.row_terms, tensors, case),
        COMPILED: "asked for with --compile",
    }
    if compiled:
        torch._dynamo.reset()
        function = torch.compile(plain.row_terms, fullgraph=True)
        steps[COMPILED] = make_step(function, tensors, case)
    return steps | peer_steps(tensors, case.temperature, case.spec)


def tried(steps: dict[str, Step | str]) -> dict[str, Step | str]:
    """Every step called once; what of others' does not run is replaced by its error's first line.

    One implementation that lacks memory, or a size it refuses, must not end a table of many.
    """
    return {
        name: step if isinstance(step, str) else failure(name, step) or step
        for name, step in steps.items()
    }


def peak_bytes(step: Step, device: str, gradient_bytes: int = 0) -> int:
    """Most bytes that a call has at once, besides its arguments.

    ``gradient_bytes`` is the size of one tensor that is left out, because every implementation has
    to make it. On CUDA it is taken off the peak, which is then too small by what is missing of it.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before - gradient_bytes
    with LiveMemory(except_sizes=(gradient_bytes,)) as memory:
        step()
    return int(memory.peak_bytes)


def measure(args: argparse.Namespace, size: Size) -> list[Line]:
    """The lines of one size."""
    load = os.getloadavg()[0]
    spec = PairLossSpec(similarity=size.similarity)  # type: ignore[arg-type]
    shape = (size.pairs, size.classes)
    first, second = (
        torch.randn(shape, device=args.device, dtype=TYPES[size.dtype]).requires_grad_()
        for _ in range(2)
    )
    labels = torch.randint(0, size.classes, (size.pairs,), device=args.device)
    source = torch.ones(min(max(COPIED[0], first.numel()), COPIED[1]), device=args.device)
    target = torch.empty_like(source)
    steps = tried(make_steps((first, second, labels), Case(spec, args.temperature), args.compile))
    timed = {name: step for name, step in steps.items() if not isinstance(step, str)}
    failed: dict[str, str] = {}
    taken = times(timed | {"copy": lambda: target.copy_(source)}, args.device, args.rounds, failed)
    steps |= failed
    took = {name: statistics.median(values) for name, values in taken.items()}
    least = {name: 1e3 * min(values) for name, values in taken.items()}
    copy = 2 * source.numel() * source.itemsize / took["copy"]
    found = [_found(what, step, took.get(what), args.device) for what, step in steps.items()]
    return [
        Line(
            device=device_name(args.device),
            **size._asdict(),
            temperature=args.temperature,
            what=one.what,
            ms=one.seconds and 1e3 * one.seconds,
            least_ms=least.get(one.what),
            gb_s=one.seconds and _moved(size, one.what) / one.seconds / 1e9,
            copy_gb_s=copy / 1e9,
            share_of_copy=one.seconds and _moved(size, one.what) / one.seconds / copy,
            peak_mb=one.peak if one.peak is None else one.peak / 1e6,
            peak_bytes_per_logit=(
                one.peak if one.peak is None else one.peak / (2 * size.pairs * size.classes)
            ),
            times_native=one.seconds and one.seconds / took[NATIVE],
            load=load,
            note=one.note,
        )
        for one in found
    ]


class Found(NamedTuple):
    """What was measured of one implementation: seconds, bytes, and why one of them is None."""

    what: str
    seconds: float | None
    peak: int | None
    note: str


def _found(what: str, step: Step | str, taken: float | None, device: str) -> Found:
    if isinstance(step, str):
        return Found(what, None, None, step)
    # Counting on the CPU is a mode in which the compiled step would be compiled anew.
    if what == COMPILED and device == "cpu":
        return Found(what, taken, None, "its peak memory is not counted on the CPU")
    peak: list[int] = []
    reason = failure(what, lambda: peak.append(peak_bytes(step, device)))
    return Found(what, taken, peak[0] if peak else None, reason)


def _moved(size: Size, what: str) -> int:
    """Bytes that must move."""
    return SWEEPS.get(what, 6) * size.pairs * size.classes * TYPES[size.dtype].itemsize


def sizes(args: argparse.Namespace) -> list[Size]:
    """What is measured, in the order of the table."""
    if args.preset:
        return PRESETS[args.preset]
    return [
        Size(similarity, dtype, max(1, int(args.logits) // classes or args.pairs), classes)
        for similarity in args.similarities.split(",")
        for dtype in args.types.split(",")
        for classes in map(int, args.classes.split(","))
    ]


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else ""
    )
    parser.add_argument("--preset", choices=tuple(PRESETS), help="sizes of a whole table")
    parser.add_argument("--pairs", type=int, default=32, help="B (default 32)")
    parser.add_argument("--logits", type=float, default=0, help="B * C; then B follows from C")
    parser.add_argument("--classes", default="1000,10000,100000", help="values of C, with commas")
    parser.add_argument("--types", default="float32,bfloat16", help="types, with commas")
    parser.add_argument("--similarities", default="kl,ce,mmd", help="similarities, with commas")
    parser.add_argument("--temperature", type=float, default=3.0, help="T (default 3)")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds (default 7)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves them")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--compile", action="store_true", help="time torch.compile too")
    parser.add_argument("--save", type=Path, help="folder for the table as CSV and a plot")
    args = parser.parse_args(argv)
    if args.preset and args.preset != "cpu":
        args.device = "cuda"
    return args


def main(argv: list[str] | None = None) -> None:
    """Entry of ``python -m``."""
    args = parse(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.device not in fused.native_devices():
        raise SystemExit(f"error: the native op is not built for {args.device}; run `make setup`")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("error: --device cuda: no GPU here; run on a machine with one")
    # Sizes differ a lot, and what plain torch makes of the largest nearly fills the device.
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    stamped = stamp(args.device)
    print(implementation_info().summary(), device_name(args.device), sep="\n")
    print(" | ".join(HEAD))
    lines: list[Line] = []
    for size in sizes(args):
        if args.device == "cuda":
            torch.cuda.empty_cache()  # blocks of the last size's sizes
        for line in measure(args, size):
            lines.append(line)
            print(" | ".join(line.cells()), flush=True)
        if args.save:  # after each size: a table of many takes long
            path = save(args.save, lines, stamped)
    print(*(f"blank: {note}" for note in notes(lines)), sep="\n")
    if args.save:
        print(f"written: {path} and {path.with_suffix('.png').name}")


if __name__ == "__main__":
    main()
