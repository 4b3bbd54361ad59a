"""Loaders: the same pairs from both readers, resumable; no thread, error or pixel astray."""

import logging
import os
import threading
import time
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import simplejpeg
import torch
from pair_loaders import ONE_RANK, decoding_threads, train_loader

from distill.config.tree import DataConfig
from distill.data import decoder
from distill.data.augment import Amplitudes, changes
from distill.data.batch import OrderState
from distill.data.loader import make_eval_loader, make_train_loader
from distill.errors import UserError

FIELDS = ("first", "second", "labels", "kinds", "sample_ids")
AMPLITUDES = Amplitudes.from_config(DataConfig())


def taken(count, *args, **kwargs):
    with train_loader(*args, **kwargs) as loader:
        return list(islice(loader, count))


def same(a, b):
    return all(torch.equal(getattr(a, f), getattr(b, f)) for f in FIELDS)


def test_both_readers_give_the_same_pairs_over_epochs(small_pack):
    fast, slow = (taken(20, small_pack, reader) for reader in ("ffcv", "python"))
    for (a, state), (b, other_state) in zip(fast, slow, strict=True):
        assert state == other_state
        assert same(a, b)
    assert fast[-1][1] == OrderState(3, 1)  # 160 pairs of 53


def test_shapes_types_and_content(small_pack, jpeg_pairs):
    data = DataConfig(flip_probability=0.0, shift_pixels=0, brightness=0.0, contrast=0.0)
    with make_train_loader(
        small_pack, data, seed=1, ranks=ONE_RANK, batch_pairs_per_rank=53
    ) as loader:
        batch, _ = next(loader)
    assert batch.first.shape == batch.second.shape == (53, 3, 112, 112)
    assert batch.first.dtype == torch.uint8 and batch.first.is_contiguous()
    assert {batch.labels.dtype, batch.kinds.dtype, batch.sample_ids.dtype} == {torch.int64}
    assert sorted(batch.sample_ids.tolist()) == list(range(53))
    for row, sample in enumerate(batch.sample_ids.tolist()):
        pair = jpeg_pairs[sample]
        expected = simplejpeg.decode_jpeg(pair.second, fastdct=True).transpose(2, 0, 1)
        assert np.array_equal(batch.second[row].numpy(), expected)
        assert (int(batch.labels[row]), int(batch.kinds[row])) == (pair.label, pair.kind)


def test_batches_stay_as_they_were_handed_out(small_pack):
    with train_loader(small_pack) as loader:
        batches = [batch for batch, _ in islice(loader, 12)]
        copies = [batch.first.clone() for batch in batches]
        list(islice(loader, 12))
    assert all(torch.equal(b.first, c) for b, c in zip(batches, copies, strict=True))


@pytest.mark.parametrize("reader", ["ffcv", "python"])
def test_resuming_goes_on_with_the_same_pixels(small_pack, reader):
    whole = taken(15, small_pack, reader)
    for stop in (1, 6, 11):
        resumed = taken(15 - stop, small_pack, reader, state=whole[stop - 1][1])
        for (a, state), (b, other_state) in zip(whole[stop:], resumed, strict=True):
            assert state == other_state and same(a, b)


def test_two_ranks_share_what_one_rank_sees(small_pack):
    alone = taken(9, small_pack, batch=12)
    parts = [
        taken(9, small_pack, ranks=SimpleNamespace(rank=r, world_size=2), batch=6) for r in (0, 1)
    ]
    for (batch, state), *halves in zip(alone, *parts, strict=True):
        assert {s for _, s in halves} == {state}
        for field in FIELDS:
            together = torch.stack([getattr(h, field) for h, _ in halves], dim=1).flatten(0, 1)
            assert torch.equal(together, getattr(batch, field))


def test_batches_go_on_into_the_next_epoch(small_pack):
    """53 pairs in batches of 8: the seventh holds the last 5 of an epoch and 3 of the next."""
    batches = taken(14, small_pack)
    ids = np.concatenate([batch.sample_ids.numpy() for batch, _ in batches])
    for epoch in (0, 1):
        assert np.array_equal(np.sort(ids[53 * epoch : 53 * (epoch + 1)]), np.arange(53))
    assert batches[6][1] == OrderState(1, 3)
    change = changes(5, np.repeat([0, 1], [5, 3]), batches[6][0].sample_ids.numpy(), AMPLITUDES)
    assert change.down[5:].tolist() == changes(5, 1, ids[53:56], AMPLITUDES).down.tolist()


@pytest.mark.parametrize("shuffle", ["full", "block"])
def test_several_shards_are_read_as_one(small_pack, sharded, shuffle):
    settings = {"shuffle": shuffle, "block_pairs": 7, "window_blocks": 3}
    for (a, state), (b, other_state) in zip(
        taken(12, small_pack, **settings), taken(12, sharded, **settings), strict=True
    ):
        assert state == other_state and same(a, b)


def test_block_shuffle_gives_both_readers_the_same_pairs_and_resumes(sharded):
    settings = {"shuffle": "block", "block_pairs": 5, "window_blocks": 4}
    fast, slow = (taken(16, sharded, reader, **settings) for reader in ("ffcv", "python"))
    assert all(same(a, b) for (a, _), (b, _) in zip(fast, slow, strict=True))
    resumed = taken(6, sharded, state=fast[9][1], **settings)
    assert all(same(a, b) for (a, _), (b, _) in zip(fast[10:], resumed, strict=True))


@pytest.mark.parametrize("reader", ["ffcv", "python"])
@pytest.mark.parametrize("ranks", [1, 2, 3, 60])
def test_evaluation_reads_every_pair_once_unchanged(small_pack, jpeg_pairs, reader, ranks):
    seen = []
    for rank in range(ranks if ranks < 60 else 2):
        loader = make_eval_loader(
            small_pack, DataConfig(reader=reader), rank=rank, world_size=ranks, batch_pairs=10
        )
        for batch in loader:
            seen += batch.sample_ids.tolist()
            expected = simplejpeg.decode_jpeg(jpeg_pairs[seen[-1]].first, fastdct=True)
            assert np.array_equal(batch.first[-1].numpy(), expected.transpose(2, 0, 1))
    assert seen == list(range(53))[: len(seen)]
    assert len(seen) == 53 or ranks == 60
    assert decoding_threads() == []


def test_threads_end_with_a_break_a_close_and_a_forgotten_loader(small_pack):
    for _ in make_eval_loader(small_pack, DataConfig(), rank=0, world_size=1, batch_pairs=2):
        break
    assert decoding_threads() == []
    loader = train_loader(small_pack, batch=2)
    next(loader)
    assert decoding_threads() != []
    loader.close()
    loader.close()
    assert decoding_threads() == []
    forgotten = train_loader(small_pack, batch=2)
    next(forgotten)
    del forgotten
    assert decoding_threads() == []


def test_torch_keeps_its_threads(small_pack):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    with train_loader(small_pack) as loader:
        list(islice(loader, 12))
        assert torch.get_num_threads() == 3
    torch.set_num_threads(before)


def test_waiting_is_counted(small_pack, monkeypatch):
    with train_loader(small_pack, "python") as loader:
        assert loader.wait_seconds == 0.0
        batch = next(loader._pass)
        monkeypatch.setattr(type(loader._pass), "__next__", lambda _: time.sleep(0.05) or batch)
        list(islice(loader, 4))
        assert loader.wait_seconds >= 0.2


def test_evaluation_in_the_middle_of_training(small_pack):
    alone = taken(12, small_pack)
    with train_loader(small_pack) as loader:
        mixed = list(islice(loader, 6))
        batches = make_eval_loader(small_pack, DataConfig(), rank=0, world_size=1, batch_pairs=4)
        for _, taken_too in zip(batches, islice(loader, 6), strict=False):
            mixed.append(taken_too)
        assert sum(len(batch) for batch in batches) > 20
    assert all(same(a, b) and s == t for (a, s), (b, t) in zip(alone, mixed, strict=True))


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core has one decoding thread")
def test_a_thread_that_is_held_up_holds_up_no_other(small_pack, monkeypatch):
    """While one thread works on its half of a batch, the other goes on to later batches."""
    real, first, three_more = decoder.read_pairs, threading.Lock(), threading.Semaphore(0)
    waited = []

    def held_up(*arguments):
        if first.acquire(blocking=False):
            waited.append(all(three_more.acquire(timeout=300) for _ in range(3)))
        else:
            three_more.release()
        real(*arguments)

    alone = taken(8, small_pack)
    with train_loader(small_pack) as loader:
        together = [next(loader)]
        monkeypatch.setattr(decoder, "read_pairs", held_up)
        together += islice(loader, 7)
    assert all(same(a, b) for (a, _), (b, _) in zip(alone, together, strict=True))
    assert waited == [True]


def test_more_workers_than_cores_are_clamped_with_a_note(small_pack, caplog):
    cores = len(os.sched_getaffinity(0))
    data = DataConfig(workers=cores + 7)
    with (
        caplog.at_level(logging.WARNING),
        make_train_loader(
            small_pack, data, seed=0, ranks=ONE_RANK, batch_pairs_per_rank=8
        ) as loader,
    ):
        next(loader)
    assert f"using {cores}" in caplog.text


def test_a_pack_smaller_than_the_global_batch_is_refused(small_pack):
    with pytest.raises(UserError, match="53 pairs do not fill one global batch of 64"):
        train_loader(small_pack, ranks=SimpleNamespace(rank=1, world_size=2), batch=32)


def test_changes_differ_between_epochs(small_pack):
    ids = np.arange(53)
    assert not np.array_equal(
        changes(5, 0, ids, AMPLITUDES).down, changes(5, 1, ids, AMPLITUDES).down
    )
