"""Times a head with its loss over ranks: ours, plain torch replicated, plain torch sharded.

    make bench-head                                       # quick, fits a laptop
    make bench-head HEAD_ARGS="--images first"            # the cross-entropy without pairs
    make bench-head HEAD_ARGS="--preset cpu"              # C from 10 thousand to 2 million
    make bench-head HEAD_ARGS="--preset gpu --device cuda"

A step is forward and backward from embeddings to the loss, the gradient of this rank's embeddings
and that of its weight, collectives included (`head_ways.py` has the ways). W ranks on this machine
(gloo on the CPU, nccl on GPUs) share its cores; each has b pairs of its own, or b images, so rows
grow with W. Every round times each way once, in turn; medians over rounds. On the CPU a step lies
between two barriers. On GPUs they would have the host wait, and count what it needs for launches.

Memory is the most that rank 0's tensors took at once, the gradient of the weight apart
(`distill/losses/live_memory.py`; on CUDA the allocator's). Bytes are those of the tensors that rank
0 gave to collectives (`head_wire.py`); a reduction sends what it is given about twice.
"""

# over 300 lines: each rank runs this file whole; ways and wire have files of their own.

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from head_plot import draw
from head_ways import Problem, ours, replicated, sharded
from head_wire import Wire
from rank_lines import measured, numbers, write_down

from distill.config import Config
from distill.losses import ClassShards, implementation_info
from distill.losses.bench import TYPES, peak_bytes
from distill.losses.bench_clock import times
from distill.losses.bench_table import processor_name, save_csv, stamp, text
from distill.processes.spawn import spawned_rank
from distill.ranks import from_environment, init_process_group, leave_process_group, set_threads

OURS, STORED, NONE_KEPT = "ours", "ours, all scores kept", "ours, no scores kept"
REPLICATED, SHARDED = "torch, replicated", "torch, sharded"
SIDES = {"pair": 2, "first": 1}
"""Images of each label."""
BUDGETS = {OURS: None, STORED: 2**62, NONE_KEPT: 0}


class Preset(NamedTuple):
    """Sizes of a whole table."""

    classes: tuple[int, ...]
    ranks: tuple[int, ...]
    pairs: int
    width: int
    rounds: int


PRESETS = {
    "quick": Preset((10_000, 100_000, 360_000), (1, 2, 4), 16, 192, 3),
    "cpu": Preset((10_000, 93_000, 360_000, 1_000_000, 2_000_000), (1, 2, 4), 16, 256, 5),
    "gpu": Preset((10_000, 93_000, 360_000, 1_000_000, 2_000_000), (1, 2, 4, 8), 128, 512, 20),
}


@dataclass(frozen=True)
class Line:
    """One way at one size. ``*_bytes`` are of rank 0; None where nothing was measured.

    Attributes:
        threads: of each rank.
        pairs: b, of each rank.
        images: of both sides (pair), or of the first alone.
        statistics_bytes: for one label of all W b, as the two ratios below are over `REPLICATED`
            and `SHARDED` of the same run.
    """

    device: str
    threads: int
    ranks: int
    classes: int
    pairs: int
    width: int
    images: str
    head: str
    dtype: str
    what: str
    ms: float | None
    least_ms: float | None
    peak_mb: float | None
    features_bytes: float | None
    statistics_bytes: float | None
    checks_bytes: float | None
    feature_gradient_bytes: float | None
    weight_gradient_bytes: float | None
    memory_of_replicated: float | None
    time_of_sharded: float | None
    load: float
    note: str


HEAD = "W | C | what | ms | of sharded | peak MB | of replicated | statistics B a label | other MB"


def line_text(line: Line) -> str:
    """As a row of the table."""
    moved = (line.features_bytes, line.feature_gradient_bytes, line.weight_gradient_bytes)
    other = None if line.ms is None else sum(one or 0.0 for one in moved) / 1e6
    cells = [str(line.ranks), str(line.classes), line.what, text(line.ms, ".1f")]
    cells += [text(line.time_of_sharded, ".2f"), text(line.peak_mb, ".1f")]
    cells += [text(line.memory_of_replicated, ".3f"), text(line.statistics_bytes, ".0f")]
    return " | ".join([*cells, text(other, ".2f"), line.note])


def problems(args: argparse.Namespace, classes: int, device: torch.device) -> dict[str, Problem]:
    """What each way is given on this rank; of one weight, cut in equal shares."""
    rank, world = dist.get_rank(), dist.get_world_size()
    made = torch.Generator().manual_seed(1000 + rank)
    dtype = TYPES[args.dtype]
    sides = tuple(
        torch.randn(args.pairs, args.width, generator=made).to(device, dtype).requires_grad_()
        for _ in range(SIDES[args.images])
    )
    labels = torch.randint(0, classes, (args.pairs,), generator=made).to(device)
    low, high = (classes * place // world for place in (rank, rank + 1))
    weight = torch.randn(classes, args.width, generator=torch.Generator().manual_seed(1))
    weight = weight.mul_(args.width**-0.5).to(device, dtype)
    shards = ClassShards.create(None, high - low, sum_feature_gradients=False)
    share = weight[low:high].clone().requires_grad_()
    cosine, wire = args.head == "cosine", Wire()
    same = (sides, labels)
    shared = {
        name: Problem(*same, share, cosine, shards, wire, budget)
        for name, budget in (*BUDGETS.items(), (SHARDED, None))
    }
    if fits(args, classes, world):
        whole = weight.requires_grad_()
        return shared | {REPLICATED: Problem(*same, whole, cosine, None, wire)}
    return shared


def fits(args: argparse.Namespace, classes: int, world: int) -> bool:
    """Whether all ranks' whole weights, their gradients and logits fit into the memory allowed.

    Plain torch holds about six tensors of the size of the logits at its peak.
    """
    rows = SIDES[args.images] * args.pairs
    bytes_of_class = TYPES[args.dtype].itemsize * (2 * args.width) + 4 * 6 * rows
    if args.head == "cosine":
        bytes_of_class += 3 * 4 * args.width
    return world * classes * bytes_of_class <= args.memory_gib * 2**30


def steps_of(given: dict[str, Problem], kind: str) -> dict[str, Callable[[], object]]:
    """Every way as a step of all ranks, on devices of a ``kind``: ``cpu`` or ``cuda``."""
    functions = {REPLICATED: replicated, SHARDED: sharded}

    def step(name: str) -> Callable[[], object]:
        function = functions.get(name, ours)

        def run() -> object:
            if kind == "cuda":  # its collectives keep the ranks in step
                return function(given[name])
            dist.barrier()
            found = function(given[name])
            dist.barrier()
            return found

        return run

    return {name: step(name) for name in given}


def check_rows(args: argparse.Namespace, kind: str, world: int) -> None:
    """On the CPU, what has the size of the weight's gradient is left out of the peak."""
    if kind == "cpu" and SIDES[args.images] * args.pairs * world == args.width:
        raise SystemExit("error: with D rows the scores have the size of the weight's gradient")


def agree(steps: dict[str, Callable[[], object]], dtype: torch.dtype) -> None:
    """Every way must find the same loss and the same gradient of the embeddings."""
    true: tuple[torch.Tensor, ...] | None = None
    for name, step in steps.items():
        loss, d_rows, _ = step()  # type: ignore[misc]
        true = true or (loss, d_rows)
        narrow = 2e-4 if dtype in (torch.float32, torch.float64) else 4e-2
        for found, wanted in zip((loss, d_rows), true, strict=True):
            apart = float((found - wanted).abs().max() / wanted.abs().max())
            if not apart <= narrow:
                raise SystemExit(f"error: {name} is {apart:.1e} off {next(iter(steps))}")


def moved_bytes(
    given: dict[str, Problem], steps: dict[str, Callable[[], object]], name: str
) -> Wire:
    """What one step of a way gives to collectives on this rank."""
    wire = given[name].wire
    wire.sent.clear()
    wire.calls.clear()
    with wire.watching():
        steps[name]()
    return Wire(dict(wire.sent), dict(wire.calls))


def measure(args: argparse.Namespace, classes: int, device: torch.device) -> list[Line]:
    """The lines of one size; every rank calls it, and rank 0's lines count."""
    kind, load = device.type, os.getloadavg()[0]
    check_rows(args, kind, dist.get_world_size())
    given = problems(args, classes, device)
    steps = steps_of(given, kind)
    agree(steps, TYPES[args.dtype])
    taken = times(steps, kind, args.rounds)
    wires = {name: moved_bytes(given, steps, name) for name in steps}
    peaks = {
        name: peak_bytes(step, kind, given[name].weight.nbytes) for name, step in steps.items()
    }
    medians = {name: statistics.median(values) for name, values in taken.items()}
    world = dist.get_world_size()
    where = (processor_name(kind), torch.get_num_threads(), world)
    common = (*where, classes, args.pairs, args.width, args.images, args.head, args.dtype)
    lines = []
    for name in steps:
        sent = wires[name].sent
        lines.append(
            Line(
                *common,
                what=name,
                ms=1e3 * medians[name],
                least_ms=1e3 * min(taken[name]),
                peak_mb=peaks[name] / 1e6,
                features_bytes=sent.get("features", 0),
                statistics_bytes=sent.get("statistics", 0) / (world * args.pairs),
                checks_bytes=sent.get("checks", 0),
                feature_gradient_bytes=sent.get("feature gradient", 0),
                weight_gradient_bytes=sent.get("weight gradient", 0),
                memory_of_replicated=(
                    peaks[name] / peaks[REPLICATED] if REPLICATED in peaks else None
                ),
                time_of_sharded=medians[name] / medians[SHARDED],
                load=load,
                note="",
            )
        )
    if REPLICATED not in steps:
        note = f"all ranks together would need more than --memory-gib {args.memory_gib:g}"
        lines.append(Line(*common, REPLICATED, *[None] * 10, load=load, note=note))
    return lines


def rank_main(args: argparse.Namespace) -> None:
    """One of W ranks: measures every size, and rank 0 writes the lines down as it goes."""
    config = Config.model_validate({"run": {"device": args.device}})
    ranks = from_environment(config)
    set_threads(config, ranks)
    init_process_group(config, ranks)
    for classes in args.classes:
        lines = measure(args, classes, ranks.device)
        if ranks.is_first:
            write_down(args.lines, map(asdict, lines))
            print(*map(line_text, lines), sep="\n", flush=True)
    leave_process_group()


def save(folder: Path, lines: list[Line], device: str) -> Path:
    """The CSV, and beside it the picture."""
    kind = "head" if lines[0].images == "pair" else "head-first"
    path = save_csv(folder, kind, lines[0].device, [asdict(x) for x in lines], stamp(device))
    draw(path.with_suffix(".png"), lines, OURS)
    return path


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--preset", choices=tuple(PRESETS), default="quick")
    parser.add_argument("--classes", type=numbers, help="values of C, with commas")
    parser.add_argument("--ranks", type=numbers, help="values of W, with commas")
    parser.add_argument("--pairs", type=int, help="pairs b of each rank")
    parser.add_argument("--width", type=int, help="D")
    parser.add_argument("--rounds", type=int, help="timed rounds")
    parser.add_argument("--images", choices=tuple(SIDES), default="pair", help="sides of the loss")
    parser.add_argument("--head", choices=("linear", "cosine"), default="linear")
    parser.add_argument("--dtype", choices=tuple(TYPES), default="float32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--memory-gib", type=float, default=16, help="for the replicated weights")
    parser.add_argument("--save", type=Path, help="folder for the table as CSV and a plot")
    parser.add_argument("--lines", help=argparse.SUPPRESS)
    args = parser.parse_args()
    for name, value in PRESETS[args.preset]._asdict().items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


def main() -> None:
    """Print the table."""
    args = parse()
    if args.lines:
        with spawned_rank():
            return rank_main(args)
    print(implementation_info().summary(), time.strftime("%Y-%m-%d"), HEAD, sep="\n", flush=True)
    lines: list[Line] = []
    for more in measured(__file__, args.ranks):
        lines += [Line(**line) for line in more]
        if args.save:
            path = save(args.save, lines, args.device)
    if args.save:
        print(f"written: {path} and {path.with_suffix('.png').name}")
    return None


if __name__ == "__main__":
    main()
