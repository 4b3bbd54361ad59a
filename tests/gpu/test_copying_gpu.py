"""Batches copied ahead on a stream of their own: the right pixels, whatever the step does."""

from itertools import islice
from types import SimpleNamespace

import pytest
import torch

from distill.config.tree import DataConfig
from distill.data.batch import OrderState, PairBatch
from distill.data.copying import on_device

pytestmark = pytest.mark.gpu


def numbered(count, pairs):
    for i in range(count):
        images = torch.full((64, 3, 112, 112), i, dtype=torch.uint8).pin_memory()
        ids = torch.arange(64).pin_memory()
        yield PairBatch(images, images if pairs else None, ids, ids, ids), OrderState(0, i)


@pytest.mark.parametrize("pairs", [True, False])
def test_every_batch_is_what_it_was_on_the_host(pairs):
    device, ends = torch.device("cuda"), []
    heavy = torch.randn(4096, 4096, device=device)
    for number, (batch, place) in enumerate(on_device(numbered(40, pairs), device)):
        heavy = (heavy @ heavy).clamp(-1, 1)  # the step is still at work when the next copy begins
        assert place == OrderState(0, number)
        assert (batch.second is not None) == pairs
        ends.append(torch.stack([batch.first.amin(), batch.first.amax()]))
    assert torch.stack(ends).tolist() == [[number, number] for number in range(40)]


def test_the_reader_hands_out_page_locked_memory(tmp_path):
    import simplejpeg

    from distill.data.loader import make_train_loader
    from distill.data.pack_writer import EncodedPair, write_pack

    grey = torch.zeros((112, 112, 3), dtype=torch.uint8).numpy()
    jpeg = simplejpeg.encode_jpeg(grey, colorsubsampling="444")
    pairs = [EncodedPair(jpeg, jpeg, 0, 0)] * 16
    pack = write_pack(tmp_path / "pack", pairs, 16, identities=["a"], kinds=["blur"])
    ranks = SimpleNamespace(rank=0, world_size=1)
    for images in (1, 2):
        with make_train_loader(
            pack,
            DataConfig(),
            seed=0,
            ranks=ranks,
            batch_pairs_per_rank=8,
            images_per_pair=images,
        ) as loader:
            for batch, _ in islice(loader, 3):
                assert batch.first.is_pinned()
                assert batch.both[1].is_pinned() if images == 2 else batch.second is None
