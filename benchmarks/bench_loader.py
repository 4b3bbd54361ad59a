"""Pairs a second of every way to read a pack, in one run.

    python benchmarks/bench_loader.py [--pairs 2000] [--batch 128] [--workers 2] [--rounds 3]

FFCV, plain Python and a tuned torch DataLoader read the same synthetic pack in the same order and
change images the same way. The torch DataLoader has persistent processes, simplejpeg and our
compiled changes, so it does the same work as fast as it can. `decoder` is simplejpeg alone, on as
many threads: no check, no change, no batch. Ways run one after the other, since what one reads
ahead would slow the next; the median of the rounds counts. Columns: pairs a second, and the ratios
to the torch DataLoader and to the decoder.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import simplejpeg
import torch
from torch.utils.data import DataLoader, Dataset

from distill.config.tree import DataConfig
from distill.data import kernels
from distill.data.augment import Amplitudes, changes
from distill.data.loader import make_train_loader
from distill.data.manifest import Pack
from distill.data.order import permutation
from distill.data.pack_writer import EncodedPair, write_pack

SETTINGS = DataConfig()
AMPLITUDES = Amplitudes.from_config(SETTINGS)


def synthetic_pairs(count: int) -> Iterator[EncodedPair]:
    """Noise with the spectrum of a photograph, at quality 95: about 9 kB an image."""
    rng = np.random.default_rng(0)
    for i in range(count):
        images = rng.integers(0, 256, (2, 14, 14, 3), dtype=np.uint8)
        first, second = (
            simplejpeg.encode_jpeg(
                cv2.resize(image, (112, 112), interpolation=cv2.INTER_CUBIC),
                quality=95,
                colorsubsampling="444",
            )
            for image in images
        )
        yield EncodedPair(first, second, i % 100, 0)


class SimpleDataset(Dataset):  # type: ignore[type-arg]
    """What a user would write for torch's loader, at its best."""

    def __init__(self, pack: Pack) -> None:
        self._index = pack.index()
        self._file: np.memmap | None = None  # type: ignore[type-arg]

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, sample: int) -> tuple[np.ndarray, np.ndarray, int, int]:
        if self._file is None:
            cv2.setNumThreads(0)
            self._file = np.memmap(self._index.path, np.uint8, mode="r")
        change = changes(0, 0, np.array([sample]), AMPLITUDES)
        images = []
        for which in (0, 1):
            start = int(self._index.pointers[sample, which])
            jpeg = self._file[start : start + int(self._index.sizes[sample, which])]
            rgb = simplejpeg.decode_jpeg(jpeg, fastdct=True)
            out = np.empty((3, 112, 112), np.uint8)
            kernels.place(rgb, *(int(field[0, which]) for field in change), out)
            images.append(out)
        row = self._index.samples[sample]
        return images[0], images[1], int(row["label"]), int(row["kind"])


def torch_batches(pack: Pack, batch: int, workers: int) -> Iterator[object]:
    """Batches for ever."""
    dataset = SimpleDataset(pack)
    order = permutation(0, 0, len(dataset)).tolist()
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


def our_batches(pack: Pack, batch: int, workers: int, reader: str) -> Iterator[object]:
    """Batches for ever."""
    data = SETTINGS.model_copy(update={"reader": reader, "workers": workers})
    ranks = SimpleNamespace(rank=0, world_size=1)
    with make_train_loader(pack, data, seed=0, ranks=ranks, batch_pairs_per_rank=batch) as loader:
        yield from loader


def decoder_batches(pack: Pack, batch: int, workers: int) -> Iterator[object]:
    """Decoded and thrown away."""
    index = pack.index()
    file = np.memmap(index.path, np.uint8, mode="r")
    regions = np.stack([index.pointers, index.sizes], axis=2).reshape(-1, 2)

    def decode(rows: np.ndarray) -> None:
        for start, size in rows:
            simplejpeg.decode_jpeg(file[start : start + size], fastdct=True)

    with ThreadPoolExecutor(workers) as pool:
        while True:
            for start in range(0, len(regions) - 2 * batch + 1, 2 * batch):
                parts = np.array_split(regions[start : start + 2 * batch], workers)
                list(pool.map(decode, parts))
                yield None


def pairs_per_second(stream: Iterator[object], batches: int, batch: int) -> float:
    began = time.perf_counter()
    for _ in range(batches):
        next(stream)
    return batches * batch / (time.perf_counter() - began)


def measured(pack: Pack, batch: int, workers: int, rounds: int) -> dict[str, float]:
    """The median over rounds of each way, all of them warm."""
    ways: dict[str, Callable[[], Iterator[object]]] = {
        "decoder": lambda: decoder_batches(pack, batch, workers),
        "ffcv": lambda: our_batches(pack, batch, workers, "ffcv"),
        "torch DataLoader": lambda: torch_batches(pack, batch, workers),
        "python": lambda: our_batches(pack, batch, workers, "python"),
    }
    found: dict[str, float] = {}
    batches = pack.manifest.pairs // batch
    for name, way in ways.items():
        stream = way()
        pairs_per_second(stream, 2, batch)
        found[name] = statistics.median(
            pairs_per_second(stream, batches, batch) for _ in range(rounds)
        )
        stream.close()  # type: ignore[attr-defined]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("pairs", 2000), ("batch", 128), ("workers", 2), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        pack = write_pack(
            Path(folder) / "pack",
            synthetic_pairs(args.pairs),
            args.pairs,
            identities=[str(i) for i in range(100)],
            kinds=["noise"],
        )
        found = measured(pack, args.batch, args.workers, args.rounds)
    cores, python = len(os.sched_getaffinity(0)), sys.version.split()[0]
    print(f"{cores} cores, {args.workers} workers, batch {args.batch}, Python {python}")
    print(f"{'':18}{'pairs/s':>10}{'x torch':>10}{'x decoder':>10}")
    for name, speed in found.items():
        ratios = speed / found["torch DataLoader"], speed / found["decoder"]
        print(f"{name:18}{speed:10.0f}{ratios[0]:10.2f}{ratios[1]:10.2f}")


if __name__ == "__main__":
    main()
