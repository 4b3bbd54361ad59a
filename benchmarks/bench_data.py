"""Packing and loading, against what their parts could reach at most: one run, ways in turn.

    python benchmarks/bench_data.py [--pairs 2000] [--batch 128] [--workers 2] [--rounds 5]

Every round measures every way once, one after the other, so that what else the machine does meets
all of them alike; the median of the rounds counts, and ratios are medians of the rounds' ratios.

Loading, in pairs a second. All but the decoders read the same pack in the same order, check nothing
less than they need, and change images the same way:

- `decoder`: libjpeg-turbo alone, called from compiled code on as many threads; no file, no check;
- `simplejpeg`: the same library through its Python binding, on as many threads;
- `pairdistill`, `pairdistill, block`: the loader, both orders;
- `torch DataLoader`: persistent processes, simplejpeg, our compiled changes;
- `webdataset`: the same work on a tar file of the pairs (left out, and said so, if not installed);
- `python`: the slow reference.

Packing, in photographs a second: `pack` from photographs with landmarks to a whole pack, and the
pixel work alone: decode, warp, second image, encode, in as many processes, its results thrown away.
"""

# over 300 lines: what is compared stands beside what it is compared with.

from __future__ import annotations

import argparse
import csv
import datetime
import io
import os
import platform
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
import torch
from torch.utils.data import DataLoader, Dataset

from distill.config.tree import DataConfig
from distill.data import decoder, kernels
from distill.data.augment import Amplitudes, changes
from distill.data.ffcv_import import import_ffcv
from distill.data.keyed import keyed_rng
from distill.data.loader import make_train_loader
from distill.data.manifest import Pack
from distill.data.order import permuted
from distill.data.pack import PackOptions, pack
from distill.data.pack.work import prepare
from distill.data.pack.workers import Team, team
from distill.data.pack_writer import EncodedPair, write_pack
from distill.data.second import combine
from distill.data.sources import Sample

SETTINGS = DataConfig()
AMPLITUDES = Amplitudes.from_config(SETTINGS)
PHOTO_SIDE = 250
KINDS = {"blur": 1.0}


class Line(NamedTuple):
    """A row of the table: what, how fast, and over what it is compared with."""

    part: str
    way: str
    per_second: float
    of_limit: float
    of_torch: float


def drawn(rng: np.random.Generator, side: int, quality: int) -> bytes:
    """Noise with the spectrum of a photograph."""
    small = rng.integers(0, 256, (14, 14, 3), dtype=np.uint8)
    image = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)
    return simplejpeg.encode_jpeg(image, quality=quality, colorsubsampling="444")


def synthetic_pairs(count: int) -> Iterator[EncodedPair]:
    """About 9 kB an image."""
    rng = np.random.default_rng(0)
    for i in range(count):
        yield EncodedPair(drawn(rng, 112, 95), drawn(rng, 112, 95), i % 100, 0)


# loading


class SimpleDataset(Dataset):  # type: ignore[type-arg]
    """What a user would write for torch's loader, at its best."""

    def __init__(self, made: Pack) -> None:
        (self._shard,) = made.index.shards
        self._regions = np.stack([self._shard.pointers, self._shard.sizes], axis=2)
        self._numbers = [np.array(self._shard.samples[n]) for n in ("label", "kind")]
        self._file: np.memmap | None = None  # type: ignore[type-arg]

    def __len__(self) -> int:
        return len(self._regions)

    def __getitem__(self, sample: int) -> tuple[np.ndarray, np.ndarray, int, int]:
        if self._file is None:
            cv2.setNumThreads(0)
            self._file = np.memmap(self._shard.path, np.uint8, mode="r")
        jpegs = [self._file[start : start + size] for start, size in self._regions[sample]]
        label, kind = (int(column[sample]) for column in self._numbers)
        return *changed(sample, *jpegs), label, kind


def changed(sample: int, *jpegs: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Both images of a pair, decoded and changed."""
    change = np.stack(changes(0, 0, np.array([sample]), AMPLITUDES), axis=-1)[0]
    first, second = np.empty((2, 3, 112, 112), np.uint8)
    for which, out in enumerate((first, second)):
        kernels.place(simplejpeg.decode_jpeg(jpegs[which], fastdct=True), change[which], out)
    return first, second


def torch_batches(made: Pack, batch: int, workers: int) -> Iterator[object]:
    """Batches for ever."""
    dataset = SimpleDataset(made)
    order = permuted(np.arange(len(dataset)), len(dataset), 0).tolist()
    loader = DataLoader(
        dataset,
        batch,
        sampler=order,
        num_workers=workers,
        persistent_workers=True,
        prefetch_factor=2,
        drop_last=True,
    )
    while True:
        yield from loader


def write_tar(pairs: Iterator[EncodedPair], path: Path) -> None:
    """The pairs as webdataset wants them."""
    with tarfile.open(path, "w") as tar:
        for i, pair in enumerate(pairs):
            numbers = f"{i} {pair.label} {pair.kind}".encode()
            for ending, data in (("a.jpg", pair.first), ("b.jpg", pair.second), ("txt", numbers)):
                entry = tarfile.TarInfo(f"{i:08d}.{ending}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))


def from_tar(sample: dict[str, bytes]) -> tuple[np.ndarray, np.ndarray, int, int]:
    number, label, kind = map(int, sample["txt"].split())
    return *changed(number, sample["a.jpg"], sample["b.jpg"]), label, kind


def webdataset_batches(tar: Path, batch: int, workers: int) -> Iterator[object]:
    """Batches for ever; every worker reads its own copy of the list of files."""
    import webdataset

    dataset = (
        webdataset.WebDataset([str(tar)] * workers, shardshuffle=False)
        .shuffle(1000)
        .map(from_tar)
        .batched(batch, partial=False)
    )
    loader = webdataset.WebLoader(
        dataset, batch_size=None, num_workers=workers, persistent_workers=True
    )
    while True:
        yield from loader


def our_batches(
    made: Pack, batch: int, workers: int, reader: str, shuffle: str
) -> Iterator[object]:
    """Batches for ever."""
    update = {"reader": reader, "workers": workers, "shuffle": shuffle}
    data = SETTINGS.model_copy(update=update)
    ranks = SimpleNamespace(rank=0, world_size=1)
    with make_train_loader(made, data, seed=0, ranks=ranks, batch_pairs_per_rank=batch) as loader:
        yield from loader


def decoded_parts(
    jpegs: list[np.ndarray], batch: int, workers: int, decode: Callable[..., None]
) -> Iterator[object]:
    """Decoded by so many threads, and thrown away."""
    with ThreadPoolExecutor(workers) as pool:
        while True:
            for start in range(0, len(jpegs) - 2 * batch + 1, 2 * batch):
                part = jpegs[start : start + 2 * batch]
                list(pool.map(decode, (part[i::workers] for i in range(workers)), range(workers)))
                yield None


def with_simplejpeg(jpegs: list[np.ndarray], _thread: int) -> None:
    for jpeg in jpegs:
        simplejpeg.decode_jpeg(jpeg, fastdct=True)


class CompiledDecoder:
    """libjpeg-turbo from compiled code: the most that these threads can do."""

    def __init__(self, workers: int) -> None:
        import_ffcv()
        from ffcv.libffcv import lib

        self._jpeg = decoder.TurboJpeg(lib, workers)
        self([np.zeros(1, np.uint8)], 0)  # compiled before several threads call it

    def __call__(self, jpegs: list[np.ndarray], thread: int) -> None:
        sizes = np.array([len(jpeg) for jpeg in jpegs])
        decoder.decode_all(
            np.concatenate(jpegs), np.cumsum(sizes) - sizes, sizes, self._jpeg.handles[thread]
        )


def loading_ways(
    made: Pack, tar: Path, batch: int, workers: int
) -> dict[str, Callable[[], Iterator[object]]]:
    jpegs = [
        np.frombuffer(jpeg, np.uint8)
        for pair in synthetic_pairs(made.manifest.pairs)
        for jpeg in pair[:2]
    ]
    ways: dict[str, Callable[[], Iterator[object]]] = {
        "decoder": partial(decoded_parts, jpegs, batch, workers, CompiledDecoder(workers)),
        "simplejpeg": partial(decoded_parts, jpegs, batch, workers, with_simplejpeg),
        "pairdistill": partial(our_batches, made, batch, workers, "ffcv", "full"),
        "pairdistill, block": partial(our_batches, made, batch, workers, "ffcv", "block"),
        "torch DataLoader": partial(torch_batches, made, batch, workers),
        "python": partial(our_batches, made, batch, workers, "python", "full"),
    }
    try:
        version("webdataset")
        ways["webdataset"] = partial(webdataset_batches, tar, batch, workers)
    except PackageNotFoundError:
        print("webdataset: NOT MEASURED, not installed (pip install -c constraints.txt webdataset)")
    return ways


def pairs_per_second(stream: Iterator[object], batches: int, batch: int) -> float:
    began = time.perf_counter()
    for _ in range(batches):
        next(stream)
    return batches * batch / (time.perf_counter() - began)


def one_way(way: Callable[[], Iterator[object]], batches: int, batch: int) -> float:
    """Opened, warmed up, measured, closed: nothing of it runs beside the next."""
    stream = way()
    pairs_per_second(stream, 4, batch)
    found = pairs_per_second(stream, batches, batch)
    stream.close()  # type: ignore[attr-defined]
    return found


# packing


class Photographs:
    """Photographs of 250x250 with landmarks, in memory."""

    name = "synthetic"

    def __init__(self, count: int) -> None:
        rng = np.random.default_rng(1)
        self._jpegs = [drawn(rng, PHOTO_SIDE, 90) + i.to_bytes(4, "big") for i in range(count)]
        self.expected = count

    def __iter__(self) -> Iterator[Sample]:
        points = ((90.0, 110.0), (155.0, 108.0), (122.0, 145.0), (97.0, 180.0), (150.0, 179.0))
        for i, jpeg in enumerate(self._jpegs):
            yield Sample(f"{i % 100}/{i}.jpg", str(i % 100), partial(bytes, jpeg), points)


def pixels_alone(sample: Sample) -> int:
    """Decode, warp, second image, encode: what no packer can leave out."""
    face = prepare(sample, "source").face
    assert face is not None
    options = PackOptions(kinds=KINDS)
    rng = partial(keyed_rng, 0, sample.origin)
    second, _ = combine(("blur",), face, rng, other=None, options=options.second_options())
    jpegs = [
        simplejpeg.encode_jpeg(np.ascontiguousarray(rgb), quality=95, colorsubsampling="444")
        for rgb in (face.rgb, second)
    ]
    return sum(map(len, jpegs))


def pixels_per_second(source: Photographs, workers: Team) -> float:
    began = time.perf_counter()
    done = sum(1 for _ in workers.do(pixels_alone, source, name=lambda s: s.origin))
    return done / (time.perf_counter() - began)


def packing_seconds(source: Photographs, workers: int) -> float:
    with tempfile.TemporaryDirectory() as name:
        options = PackOptions(kinds=KINDS, landmarks="source", workers=workers)
        began = time.perf_counter()
        pack(source, Path(name) / "pack", options)
        return time.perf_counter() - began


def packed_per_second(few: Photographs, many: Photographs, workers: int) -> float:
    """What a photograph more costs: the start of the processes is the same for any number."""
    seconds = packing_seconds(many, workers) - packing_seconds(few, workers)
    return (many.expected - few.expected) / seconds


# the run


def measured(
    rounds: int, ways: dict[str, Callable[[], float]]
) -> tuple[dict[str, list[float]], list[str]]:
    """What each way reached in each round; every round begins with another way."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            found[name].append(ways[name]())
    return found, names


def lines(part: str, found: dict[str, list[float]], limit: str, torch_way: str) -> list[Line]:
    """The medians, and the medians of the ratios."""

    def ratio(name: str, to: str) -> float:
        if to not in found:
            return float("nan")
        return statistics.median(a / b for a, b in zip(found[name], found[to], strict=True))

    return [
        Line(part, n, statistics.median(v), ratio(n, limit), ratio(n, torch_way))
        for n, v in found.items()
    ]


def loading(args: argparse.Namespace, folder: Path) -> list[Line]:
    made = write_pack(
        folder / "pack",
        synthetic_pairs(args.pairs),
        args.pairs,
        identities=[str(i) for i in range(100)],
        kinds=["noise"],
    )
    write_tar(synthetic_pairs(args.pairs), folder / "pairs.tar")
    batches = args.pairs // args.batch
    ways = loading_ways(made, folder / "pairs.tar", args.batch, args.workers)
    turns = {name: partial(one_way, way, batches, args.batch) for name, way in ways.items()}
    found, _ = measured(args.rounds, turns)
    return lines("loading", found, "decoder", "torch DataLoader")


def packing(args: argparse.Namespace) -> list[Line]:
    few, many = Photographs(100), Photographs(100 + 2 * args.pairs)
    with team(args.workers) as workers:
        pixels_per_second(few, workers)
        turns = {
            "pixels alone": lambda: pixels_per_second(many, workers),
            "pairdistill pack": lambda: packed_per_second(few, many, args.workers),
        }
        found, _ = measured(args.rounds, turns)
    return lines("packing", found, "pixels alone", "")


def about(args: argparse.Namespace) -> dict[str, str]:
    """Where and when: columns of every row of the CSV."""
    names = ("pairdistill", "torch", "ffcv", "simplejpeg", "numpy", "numba")
    with Path("/proc/cpuinfo").open() as file:
        model = next((row.split(":")[1].strip() for row in file if "model name" in row), "?")
    return {
        "date": datetime.date.today().isoformat(),
        "device": f"{model}, {len(os.sched_getaffinity(0))} cores",
        "workers": str(args.workers),
        "batch": str(args.batch),
        "pairs": str(args.pairs),
        "rounds": str(args.rounds),
        "load": f"{os.getloadavg()[1]:.1f}",
        "versions": " ".join([f"python {platform.python_version()}", *_versions(names)]),
    }


def _versions(names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            yield f"{name} ?"


def write_csv(rows: list[Line], where: dict[str, str], path: Path) -> None:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow([*Line._fields, *where])
        for row in rows:
            numbers = (f"{row.per_second:.0f}", f"{row.of_limit:.3f}", f"{row.of_torch:.3f}")
            table.writerow([row.part, row.way, *numbers, *where.values()])


def draw(rows: list[Line], where: dict[str, str], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 3.6), width_ratios=(2, 1))
    for axis, part, unit in zip(
        axes, ("loading", "packing"), ("pairs a second", "photographs a second"), strict=True
    ):
        own = [row for row in rows if row.part == part]
        colours = ["#2a6fbb" if "pairdistill" in row.way else "#b8bec6" for row in own]
        bars = axis.barh([row.way for row in own], [row.per_second for row in own], color=colours)
        axis.bar_label(bars, [f"{row.of_limit:.2f}" for row in own], padding=3)
        axis.set(title=f"{part} (label: share of the limit)", xlabel=unit)
        axis.margins(x=0.15)
        axis.invert_yaxis()
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{where['device']}, {where['workers']} workers, {where['date']}", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("pairs", 2000), ("batch", 128), ("workers", 2), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path, help="folder for data.csv and data.png")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        rows = [*loading(args, Path(name)), *packing(args)]
    where = about(args)
    print(", ".join(f"{key} {value}" for key, value in where.items()))
    print(f"{'':28}{'per second':>12}{'x limit':>10}{'x torch':>10}")
    for row in rows:
        shown = f"{row.per_second:12.0f}{row.of_limit:10.2f}{row.of_torch:10.2f}"
        print(f"{row.part + ': ' + row.way:28}{shown}")
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        write_csv(rows, where, args.out / "data.csv")
        draw(rows, where, args.out / "data.png")


if __name__ == "__main__":
    sys.exit(main())
