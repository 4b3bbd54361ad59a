"""The same batches from other loaders, at their best: the same files, checks left out, our changes.

Their images are decoded by simplejpeg and changed by the compiled code that our loader uses.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
import torch
from torch.utils.data import DataLoader, Dataset

from data_bench import images
from data_bench.loading import Way
from distill.config.tree import DataConfig
from distill.data import kernels
from distill.data.augment import Amplitudes, apply, changes
from distill.data.manifest import Pack
from distill.data.order import permuted

AMPLITUDES = Amplitudes.from_config(DataConfig())
Pixels = np.ndarray


class SimpleDataset(Dataset):  # type: ignore[type-arg]
    """What a user would write for torch's loader."""

    def __init__(self, made: Pack) -> None:
        (self._shard,) = made.index.shards
        self._regions = np.stack([self._shard.pointers, self._shard.sizes], axis=2)
        self._numbers = [np.array(self._shard.samples[n]) for n in ("label", "kind")]
        self._file: np.memmap | None = None  # type: ignore[type-arg]

    def __len__(self) -> int:
        return len(self._regions)

    def jpegs(self, sample: int) -> list[np.ndarray]:
        """Both images of a pair, as they are in the file."""
        if self._file is None:
            cv2.setNumThreads(0)
            self._file = np.memmap(self._shard.path, np.uint8, mode="r")
        return [self._file[start : start + size] for start, size in self._regions[sample]]

    def __getitem__(self, sample: int) -> tuple[Pixels, Pixels, int, int]:
        label, kind = (int(column[sample]) for column in self._numbers)
        return *changed(sample, *self.jpegs(sample)), label, kind


class NumpyDataset(SimpleDataset):
    """The same without any compiled code of ours: changes in plain numpy."""

    def __getitem__(self, sample: int) -> tuple[Pixels, Pixels, int, int]:
        change = changes(0, 0, np.array([sample]), AMPLITUDES)
        first, second = (
            apply(simplejpeg.decode_jpeg(jpeg, fastdct=True), change, 0, which)
            for which, jpeg in enumerate(self.jpegs(sample))
        )
        label, kind = (int(column[sample]) for column in self._numbers)
        return first, second, label, kind


class BatchDataset(SimpleDataset):
    """The same a batch at a time, decoded to where the batch is: changes are drawn once a batch,
    and nothing is put together afterwards.
    """

    def __getitems__(self, samples: list[int]) -> list[torch.Tensor]:
        ids = np.array(samples)
        change = np.stack(changes(0, 0, ids, AMPLITUDES), axis=-1)
        both = np.empty((2, len(ids), 3, 112, 112), np.uint8)
        for row, sample in enumerate(samples):
            for which, jpeg in enumerate(self.jpegs(sample)):
                rgb = simplejpeg.decode_jpeg(jpeg, fastdct=True)
                kernels.place(rgb, change[row, which], both[which, row])
        return [torch.from_numpy(a) for a in (*both, *(column[ids] for column in self._numbers))]


def changed(sample: int, *jpegs: bytes | np.ndarray) -> tuple[Pixels, Pixels]:
    """Both images of a pair, decoded and changed."""
    change = np.stack(changes(0, 0, np.array([sample]), AMPLITUDES), axis=-1)[0]
    first, second = np.empty((2, 3, 112, 112), np.uint8)
    for which, out in enumerate((first, second)):
        kernels.place(simplejpeg.decode_jpeg(jpegs[which], fastdct=True), change[which], out)
    return first, second


def as_it_is(batch: list[torch.Tensor]) -> list[torch.Tensor]:
    """A batch that needs no putting together."""
    return batch


def torch_batches(
    dataset: SimpleDataset, batch: int, workers: int, **how: object
) -> Iterator[object]:
    """Batches for ever, from processes that stay."""
    order = permuted(np.arange(len(dataset)), len(dataset), 0).tolist()
    loader = DataLoader(
        dataset,
        batch,
        sampler=order,
        num_workers=workers,
        persistent_workers=True,
        prefetch_factor=2,
        drop_last=True,
        **how,
    )
    while True:
        yield from loader


def write_tar(count: int, path: Path) -> None:
    """The pairs as webdataset wants them."""
    with tarfile.open(path, "w") as tar:
        for i, pair in enumerate(images.pairs(count)):
            numbers = f"{i} {pair.label} {pair.kind}".encode()
            for ending, data in (("a.jpg", pair.first), ("b.jpg", pair.second), ("txt", numbers)):
                entry = tarfile.TarInfo(f"{i:08d}.{ending}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))


def from_tar(sample: dict[str, bytes]) -> tuple[Pixels, Pixels, int, int]:
    """A pair of a tar file."""
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


def other_ways(made: Pack, tar: Path, batch: int, workers: int) -> dict[str, Way]:
    """Loaders of other packages."""
    by_batch = {"collate_fn": as_it_is}
    ways: dict[str, Way] = {
        "torch DataLoader": partial(torch_batches, SimpleDataset(made), batch, workers),
        "torch, plain numpy": partial(torch_batches, NumpyDataset(made), batch, workers),
        "torch, whole batches": partial(
            torch_batches, BatchDataset(made), batch, workers, **by_batch
        ),
    }
    try:
        version("webdataset")
        ways["webdataset"] = partial(webdataset_batches, tar, batch, workers)
    except PackageNotFoundError:
        print("webdataset: NOT MEASURED, not installed (pip install -c constraints.txt webdataset)")
    return ways
