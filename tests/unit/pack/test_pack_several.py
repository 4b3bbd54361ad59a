"""Several packs as one set: people by name, one line of pairs, every image with its own person."""

from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import simplejpeg
import torch

from distill.config.tree import DataConfig
from distill.data.batch import OrderState
from distill.data.faces import TEMPLATE, AlignedFace
from distill.data.loader import make_train_loader
from distill.data.manifest import Manifest, read_pack
from distill.data.online_rows import OnlineRows
from distill.data.order import Order
from distill.data.pack_writer import EncodedPair, write_pack
from distill.data.second.online import face_row, ways
from distill.data.training_set import TrainingSet
from distill.errors import UserError

FIELDS = ("first", "second", "labels", "kinds", "sample_ids")
ONE_RANK = SimpleNamespace(rank=0, world_size=1)
BEGINNING = OrderState(0, 0)
UNCHANGED = {"flip_probability": 0.0, "shift_pixels": 0, "brightness": 0.0, "contrast": 0.0}

PEOPLE = (["ann", "bob", "cid"], ["dan", "cid", "ann"])
KINDS = (["blur", "eyes"], ["pose", "blur"])
COUNTS = ((4, 3, 5), (6, 2, 3))


def picture(seed):
    small = np.random.default_rng(seed).integers(0, 256, (14, 14, 3), dtype=np.uint8)
    large = small.repeat(8, axis=0).repeat(8, axis=1)
    return simplejpeg.encode_jpeg(large, quality=90, colorsubsampling="444")


def labels_of(number):
    return np.repeat(np.arange(3), COUNTS[number]).tolist()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Packs that share two names, in another order, and a kind; the first has several files."""
    root, made = tmp_path_factory.mktemp("several"), []
    for number in (0, 1):
        pairs = [
            EncodedPair(picture(100 * number + 2 * i), picture(100 * number + 2 * i + 1), label,
                        i % 2)
            for i, label in enumerate(labels_of(number))
        ]  # fmt: skip
        options = {"identities": PEOPLE[number], "kinds": KINDS[number]}
        shard = {"shard_bytes": 20_000} if number == 0 else {}
        made.append(write_pack(root / "ab"[number], pairs, len(pairs), **options, **shard))
    assert len(made[0].manifest.shards) > 2
    return made


def taken(count, train, reader="ffcv", ranks=ONE_RANK, batch=4, state=BEGINNING, **more):
    data = DataConfig(**{"reader": reader, "workers": 2, **more})
    with make_train_loader(
        train, data, seed=5, ranks=ranks, batch_pairs_per_rank=batch, state=state
    ) as loader:
        return list(islice(loader, count))


def same(a, b):
    return all(torch.equal(getattr(a, f), getattr(b, f)) for f in FIELDS)


def stored(packs):
    """Name, kind and both JPEGs of every pair, as the packs themselves say."""
    for pack in packs:
        for shard in pack.index.shards:
            for row, regions in zip(shard.samples, shard.allocations, strict=True):
                data = shard.path.read_bytes()
                jpegs = [data[int(r["ptr"]) : int(r["ptr"] + r["size"])] for r in regions]
                manifest = pack.manifest
                yield manifest.identities[row["label"]], manifest.kinds[row["kind"]], jpegs


def repacked(pack, folder, names, kinds):
    """The pairs of a pack of one file in another pack."""
    owners = pack.index.shards[0].samples
    pairs = [
        EncodedPair(*jpegs, int(row["label"]), int(row["kind"]))
        for row, (*_, jpegs) in zip(owners, stored([pack]), strict=True)
    ]
    return write_pack(folder, pairs, len(pairs), identities=names, kinds=kinds)


@pytest.mark.parametrize("reader", ["ffcv", "python"])
@pytest.mark.parametrize("shuffle", ["full", "block"])
def test_every_pair_comes_once_with_its_own_person_kind_and_pixels(two, reader, shuffle):
    train = TrainingSet.of(two, "same_person")
    assert train.identities == ["ann", "bob", "cid", "dan"]
    assert train.kinds == ["blur", "eyes", "pose"]
    known, seen = list(stored(two)), []
    settings = {"shuffle": shuffle, "block_pairs": 5, "window_blocks": 2}
    for batch, _ in taken(23, train, reader, batch=2, **settings, **UNCHANGED):
        for row, pair in enumerate(batch.sample_ids.tolist()):
            name, kind, jpegs = known[pair]
            assert train.identities[int(batch.labels[row])] == name
            assert train.kinds[int(batch.kinds[row])] == kind
            for image, jpeg in zip((batch.first, batch.second), jpegs, strict=True):
                rgb = simplejpeg.decode_jpeg(jpeg, fastdct=True)
                assert np.array_equal(image[row].numpy().transpose(1, 2, 0), rgb)
            seen.append(pair)
    assert sorted(seen[:23]) == sorted(seen[23:]) == list(range(23))
    order = Order(5, 23).keys(np.arange(46))[:, 1].tolist()
    assert shuffle == "block" or seen == order  # as of one pack of 23 pairs


@pytest.mark.parametrize("shuffle", ["full", "block"])
def test_both_readers_agree_and_two_ranks_go_on_where_one_stopped(two, shuffle):
    train = TrainingSet.of(two, "different_people")
    settings = {"shuffle": shuffle, "block_pairs": 4, "window_blocks": 3}
    fast, slow = (taken(12, train, reader, **settings) for reader in ("ffcv", "python"))
    assert all(same(a, b) and s == t for (a, s), (b, t) in zip(fast, slow, strict=True))
    halves = [
        taken(5, train, "ffcv", SimpleNamespace(rank=r, world_size=2), 2, fast[6][1], **settings)
        for r in (0, 1)
    ]
    for (whole, after), *parts in zip(fast[7:], *halves, strict=True):
        assert {state for _, state in parts} == {after}
        for field in FIELDS:
            together = torch.stack([getattr(p, field) for p, _ in parts], dim=1).flatten(0, 1)
            assert torch.equal(together, getattr(whole, field))


def test_one_pack_alone_is_as_it_was(two):
    train = TrainingSet.of(two[:1])
    assert (train.digest, train.kinds) == (two[0].manifest.digest, two[0].manifest.kinds)
    assert train.identities == PEOPLE[0] and train.index is two[0].index
    both = zip(taken(6, train), taken(6, two[0]), strict=True)
    assert all(same(a, b) for (a, _), (b, _) in both)


def test_the_digest_covers_all_packs_in_their_order(two):
    digests = {TrainingSet.of(packs, "same_person").digest for packs in (two, two[::-1])}
    assert digests == {"+".join(p.manifest.digest for p in packs) for packs in (two, two[::-1])}


def test_what_does_not_fit_together_is_refused(two, make_pack, tmp_path):
    with pytest.raises(UserError, match=r"2 names stand in several packs \('ann', 'cid'\)") as said:
        TrainingSet.of(two)
    assert "data.same_names" in said.value.fix
    copy = repacked(two[1], tmp_path / "copy", PEOPLE[1], KINDS[1])
    with pytest.raises(UserError, match=r"/b and .*/copy hold the same pairs"):
        TrainingSet.of([*two, copy], "same_person")
    pairs = [EncodedPair(b"x", b"x", 0, 0)]
    small = write_pack(tmp_path / "s", pairs, 1, identities=["z"], kinds=["blur"], image_side=64)
    with pytest.raises(UserError, match="do not fit together: 112 and 64 pixels"):
        TrainingSet.of([*two, small], "same_person")
    alone = [EncodedPair(picture(1), b"", 0, 0, bytes(48))]
    singles = write_pack(tmp_path / "o", alone, 1, identities=["z"], kinds=["blur"],
                         second="online", kind_chances={"blur": 1.0})  # fmt: skip
    with pytest.raises(UserError, match="do not fit together: second images packed and online"):
        TrainingSet.of([*two, singles], "same_person")
    with pytest.raises(UserError, match="has second images"):
        taken(1, TrainingSet.of(two, "same_person"), second="online")


@pytest.mark.parametrize("reader", ["ffcv", "python"])
def test_damage_is_named_by_the_file_and_number_of_its_own_pack(two, tmp_path, reader):
    damaged = repacked(two[1], tmp_path / "b", ["dan", "eve", "flo"], KINDS[1])
    shard = damaged.index.shards[0]
    with shard.path.open("r+b") as file:
        file.seek(int(shard.pointers[7, 1]) + 40)
        file.write(b"\x5a\xa5\x5a")
    train = TrainingSet.of([two[0], read_pack(damaged.path)])
    with pytest.raises(UserError, match="second image of pair 7 is corrupt: its bytes") as said:
        taken(6, train, reader)
    assert said.value.what.startswith(str(shard.path))


@pytest.mark.parametrize("reader", ["ffcv", "python"])
@pytest.mark.parametrize("field", ["label", "kind"])
def test_a_number_that_only_the_other_pack_has_is_damage(two, tmp_path, monkeypatch, reader, field):
    """As of a shard from another pack, in one too large to be looked through when opened."""
    monkeypatch.setattr("distill.data.manifest.CHECKED_PAIRS", 0)
    numbers = (2, 0) if field == "label" else (0, 1)
    pairs = [EncodedPair(picture(i), picture(i), 0, 0) for i in range(5)]
    pairs.append(EncodedPair(picture(9), picture(9), *numbers))
    foreign = write_pack(tmp_path / "c", pairs, 6, identities=["x", "y", "z"], kinds=["u", "v"])
    text = foreign.manifest.model_dump() | {
        "identities": ["x"], "pairs_per_identity": [6], "kinds": ["u"], "pairs_per_kind": {"u": 6},
    }  # fmt: skip
    (foreign.path / "manifest.json").write_text(Manifest(**text).model_dump_json())
    train = TrainingSet.of([two[0], read_pack(foreign.path)])
    with pytest.raises(UserError, match="first image of pair 5 is corrupt: its entry is damaged"):
        taken(6, train, reader, batch=3)


# second images made while training

CHANCES = ({"pose": 0.6, "blur": 0.5}, {"eyes": 0.7, "blur": 0.5})


def write_singles(folder, number, chances):
    pairs = []
    for i, label in enumerate(labels_of(number)):
        jpeg = picture(1000 * number + i)
        points = TEMPLATE + np.random.default_rng(i).normal(0, 1, (5, 2)).astype(np.float32)
        face = AlignedFace(simplejpeg.decode_jpeg(jpeg, fastdct=True), points.astype(np.float32))
        pairs.append(EncodedPair(jpeg, b"", label, 0, face_row(face)))
    return write_pack(folder, pairs, len(pairs), identities=PEOPLE[number], kinds=ways(chances),
                      second="online", kind_chances=chances)  # fmt: skip


@pytest.fixture(scope="module", params=["one recipe", "two recipes"])
def online(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("online")
    chances = CHANCES if request.param == "two recipes" else (CHANCES[0], CHANCES[0])
    packs = [write_singles(root / "ab"[n], n, chances[n]) for n in (0, 1)]
    return packs, chances


def test_second_images_follow_each_packs_own_chances_in_both_readers(online):
    packs, chances = online
    train = TrainingSet.of(packs, "same_person")
    fast, slow = (taken(12, train, reader, second="online") for reader in ("ffcv", "python"))
    assert all(same(a, b) and s == t for (a, s), (b, t) in zip(fast, slow, strict=True))
    kinds = (set(), set())
    for batch, _ in fast:
        for pair, kind in zip(batch.sample_ids.tolist(), batch.kinds.tolist(), strict=True):
            kinds[pair >= sum(COUNTS[0])].update(train.kinds[kind].split("+"))
    assert all(seen == set(wanted) for seen, wanted in zip(kinds, chances, strict=True))


def test_one_recipe_draws_as_one_pack_of_the_same_photographs_would(online):
    """Places are numbered through, so what is drawn for a place is what one pack would draw."""
    packs, chances = online
    rows = OnlineRows.of(TrainingSet.of(packs, "different_people"), 5)
    keys = np.stack([np.zeros(23, int), np.arange(23)], axis=1)
    expected = rows.recipes[0].maker.draw(keys[:, 0].copy(), keys[:, 1].copy())
    assert len(rows.recipes) == 1 + (chances[0] != chances[1])
    assert np.array_equal(rows.draw(keys).bits[:12], expected[:12])
    assert np.array_equal(rows.draw(keys).bits, expected) == (len(rows.recipes) == 1)


def test_another_photograph_may_lie_in_another_pack(online):
    packs, _ = online
    owner = [PEOPLE[n][label] for n in (0, 1) for label in labels_of(n)]
    for same_names in ("same_person", "different_people"):
        rows = OnlineRows.of(TrainingSet.of(packs, same_names), 5)
        across = 0
        for epoch in range(30):
            keys = np.stack([np.full(23, epoch), np.arange(23)], axis=1)
            for i, partner in enumerate(rows.draw(keys).partner.tolist()):
                assert owner[i] == owner[partner] and partner != i
                across += (i < sum(COUNTS[0])) != (partner < sum(COUNTS[0]))
        assert (across > 100) == (same_names == "same_person")


def test_paths_of_all_packs_are_named_where_they_are_too_small(two):
    train = TrainingSet.of(two, "same_person")
    with pytest.raises(UserError, match="23 pairs do not fill one global batch of 24") as said:
        taken(1, train, batch=24)
    assert all(str(Path(pack.path)) in said.value.what for pack in two)
