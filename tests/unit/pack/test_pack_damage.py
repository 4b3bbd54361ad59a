"""What loaders do with damage: it is named before its batch is seen, and no thread is left."""

import os
import re
import shutil
from itertools import islice

import numpy as np
import pytest
from pair_loaders import ONE_RANK, decoding_threads, train_loader

from distill.config.tree import DataConfig
from distill.data import decoded_rows, decoder
from distill.data.loader import make_eval_loader, make_train_loader
from distill.data.manifest import read_pack
from distill.data.online_rows import OnlineRows
from distill.data.training_set import TrainingSet
from distill.errors import UserError


@pytest.fixture
def copy(small_pack, tmp_path):
    shutil.copytree(small_pack.path, tmp_path / "copy")
    return read_pack(tmp_path / "copy")


def overwrite(pack, sample, which, replacement, *, fix_checksum=False):
    """Replaces the start of a packed JPEG."""
    (index,) = pack.index.shards
    with index.path.open("r+b") as file:
        file.seek(int(index.pointers[sample, which]))
        file.write(replacement)
    if fix_checksum:
        from distill.data.beton import PAIRS, pair_checksum

        data = bytearray(index.path.read_bytes())
        rows = np.frombuffer(data, PAIRS.row, len(index), PAIRS.metadata_start)
        images = [
            bytes(data[p : p + s])
            for p, s in zip(index.pointers[sample], index.sizes[sample], strict=True)
        ]
        numbers = int(rows["label"][sample]), int(rows["kind"][sample])
        rows["checksum"][sample] = pair_checksum(*images, *numbers)
        index.path.write_bytes(data)


def read_all(pack, reader):
    data = DataConfig(reader=reader, workers=2)
    for batch in make_eval_loader(pack, data, rank=0, world_size=1, batch_pairs=10):
        yield from batch.sample_ids.tolist()


@pytest.mark.parametrize("reader", ["ffcv", "python"])
@pytest.mark.parametrize("which", [0, 1])
def test_altered_bytes_are_named_before_their_batch(copy, reader, which):
    overwrite(copy, 23, which, b"\xff\xd8\xff\xdb\0C\0\x02")
    seen = []
    said = f"{('first', 'second')[which]} image of pair 23 is corrupt: its bytes are not those"
    with pytest.raises(UserError, match=said) as caught:
        for sample in read_all(copy, reader):
            seen.append(sample)
    assert seen == list(range(20))
    assert str(copy.index.shards[0].path) in caught.value.what
    assert decoding_threads() == []


@pytest.mark.parametrize("reader", ["ffcv", "python"])
def test_a_jpeg_that_no_decoder_takes_is_named(copy, reader):
    overwrite(copy, 23, 0, b"not a JPEG at all", fix_checksum=True)
    with pytest.raises(UserError, match="pair 23 is corrupt: it is not a readable JPEG of"):
        list(read_all(copy, reader))


@pytest.mark.parametrize("field", ["label", "kind"])
def test_an_altered_label_is_found_even_within_its_range(copy, field):
    from distill.data.beton import PAIRS

    data = bytearray(copy.index.shards[0].path.read_bytes())
    rows = np.frombuffer(data, PAIRS.row, 53, PAIRS.metadata_start)
    rows[field][7] = 1 - min(rows[field][7], 1)
    copy.index.shards[0].path.write_bytes(data)
    with pytest.raises(UserError, match="pair 7 is corrupt"):
        list(read_all(copy, "ffcv"))


@pytest.mark.parametrize(("module", "name"), [(decoder, "read_pairs"), (decoded_rows, "changes")])
def test_an_exception_in_a_decoding_thread_reaches_the_consumer(
    small_pack, monkeypatch, module, name
):
    def fail(*_):
        raise ZeroDivisionError("planted")

    with train_loader(small_pack) as loader:
        next(loader)
        monkeypatch.setattr(module, name, fail)
        with pytest.raises(ZeroDivisionError, match="planted"):
            list(islice(loader, 10))
    assert decoding_threads() == []


def test_a_dead_loader_thread_is_noticed_with_the_cause(small_pack, monkeypatch):
    with train_loader(small_pack) as loader:
        next(loader)
        monkeypatch.setattr(decoded_rows, "_fresh", None)
        with pytest.raises(RuntimeError, match="thread died") as caught:
            list(islice(loader, 10))
    assert "'NoneType' object is not callable" in str(caught.value.__cause__)


def cut_off(index):
    """The file ends before its table."""
    os.truncate(index.path, index.table)


def spoil_table(index):
    """Images stand beyond what a file can have."""
    with index.path.open("r+b") as file:
        file.seek(index.table)
        file.write(b"\xff" * (index.path.stat().st_size - index.table))


@pytest.mark.parametrize("reader", ["ffcv", "python"])
@pytest.mark.parametrize(("damage", "said"), [(cut_off, "damaged|ends"), (spoil_table, "damaged")])
def test_damage_while_blocks_are_read_is_named_too(copy, reader, damage, said):
    """Where the system is told which blocks come next, a damaged table is met before its images."""
    with train_loader(copy, reader, shuffle="block", block_pairs=5, window_blocks=2) as loader:
        next(loader)
        damage(copy.index.shards[0])
        with pytest.raises(UserError, match=f"image of pair .* is corrupt: .*({said})"):
            list(islice(loader, 20))
    assert decoding_threads() == []


def spoil(pack, images):
    """Alters some images, each (pair, 0 for the first and 1 for the second)."""
    for pair, which in images:
        number, row = pack.index.locate(np.array([pair]))[0].tolist()
        shard = pack.index.shards[number]
        with shard.path.open("r+b") as file:
            file.seek(int(shard.pointers[row, which]) + 30)
            file.write(b"\x5a\xa5\x5a")


def named_of(loader):
    """What the error of a loader calls corrupt, and how many batches come before it."""
    good = 0
    with loader, pytest.raises(UserError, match="its bytes are not those") as caught:
        for good, _ in enumerate(loader, 1):
            assert good < 20
    which, pair = re.search(r"(first|second) image of pair (\d+) is", caught.value.what).groups()
    return good, int(pair), ("first", "second").index(which)


@pytest.mark.parametrize("reader", ["ffcv", "python"])
@pytest.mark.parametrize("seed", range(4))
def test_of_several_damaged_images_the_first_of_the_first_batch_is_named(
    sharded, tmp_path, reader, seed
):
    """In the order of the batch, and of a pair's two images; whichever thread met which first."""
    shutil.copytree(sharded.path, tmp_path / "copy")
    with train_loader(sharded, batch=12) as loader:
        batches = [batch.sample_ids.tolist() for batch, _ in islice(loader, 4)]
    every = [(pair, which) for batch in batches for pair in batch for which in (0, 1)]
    rng = np.random.default_rng(seed)
    chosen = sorted(every[i] for i in rng.choice(len(every), 10, replace=False))
    spoil(read_pack(tmp_path / "copy"), chosen)
    expected = next(
        (number, pair, which)
        for number, batch in enumerate(batches)
        for pair in batch
        for which in (0, 1)
        if (pair, which) in chosen
    )
    spoilt = read_pack(tmp_path / "copy")
    assert named_of(train_loader(spoilt, reader, batch=12)) == expected
    assert decoding_threads() == []


@pytest.mark.parametrize("reader", ["ffcv", "python"])
@pytest.mark.parametrize("seed", range(4))
def test_of_several_damaged_photographs_the_first_that_is_needed_is_named(
    online, tmp_path, reader, seed
):
    """Each row asks for its own photograph, and then for the other one of the person."""
    shutil.copytree(online.path, tmp_path / "copy")
    settings = {"seed": 5, "ranks": ONE_RANK, "batch_pairs_per_rank": 8}
    data = DataConfig(reader=reader, second="online", workers=2)
    with make_train_loader(online, data, **settings) as loader:
        batches = [batch.sample_ids.numpy() for batch, _ in islice(loader, 2)]
    drawn = OnlineRows.of(TrainingSet.of([online]), 5)
    needed = []
    for number, ids in enumerate(batches):
        keys = np.stack([np.zeros_like(ids), ids], axis=1)
        for row in zip(ids.tolist(), drawn.draw(keys).read.tolist(), strict=True):
            needed += [(number, photograph) for photograph in row if photograph >= 0]
    every = sorted({photograph for _, photograph in needed})
    chosen = np.random.default_rng(seed).choice(every, 5, replace=False).tolist()
    spoil(read_pack(tmp_path / "copy"), [(photograph, 0) for photograph in chosen])
    number, photograph = next(each for each in needed if each[1] in chosen)
    loader = make_train_loader(read_pack(tmp_path / "copy"), data, **settings)
    assert named_of(loader) == (number, photograph, 0)
