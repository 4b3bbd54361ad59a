"""First images alone: those of the pairs, in their order, and not a byte of the second ones."""

import os
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from single_packs import encoded

from distill.config.tree import DataConfig
from distill.data import python_reader
from distill.data.batch import OrderState
from distill.data.loader import make_eval_loader, make_photograph_loader, make_train_loader
from distill.data.online_rows import OnlineRows
from distill.data.pack_writer import EncodedPair, write_pack
from distill.data.training_set import TrainingSet
from distill.errors import UserError

BEGINNING = OrderState(0, 0)
SHARED = ("first", "labels", "sample_ids")
IMAGE = 3 * 112 * 112
HUGE, FEW = 1 << 20, 12
BLOCKS = {"shuffle": "block", "block_pairs": 5, "window_blocks": 2}


def taken(count, pack, images, rank=0, world=1, state=BEGINNING, batch=12, **settings):
    """Batches of one rank, of as many images a pair as ``images`` says, and the places after."""
    data = DataConfig(**{"workers": 2, **settings})
    ranks = SimpleNamespace(rank=rank, world_size=world)
    with make_train_loader(
        pack,
        data,
        seed=5,
        ranks=ranks,
        batch_pairs_per_rank=batch // world,
        state=state,
        images_per_pair=images,
    ) as loader:
        return list(islice(loader, count))


@pytest.fixture(scope="module")
def several(make_pack, tmp_path_factory):
    """Two packs as one, whose people and kinds have other numbers than in their own."""
    folder = tmp_path_factory.mktemp("packs")
    packs = [make_pack(folder / "a"), make_pack(folder / "b", count=31)]
    return TrainingSet.of(packs, "different_people")


@pytest.fixture(scope="module")
def blind(tmp_path_factory):
    """First images of 3 KB, and second ones of a MB that no decoder takes."""
    pairs = [EncodedPair(encoded(i), os.urandom(HUGE), 0, 0) for i in range(FEW)]
    folder = tmp_path_factory.mktemp("packs") / "blind"
    return write_pack(folder, pairs, FEW, identities=["ann"], kinds=["blur"])


@pytest.mark.parametrize("reader", ["ffcv", "python"])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("small_pack", {}),
        ("sharded", BLOCKS),
        ("several", {}),
        ("online", {"second": "online"}),
        ("online", {"second": "online", **BLOCKS}),
    ],
)
def test_they_are_those_of_the_pairs_also_resumed_on_other_ranks(request, name, settings, reader):
    """From the start and from a place in the middle; several epochs with their own changes."""
    pack = request.getfixturevalue(name)
    whole = taken(9, pack, 2, reader=reader, **settings)
    assert whole[-1][1].epoch > 0
    for begun, world in ((0, 1), (4, 1), (4, 2), (2, 3)):
        state = whole[begun - 1][1] if begun else BEGINNING
        shares = [
            taken(9 - begun, pack, 1, rank, world, state, reader=reader, **settings)
            for rank in range(world)
        ]
        for (pairs, after), *parts in zip(whole[begun:], *shares, strict=True):
            assert {place for _, place in parts} == {after}
            assert all(part.second is None for part, _ in parts)
            for field in SHARED:
                together = torch.stack([getattr(p, field) for p, _ in parts], dim=1).flatten(0, 1)
                assert torch.equal(together, getattr(pairs, field)), field


def test_both_readers_give_the_same_kinds(small_pack, online):
    for pack, settings in ((small_pack, {}), (online, {"second": "online"})):
        fast, slow = (taken(5, pack, 1, reader=name, **settings) for name in ("ffcv", "python"))
        for (a, _), (b, _) in zip(fast, slow, strict=True):
            assert torch.equal(a.kinds, b.kinds)


def bytes_read():
    """By this process since it began, from files or from what the system keeps of them."""
    line = Path("/proc/self/io").read_text().splitlines()[0]
    return int(line.removeprefix("rchar: "))


@pytest.mark.parametrize("reader", ["ffcv", "python"])
@pytest.mark.parametrize("shuffle", ["full", "block"])
def test_no_byte_of_a_second_image_is_read(blind, reader, shuffle):
    settings = {"reader": reader, "shuffle": shuffle}
    taken(1, blind, 1, **settings)  # what is compiled is in memory
    before = bytes_read()
    found = taken(3, blind, 1, **settings)
    assert bytes_read() - before < HUGE
    assert sorted(found[0][0].sample_ids.tolist()) == list(range(FEW))
    before = bytes_read()
    with pytest.raises(
        UserError, match=r"second image of pair \d+ is corrupt: it is not a readable JPEG"
    ):
        taken(1, blind, 2, **settings)
    assert bytes_read() - before > HUGE


def test_half_of_the_images_are_decoded(small_pack, monkeypatch):
    calls, real = [], python_reader.simplejpeg.decode_jpeg
    counting = SimpleNamespace(
        decode_jpeg=lambda *args, **kwargs: calls.append(1) or real(*args, **kwargs),
        decode_jpeg_header=python_reader.simplejpeg.decode_jpeg_header,
    )
    monkeypatch.setattr(python_reader, "simplejpeg", counting)
    counts = []
    for images in (1, 2):
        taken(2, small_pack, images, reader="python")
        counts.append(len(calls))
        calls.clear()
    assert counts == [24, 48]


@pytest.mark.parametrize("reader", ["ffcv", "python"])
def test_nothing_is_made_online(online, reader, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(OnlineRows, "of", fail)
    settings = {"reader": reader, "second": "online"}
    assert len(taken(2, online, 1, **settings)) == 2
    with pytest.raises(ZeroDivisionError, match="planted"):
        taken(2, online, 2, **settings)


@pytest.mark.parametrize("reader", ["ffcv", "python"])
def test_a_batch_holds_and_moves_half_of_the_bytes(small_pack, reader):
    ((alone, _),), ((pairs, _),) = (taken(1, small_pack, n, reader=reader) for n in (1, 2))
    for batch, images in ((alone, 1), (pairs, 2)):
        for held in (batch, batch.to(torch.device("cpu"))):
            stored = {t.untyped_storage().data_ptr(): t for t in held.tensors}.values()
            pixels = [t.untyped_storage().nbytes() for t in stored if t.dtype == torch.uint8]
            assert sum(pixels) == 12 * images * IMAGE
    with pytest.raises(AssertionError, match="only first images"):
        _ = alone.both


@pytest.mark.parametrize("reader", ["ffcv", "python"])
def test_a_damaged_first_image_is_named(make_pack, tmp_path, reader):
    pack = make_pack(tmp_path / "damaged")
    (shard,) = pack.index.shards
    with shard.path.open("r+b") as file:
        for which in (1, 0):
            file.seek(int(shard.pointers[23 + which, which]) + 30)
            file.write(b"\x5a\xa5\x5a")  # of pair 24 the second image, which nobody asks for
    with pytest.raises(UserError, match="first image of pair 23 is corrupt: its bytes are not"):
        taken(5, pack, 1, reader=reader)


def test_a_pack_that_does_not_fit_the_setting_is_refused_as_ever(online, small_pack):
    with pytest.raises(UserError, match="has no second images"):
        taken(1, online, 1)
    with pytest.raises(UserError, match="has second images"):
        taken(1, small_pack, 1, second="online")


def test_evaluation_has_both(small_pack):
    batches = make_eval_loader(small_pack, DataConfig(), rank=0, world_size=1, batch_pairs=20)
    assert all(len(side) == len(batch) for batch in batches for side in batch.both)


def test_photographs_come_once_each_over_all_ranks(small_pack, online, make_pack, tmp_path):
    """Of a pack with two pairs a photograph: the first of each two."""
    twofold = make_pack(tmp_path / "twofold", count=52, photographs=26)
    for opened, step in ((small_pack, 1), (online, 1), (twofold, 2)):
        batches = [
            batch
            for rank in range(3)
            for batch in make_photograph_loader(
                opened, DataConfig(), rank=rank, world_size=3, batch_images=4
            )
        ]
        ids = torch.cat([batch.sample_ids for batch in batches])
        assert ids.tolist() == list(range(0, opened.manifest.pairs, step))
        assert all(batch.second is None for batch in batches)
