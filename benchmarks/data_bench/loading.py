"""Batches of pairs: our loader, and the decoders that bound it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import numpy as np
import simplejpeg

from data_bench import images
from distill.config.tree import DataConfig
from distill.data import decoder
from distill.data.ffcv_import import import_ffcv
from distill.data.loader import make_train_loader
from distill.data.manifest import Pack

Way = Callable[[], Iterator[object]]
_DECODED = 1000
"""Pairs that the decoders are given, over and over."""


def our_batches(
    made: Pack, batch: int, reader: str, images_per_pair: int = 2, **settings: object
) -> Iterator[object]:
    """Batches for ever."""
    data = DataConfig().model_copy(update={"reader": reader, **settings})
    ranks = SimpleNamespace(rank=0, world_size=1)
    with make_train_loader(
        made,
        data,
        seed=0,
        ranks=ranks,
        batch_pairs_per_rank=batch,
        images_per_pair=images_per_pair,
    ) as loader:
        yield from loader


def our_ways(made: Pack, batch: int, workers: int) -> dict[str, Way]:
    """Both orders, first images alone, and the slow reference.

    Blocks are small enough for windows to come and go.
    """
    blocks = {"shuffle": "block", "block_pairs": 64, "window_blocks": made.manifest.pairs // 512}
    return {
        "pairdistill": partial(our_batches, made, batch, "ffcv", workers=workers),
        "pairdistill, block": partial(our_batches, made, batch, "ffcv", workers=workers, **blocks),
        "pairdistill, first images": partial(our_batches, made, batch, "ffcv", 1, workers=workers),
        "python": partial(our_batches, made, batch, "python"),
    }


class Jpegs:
    """Images in memory, one behind the other."""

    def __init__(self, count: int) -> None:
        self.each = [jpeg for pair in images.pairs(count) for jpeg in pair[:2]]
        self.data = np.frombuffer(b"".join(self.each), np.uint8)
        self.sizes = np.array([len(jpeg) for jpeg in self.each])
        self.starts = np.cumsum(self.sizes) - self.sizes


def decoded(jpegs: Jpegs, pairs: int, decoders: list[Callable[[slice], None]]) -> Iterator[object]:
    """Decoded for ever and thrown away, ``pairs`` at a time, the same number by each thread."""
    workers, per_thread = len(decoders), 2 * pairs // len(decoders)
    with ThreadPoolExecutor(workers) as pool:
        while True:
            for start in range(0, len(jpegs.each) - workers * per_thread + 1, workers * per_thread):
                starts = range(start, start + workers * per_thread, per_thread)
                parts = [slice(first, first + per_thread) for first in starts]
                list(pool.map(lambda decode, part: decode(part), decoders, parts))
                yield None


def decoder_ways(batch: int, workers: int) -> dict[str, Way]:
    """libjpeg-turbo as FFCV has it, from compiled code; and as simplejpeg has it."""
    jpegs = Jpegs(_DECODED)
    import_ffcv()
    from ffcv.libffcv import lib

    library = decoder.TurboJpeg(lib, workers)

    def compiled(handle: np.ndarray, part: slice) -> None:
        decoder.decode_all(jpegs.data, jpegs.starts[part], jpegs.sizes[part], handle)

    def by_simplejpeg(part: slice) -> None:
        for jpeg in jpegs.each[part]:
            simplejpeg.decode_jpeg(jpeg, fastdct=True)

    threads = [partial(compiled, handle) for handle in library.handles]
    threads[0](slice(0, 1))  # compiled before several threads call it
    return {
        "decoder": partial(decoded, jpegs, batch, threads),
        "simplejpeg": partial(decoded, jpegs, batch, [by_simplejpeg] * workers),
    }
