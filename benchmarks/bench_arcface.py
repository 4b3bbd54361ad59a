"""Times arcface_torch itself and ours, in turn: the head by itself, and a whole training step.

    python benchmarks/bench_arcface.py --peer PATH_TO_INSIGHTFACE
    python benchmarks/bench_arcface.py --peer PATH --parts head --classes 10e3,93e3 --save FOLDER

Both on the CPU, on gloo ranks of this machine that share its cores (`arcface_peer.py` says how
theirs runs there). The head: from embeddings to loss, and the gradients of the embeddings of a rank
and of its weight; theirs is `PartialFC_V2` with CosFace's or ArcFace's margin, ours the head by
ranges with CosFace's, all scores stored (`plain`) or at most 256 MiB of them (`fused`). `first`: N
images a rank on both sides. `pair`: N / 2 pairs with us, KL included, N images with them.
The step: network, head, clipping and SGD on a given batch; no data is read or logged. Ours is
`distill.step.train_step`, with the settings that `pairdistill migrate` writes.

Before anything is timed, losses must agree (of images; with them a pair has no loss). Rounds time
each way once, in turn, between two barriers; medians, wall time and processor time of all ranks.
Memory is what tensors of operators take at once on rank 0 (`distill/losses/live_memory.py`), so
without what DDP and DeepSpeed hold from step to step.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from arcface_ways import STEP_CLASSES, THEIRS, Step, agree, head_ways, step_ways
from rank_lines import measured, numbers, write_down

from distill.config import Config
from distill.losses.bench import peak_bytes
from distill.losses.bench_table import processor_name, save_csv, stamp
from distill.processes.spawn import spawned_rank
from distill.ranks import from_environment, init_process_group, leave_process_group

HEADING = (
    "part | W | C | images | what | ms | of theirs | CPU ms | of theirs | MB | of theirs | load"
)


@dataclass(frozen=True)
class Line:
    """One way at one size; ratios are over `THEIRS` of the same size and run.

    Attributes:
        rows: images of each rank.
        images: whether ours sees them as pairs.
        used_ms: processor time of all ranks.
        peak_mb: of rank 0.
        load: average of the machine as the size began.
    """

    device: str
    threads: int
    part: str
    ranks: int
    classes: int
    rows: int
    width: int
    images: str
    what: str
    ms: float
    least_ms: float
    ms_of_theirs: float
    used_ms: float
    used_of_theirs: float
    peak_mb: float
    peak_of_theirs: float
    load: float


def line_text(line: Line) -> str:
    """As a row of the table."""
    cells = [line.part, str(line.ranks), str(line.classes), line.images, line.what]
    cells += [f"{line.ms:.1f}", f"{line.ms_of_theirs:.2f}", f"{line.used_ms:.1f}"]
    cells += [f"{line.used_of_theirs:.2f}", f"{line.peak_mb:.1f}", f"{line.peak_of_theirs:.2f}"]
    return " | ".join([*cells, f"{line.load:.1f}"])


def taken(ways: dict[str, Step], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Wall time and processor time of all ranks of each way in each round, in seconds."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for done in range(rounds + 1):
        for name, way in ways.items():
            dist.barrier()
            wall, used = time.perf_counter(), time.process_time()
            way()
            spent = torch.tensor(time.process_time() - used, dtype=torch.float64)
            dist.barrier()
            wall = time.perf_counter() - wall
            dist.all_reduce(spent)
            if done:
                found[name].append((wall, float(spent)))
    return found


def lines_of(
    args: argparse.Namespace,
    part: str,
    classes: int,
    images: str,
    ways: dict[str, Step],
    load: float,
) -> list[Line]:
    """What the ways took."""
    spent = taken(ways, args.rounds)
    peaks = {name: peak_bytes(way, "cpu") / 1e6 for name, way in ways.items()}
    medians = {
        name: [1e3 * statistics.median(column) for column in zip(*rounds, strict=True)]
        for name, rounds in spent.items()
    }
    rows = args.images if part == "step" else args.rows
    where = (processor_name("cpu"), torch.get_num_threads(), part, dist.get_world_size(), classes)
    return [
        Line(
            *where, rows, args.width, images, name, wall, 1e3 * min(spent[name])[0],
            wall / medians[THEIRS][0], used, used / medians[THEIRS][1],
            peaks[name], peaks[name] / peaks[THEIRS], load,
        )
        for name, (wall, used) in medians.items()
    ]  # fmt: skip


def rank_main(args: argparse.Namespace) -> None:
    """One of W ranks: measures every size, and rank 0 writes the lines down as it goes."""
    config = Config.model_validate({"run": {"device": "cpu"}})
    ranks = from_environment(config)
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // ranks.world_size))
    init_process_group(config, ranks)

    def tell(lines: Sequence[Line]) -> None:
        if ranks.is_first:
            write_down(args.lines, map(asdict, lines))
            print(*map(line_text, lines), sep="\n", flush=True)

    for images in args.sides if "head" in args.parts else ():
        for classes in args.classes:
            load, ways = os.getloadavg()[0], head_ways(args, classes, images)
            if images == "first":
                agree(ways)
            tell(lines_of(args, "head", classes, images, dict(ways), load))
    for images in args.sides if "step" in args.parts else ():
        load, steps = os.getloadavg()[0], step_ways(args, ranks, images)
        tell(step_lines(args, images, steps, load))
    leave_process_group()


def step_lines(
    args: argparse.Namespace, images: str, steps: dict[str, Step], load: float
) -> list[Line]:
    """The first losses must agree, where they are of the same kind."""
    losses = {name: torch.tensor(step(), dtype=torch.float64) for name, step in steps.items()}
    for loss in losses.values():
        dist.all_reduce(loss)  # a mean over ranks is logged of both
    apart = float((losses["ours"] / losses[THEIRS] - 1).abs())
    if images == "first" and apart > 1e-5:
        raise SystemExit(f"error: the losses of a step are {apart:.1e} apart")
    return lines_of(args, "step", STEP_CLASSES, images, steps, load)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--peer", type=Path, required=True, help="a checkout of insightface")
    parser.add_argument("--parts", default="head,step", help="head, step")
    parser.add_argument(
        "--classes", type=numbers, default=[10_000, 93_000, 360_000], help="of the head"
    )
    parser.add_argument("--ranks", type=numbers, default=[1, 2], help="W, with commas")
    parser.add_argument("--rows", type=int, default=32, help="images of a rank, of the head (32)")
    parser.add_argument("--images", type=int, default=8, help="images of a rank, of a step (8)")
    parser.add_argument("--width", type=int, default=512, help="D (512)")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds (5)")
    parser.add_argument("--sides", default="first,pair", help="first, pair")
    parser.add_argument("--save", type=Path, help="folder for the table as CSV")
    parser.add_argument("--lines", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.parts, args.sides = args.parts.split(","), args.sides.split(",")
    return args


def main() -> None:
    """Print the table."""
    args = parse()
    if args.lines:
        with spawned_rank():
            return rank_main(args)
    print(time.strftime("%Y-%m-%d"), HEADING, sep="\n", flush=True)
    lines: list[Line] = []
    for more in measured(__file__, args.ranks):
        lines += [Line(**line) for line in more]
    if args.save:
        written = save_csv(
            args.save, "arcface", lines[0].device, [asdict(x) for x in lines], stamp("cpu")
        )
        print(f"written: {written}")
    return None


if __name__ == "__main__":
    main()
