"""Times `linear_pair_loss` against whole logits (`F.linear` or cosines, then `pair_loss`).

    python benchmarks/bench_linear_loss.py --pairs 64 --classes 20000,100000 --save docs/benchmarks

Forward and backward of the mean total, to features and weight. Every round times each side once, so
that what else the machine does hits both; medians over the rounds. Memory is the most that tensors
took at once beyond arguments and gradients of the weight (on CUDA: of the allocator).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from distill.losses import PairLossSpec, implementation_info, linear_pair_loss, pair_loss
from distill.losses.bench import TYPES, peak_bytes
from distill.losses.bench_clock import medians
from distill.losses.bench_table import device_name, save_csv, stamp

T = 3.0
HEAD = "head | type | B | D | C | budget MB | whole ms | linear ms | ratio | whole MB | linear MB"


@dataclass(frozen=True)
class Line:
    """One row of the table; milliseconds are medians, MB are 10^6 bytes."""

    device: str
    head: str
    dtype: str
    pairs: int
    width: int
    classes: int
    budget_mb: float
    whole_ms: float
    linear_ms: float
    whole_mb: float
    linear_mb: float

    def text(self) -> str:
        """As a row of the table."""
        cells = [self.head, self.dtype, self.pairs, self.width, self.classes, self.budget_mb]
        times = [f"{self.whole_ms:.1f}", f"{self.linear_ms:.1f}"]
        times.append(f"{self.linear_ms / self.whole_ms:.2f}")
        memory = [f"{self.whole_mb:.1f}", f"{self.linear_mb:.1f}"]
        return " | ".join([*map(str, cells), *times, *memory])


def make_steps(
    args: argparse.Namespace, head: str, dtype: str, classes: int, budget: int
) -> dict[str, Callable[[], object]]:
    """Forward and backward by whole logits and by chunks, on the same tensors."""
    made = {"device": args.device, "dtype": TYPES[dtype]}
    features = [torch.randn(args.pairs, args.width, **made).requires_grad_() for _ in range(2)]
    weight = torch.randn(classes, args.width, **made).mul_(args.width**-0.5).requires_grad_()
    labels = torch.randint(0, classes, (args.pairs,), device=args.device)
    spec = PairLossSpec(logit_scale=64.0 if head == "cosine" else 1.0)
    inputs = (*features, weight)

    def whole() -> object:
        both = torch.cat(features)
        if head == "cosine":
            scores = F.normalize(both.float()) @ F.normalize(weight.float()).T
        else:
            scores = F.linear(both, weight)
        loss = pair_loss(*scores.chunk(2), labels, temperature=T, weight=1.0, spec=spec)
        return torch.autograd.grad(loss.total, inputs)

    def linear() -> object:
        loss = linear_pair_loss(
            *inputs,
            labels,
            temperature=T,
            similarity_weight=1.0,
            spec=spec,
            head=head,
            memory_budget_bytes=budget,
            chunk_classes=args.chunk or None,
        )
        return torch.autograd.grad(loss.total, inputs)

    return {"whole": whole, "linear": linear}


def measure(args: argparse.Namespace, head: str, dtype: str, classes: int, budget: int) -> Line:
    """One row of the table."""
    steps = make_steps(args, head, dtype, classes, budget)
    took = medians(steps, args.device, args.rounds)
    weight_bytes = classes * args.width * TYPES[dtype].itemsize
    memory = {
        name: peak_bytes(step, args.device, weight_bytes) / 1e6 for name, step in steps.items()
    }
    return Line(
        device=device_name(args.device),
        head=head,
        dtype=dtype,
        pairs=args.pairs,
        width=args.width,
        classes=classes,
        budget_mb=budget / 1e6,
        whole_ms=1e3 * took["whole"],
        linear_ms=1e3 * took["linear"],
        whole_mb=memory["whole"],
        linear_mb=memory["linear"],
    )


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--pairs", type=int, default=64, help="B (default 64)")
    parser.add_argument("--width", type=int, default=512, help="D (default 512)")
    parser.add_argument("--classes", default="20000,100000", help="values of C, with commas")
    parser.add_argument("--types", default="float32", help="types, with commas")
    parser.add_argument("--heads", default="linear,cosine", help="heads, with commas")
    parser.add_argument("--budgets-mb", default="0,256", help="kept scores, 10^6 bytes, commas")
    parser.add_argument("--chunk", type=int, default=0, help="classes in a chunk; 0: by the rule")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds (default 5)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves them")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--save", type=Path, help="folder for the table as CSV")
    return parser.parse_args()


def main() -> None:
    """Print the table."""
    args = parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    print(implementation_info().summary(), device_name(args.device), HEAD, sep="\n")
    lines = []
    for head in args.heads.split(","):
        for dtype in args.types.split(","):
            for classes in map(int, args.classes.split(",")):
                for budget in map(float, args.budgets_mb.split(",")):
                    lines.append(measure(args, head, dtype, classes, int(1e6 * budget)))
                    print(lines[-1].text(), flush=True)
    if args.save:
        table = [asdict(line) for line in lines]
        path = save_csv(args.save, "linear-loss", lines[0].device, table, stamp(args.device))
        print(f"written: {path}")


if __name__ == "__main__":
    main()
