"""Times the pair loss with its gradients against plain torch and torch.compile in one process.

    python -m distill.losses.bench --logits 8e6 --classes 1000,100000 --compile --csv results.csv

    forward+backward   pair_loss, then its gradient through autograd: two reads, one write
    loss and gradient  pair_loss_and_grad: one read, one write; "in place" over the logits
    plain              torch.nn.functional, forward and backward; with --compile compiled too

Every round times each implementation once, so that what else the machine does hits all of them;
the median over the rounds is shown. GB/s are the bytes that must move, six or four times the size
of one side's logits, over the time; beside it their share of the machine's copy bandwidth in the
same rounds. Peak memory is that of the tensors a call makes, counted exactly (`live_memory.py`;
what an operator uses inside itself is not seen, nor what a compiled step does).
"""

from __future__ import annotations

import argparse
import csv
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch

from distill.losses import PairLossSpec, fused, implementation_info, plain
from distill.losses.live_memory import LiveMemory

TYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
Step = Callable[[], object]


@dataclass(frozen=True)
class Line:
    """One implementation at one size; times are medians."""

    device: str
    similarity: str
    dtype: str
    temperature: float
    pairs: int
    classes: int
    what: str
    ms: float
    gb_s: float
    copy_gb_s: float
    peak_mb: float
    peak_bytes_per_logit: float
    times_native: float

    def cells(self) -> list[str]:
        """As text."""
        return [
            *(self.similarity, self.dtype, str(self.pairs), str(self.classes), self.what),
            *(f"{self.ms:.2f}", f"{self.times_native:.1f}", f"{self.gb_s:.1f}"),
            *(f"{self.gb_s / self.copy_gb_s:.0%}", f"{self.peak_mb:.1f}"),
            f"{self.peak_bytes_per_logit:.1f}",
        ]


HEAD = (
    *("similarity", "type", "B", "C", "what", "ms", "times native", "GB/s", "of copy"),
    *("peak MB", "peak bytes per logit"),
)
NATIVE, IN_ONE_GO, IN_PLACE = "forward+backward", "loss and gradient", "the same in place"
SWEEPS = {IN_ONE_GO: 4, IN_PLACE: 4}
"""Logits of one side that must move, read or written; 6 in everything else."""


def seconds(step: Step, device: str) -> float:
    """Wall time of one call, the device's work included."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def medians(steps: dict[str, Step], device: str, rounds: int) -> dict[str, float]:
    """Median seconds of each step, timed in turn; one round before that warms up."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for done in range(rounds + 1):
        for name, step in steps.items():
            taken = seconds(step, device)
            if done:
                times[name].append(taken)
    return {name: statistics.median(values) for name, values in times.items()}


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
    """Value and gradient by one operator; in place of a copy that is then a gradient."""
    first, second = (x.detach().clone() if inplace else x.detach() for x in tensors[:2])
    ops = torch.ops.pairdistill
    op = ops.pair_loss_and_grad_ if inplace else ops.pair_loss_and_grad
    choices = fused.choices(case.spec, case.temperature)
    settings = (None, case.spec.ce_weight, 1.0, fused.REDUCTIONS["mean"], *choices)
    return lambda: op(first, second, tensors[2], *settings)


def make_steps(tensors: tuple[torch.Tensor, ...], case: Case, compiled: bool) -> dict[str, Step]:
    """Everything that is timed, by its name in the table."""
    steps = {
        NATIVE: make_step(fused.row_terms, tensors, case),
        IN_ONE_GO: in_one_go(tensors, case, inplace=False),
        IN_PLACE: in_one_go(tensors, case, inplace=True),
        "plain": make_step(plain.row_terms, tensors, case),
    }
    if compiled:
        torch._dynamo.reset()
        function = torch.compile(plain.row_terms, fullgraph=True)
        steps["torch.compile"] = make_step(function, tensors, case)
    return steps


def peak_bytes(step: Step) -> int:
    """Most bytes of tensors that a call has alive at once, besides its arguments."""
    with LiveMemory() as memory:
        step()
    return int(memory.peak_bytes)


def measure(args: argparse.Namespace, similarity: str, dtype: str, classes: int) -> list[Line]:
    """The lines of one size."""
    spec = PairLossSpec(similarity=similarity)  # type: ignore[arg-type]
    case = Case(spec, args.temperature)
    pairs = max(1, int(args.logits) // classes) if args.logits else args.pairs
    logits = [
        torch.randn((pairs, classes), device=args.device).to(TYPES[dtype]).requires_grad_()
        for _ in range(2)
    ]
    labels = torch.randint(0, classes, (pairs,), device=args.device)
    steps = make_steps((logits[0], logits[1], labels), case, args.compile)
    source = torch.empty(max(2**24, pairs * classes), device=args.device)
    target = torch.empty_like(source)
    took = medians(steps | {"copy": lambda: target.copy_(source)}, args.device, args.rounds)
    size = pairs * classes * TYPES[dtype].itemsize
    lines = []
    for what, step in steps.items():
        # The mode in which memory is counted would have the compiled step compiled anew.
        peak = 0 if what == "torch.compile" else peak_bytes(step)
        lines.append(
            Line(
                device=device_name(args.device),
                similarity=similarity,
                dtype=dtype,
                temperature=args.temperature,
                pairs=pairs,
                classes=classes,
                what=what,
                ms=1e3 * took[what],
                gb_s=SWEEPS.get(what, 6) * size / took[what] / 1e9,
                copy_gb_s=2 * source.numel() * source.itemsize / took["copy"] / 1e9,
                peak_mb=peak / 1e6,
                peak_bytes_per_logit=peak / (2 * pairs * classes),
                times_native=took[what] / took[NATIVE],
            )
        )
    return lines


def device_name(device: str) -> str:
    """The processor or the GPU, and how many threads."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def write_csv(path: Path, lines: list[Line]) -> None:
    """The lines and the versions they were measured with."""
    with path.open("w", newline="") as file:
        names = [f.name for f in fields(Line)]
        writer = csv.DictWriter(file, [*names, "torch", "build", "date"])
        writer.writeheader()
        info = implementation_info()
        stamp = {"torch": info.torch, "build": info.build, "date": time.strftime("%Y-%m-%d")}
        writer.writerows(asdict(line) | stamp for line in lines)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else ""
    )
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
    parser.add_argument("--csv", type=Path, help="also write the table here")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Entry of ``python -m``."""
    args = parse(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.device not in fused.native_devices():
        raise SystemExit(f"error: the native op is not built for {args.device}; run `make setup`")
    print(implementation_info().summary(), device_name(args.device), sep="\n")
    print(" | ".join(HEAD))
    lines: list[Line] = []
    for similarity in args.similarities.split(","):
        for dtype in args.types.split(","):
            for classes in map(int, args.classes.split(",")):
                for line in measure(args, similarity, dtype, classes):
                    lines.append(line)
                    print(" | ".join(line.cells()), flush=True)
    if args.csv:
        write_csv(args.csv, lines)


if __name__ == "__main__":
    main()
