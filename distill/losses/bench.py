"""Times the pair loss, forward and backward, against plain torch and torch.compile in one process.

    python -m distill.losses.bench --pairs 32 --classes 1000,10000,100000 --csv results.csv

Every round times each implementation once, so that what else the machine does hits all of them;
the median over the rounds is shown, with its share of the machine's copy bandwidth. Bytes are
those that must move: two rows read in forward, two read and two written in backward.
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
from typing import Any

import torch

from distill.losses import PairLossSpec, fused, implementation_info, plain

TYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
T = 3.0
Step = Callable[[], object]


@dataclass(frozen=True)
class Line:
    """One row of the table; milliseconds are medians, 0 where not measured."""

    device: str
    similarity: str
    dtype: str
    pairs: int
    classes: int
    native_ms: float
    plain_ms: float
    compile_ms: float
    copy_gb_s: float
    native_gb_s: float

    def cells(self) -> list[str]:
        """As text, with ratios to the native time."""
        compiled = f"{self.compile_ms:.2f}" if self.compile_ms else ""
        compiled_ratio = f"{self.compile_ms / self.native_ms:.1f}x" if self.compile_ms else ""
        return [
            self.similarity,
            self.dtype,
            str(self.pairs),
            str(self.classes),
            f"{self.native_ms:.2f}",
            f"{self.plain_ms:.2f}",
            f"{self.plain_ms / self.native_ms:.1f}x",
            compiled,
            compiled_ratio,
            f"{self.native_gb_s:.1f}",
            f"{self.native_gb_s / self.copy_gb_s:.0%}",
        ]


HEAD = (
    *("similarity", "type", "B", "C", "native ms", "plain ms", "ratio"),
    *("compile ms", "ratio", "GB/s", "of copy"),
)


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


def make_step(function: Any, tensors: tuple[torch.Tensor, ...], spec: PairLossSpec) -> Step:
    """Forward and backward of the mean total, gradients thrown away."""
    first, second, labels = tensors

    def step() -> None:
        terms = function(first, second, labels, T, spec)
        total = (terms.ce_first + terms.ce_second + terms.similarity).mean()
        torch.autograd.grad(total, (first, second))

    return step


def measure(args: argparse.Namespace, similarity: str, dtype: str, classes: int) -> Line:
    """One row of the table."""
    spec = PairLossSpec(similarity=similarity)  # type: ignore[arg-type]
    shape = (args.pairs, classes)
    logits = [
        torch.randn(shape, device=args.device).to(TYPES[dtype]).requires_grad_() for _ in range(2)
    ]
    labels = torch.randint(0, classes, (args.pairs,), device=args.device)
    tensors = (logits[0], logits[1], labels)
    source = torch.empty(max(2**24, args.pairs * classes), device=args.device)
    target = torch.empty_like(source)
    steps = {
        "native": make_step(fused.row_terms, tensors, spec),
        "plain": make_step(plain.row_terms, tensors, spec),
        "copy": lambda: target.copy_(source),
    }
    if args.compile:
        torch._dynamo.reset()
        compiled = torch.compile(plain.row_terms, fullgraph=True)
        steps["compile"] = make_step(compiled, tensors, spec)
    took = medians(steps, args.device, args.rounds)
    moved = 6 * args.pairs * classes * TYPES[dtype].itemsize
    return Line(
        device=device_name(args.device),
        similarity=similarity,
        dtype=dtype,
        pairs=args.pairs,
        classes=classes,
        native_ms=1e3 * took["native"],
        plain_ms=1e3 * took["plain"],
        compile_ms=1e3 * took.get("compile", 0.0),
        copy_gb_s=2 * source.numel() * source.itemsize / took["copy"] / 1e9,
        native_gb_s=moved / took["native"] / 1e9,
    )


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
    parser.add_argument("--classes", default="1000,10000,100000", help="values of C, with commas")
    parser.add_argument("--types", default="float32,bfloat16", help="types, with commas")
    parser.add_argument("--similarities", default="kl,ce,mmd", help="similarities, with commas")
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
    lines = []
    for similarity in args.similarities.split(","):
        for dtype in args.types.split(","):
            for classes in map(int, args.classes.split(",")):
                lines.append(measure(args, similarity, dtype, classes))
                print(" | ".join(lines[-1].cells()), flush=True)
    if args.csv:
        write_csv(args.csv, lines)


if __name__ == "__main__":
    main()
