"""Loaders of small packs, for the tests of this room."""

import threading
from types import SimpleNamespace

from distill.config.tree import DataConfig
from distill.data.batch import OrderState
from distill.data.loader import make_train_loader

ONE_RANK = SimpleNamespace(rank=0, world_size=1)
BEGINNING = OrderState(0, 0)


def train_loader(pack, reader="ffcv", ranks=ONE_RANK, batch=8, state=BEGINNING, **settings):
    data = DataConfig(reader=reader, workers=2, **settings)
    return make_train_loader(
        pack, data, seed=5, ranks=ranks, batch_pairs_per_rank=batch, state=state
    )


def decoding_threads():
    names = [t.name for t in threading.enumerate()]
    return [n for n in names if n.startswith(("pairdistill", "EpochIterator", "Thread-"))]
