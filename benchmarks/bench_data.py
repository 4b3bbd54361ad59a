"""Packing and loading, against what their parts could reach at most: one run, ways in turn.

    python benchmarks/bench_data.py [--pairs 8192] [--photographs 3000] [--rounds 5] [--seconds 3]

The median of the rounds counts, and ratios are medians of the rounds' ratios: of wall time, and in
brackets of processor time, which says the same where the machine is busy.

Loading, in pairs a second. All but the decoders read the same pack in the same order, check nothing
less than they need, and change images the same way:

- `decoder`: libjpeg-turbo alone, called from compiled code on as many threads; no file, no check;
- `simplejpeg`: the library that this package brings, through its Python binding;
- `pairdistill`, `pairdistill, block`: the loader, both orders;
- `pairdistill, first images`: the loader as `train.images = "first"` has it, with half the images;
- `torch DataLoader`: persistent processes, simplejpeg, our compiled changes, a pair at a time;
- `torch, plain numpy`: the same without our compiled code;
- `torch, whole batches`: with it, each batch decoded to its place at once;
- `webdataset`: the same work on a tar file of the pairs (left out, and said so, if not installed);
- `python`: the slow reference.

Packing, in photographs a second, with all default kinds of second images and with blur alone, the
cheapest, which leaves the packer least time: `pack` from files and a CSV with landmarks to a whole
pack, and the pixel work alone: decode, warp, second image, encode, in as many processes, from
memory to nowhere. `own us` is what the packer's first process does: the bound of many cores.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
from data_bench import images, loading, others, packing, report
from data_bench.measure import in_turn, stream_speed

from distill.data.pack_writer import write_pack
from distill.data.workers import team
from distill.processes.cores import usable_cores


def bench_loading(args: argparse.Namespace, folder: Path) -> list[report.Line]:
    """Lines of the loaders."""
    made = write_pack(
        folder / "pack",
        images.pairs(args.pairs),
        args.pairs,
        identities=[str(i) for i in range(images.PEOPLE)],
        kinds=["noise"],
    )
    others.write_tar(args.pairs, folder / "pairs.tar")
    ways = {
        **loading.decoder_ways(args.batch, args.workers),
        **loading.our_ways(made, args.batch, args.workers),
        **others.other_ways(made, folder / "pairs.tar", args.batch, args.workers),
    }
    turns = {
        name: partial(stream_speed, way, args.seconds, args.batch, 8) for name, way in ways.items()
    }
    return report.lines("loading", in_turn(args.rounds, turns), "decoder", "torch DataLoader")


def bench_packing(args: argparse.Namespace, folder: Path) -> list[report.Line]:
    """Lines of packing."""
    few, many = args.photographs // 10, args.photographs // 10 + args.photographs
    tables = {n: images.write_photographs(folder / str(n), n) for n in (few, many)}
    own, rows = folder / str(many), list[report.Line]()
    with team(args.workers) as workers:
        for part, chances in packing.KINDS.items():
            alone = partial(packing.pixels_speed, own, many, chances, workers)
            alone()  # compiled, drawn, and in the workers' memory
            packed = partial(packing.packing_speed, tables, chances, args.workers)
            found = in_turn(args.rounds, {"pixels alone": alone, "pairdistill pack": packed})
            rows += report.lines(part, found, "pixels alone", "")
    return rows


def main() -> None:
    """Runs both, prints the table, and writes CSV and plot where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cores = usable_cores()
    for name, default, what in (
        ("pairs", 8192, "pairs of the pack"),
        ("photographs", 3000, "photographs that are packed"),
        ("batch", 128, "pairs of a batch"),
        ("workers", cores, "threads or processes of every way"),
        ("rounds", 5, "times that every way is measured"),
        ("seconds", 3, "that each loader is measured in a round"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{what} ({default})")
    parser.add_argument("--out", type=Path, help="folder for data.csv and data.png")
    parser.add_argument("--scratch", type=Path, help="folder for the packs, on the disk to measure")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=args.scratch) as name:
        rows = [*bench_loading(args, Path(name)), *bench_packing(args, Path(name))]
    settings = {key: getattr(args, key) for key in ("pairs", "photographs", "batch", "workers")}
    where = report.about(**settings, rounds=args.rounds)
    report.show(rows, where)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        report.write_csv(rows, where, args.out / "data.csv")
        report.draw(rows, where, args.out / "data.png")


if __name__ == "__main__":
    sys.exit(main())
