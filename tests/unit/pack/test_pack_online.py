"""Second images made while loading: fresh, repeatable, the same from both readers."""

import json
import shutil
from itertools import islice
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from single_packs import CHANCES, COUNTS, TOTAL, drawn, write_singles

from distill.config.tree import DataConfig
from distill.data.batch import OrderState
from distill.data.beton import SINGLES
from distill.data.forget import forget
from distill.data.loader import make_eval_loader, make_train_loader
from distill.data.manifest import read_pack
from distill.data.pack import PackOptions, open_source, pack
from distill.data.pack.estimate import estimate
from distill.data.second import KINDS, process
from distill.data.second.online import Partners
from distill.data.second.pixels.draws import joined
from distill.data.verify import verify_pack
from distill.errors import UserError

FIELDS = ("first", "second", "labels", "kinds", "sample_ids")
ONE_RANK = SimpleNamespace(rank=0, world_size=1)
UNCHANGED = {"flip_probability": 0.0, "shift_pixels": 0, "brightness": 0.0, "contrast": 0.0}
BEGINNING = OrderState(0, 0)


def taken(count, pack, reader="ffcv", ranks=ONE_RANK, batch=6, state=BEGINNING, seed=5, **settings):
    data = DataConfig(**{"reader": reader, "workers": 2, "second": "online", **settings})
    with make_train_loader(
        pack, data, seed=seed, ranks=ranks, batch_pairs_per_rank=batch, state=state
    ) as loader:
        return list(islice(loader, count))


def same(a, b):
    return all(torch.equal(getattr(a, f), getattr(b, f)) for f in FIELDS)


@pytest.mark.parametrize("shuffle", ["full", "block"])
def test_both_readers_give_the_same_pairs_over_epochs(online, shuffle):
    settings = {"shuffle": shuffle, "block_pairs": 4, "window_blocks": 2}
    fast, slow = (taken(9, online, reader, **settings) for reader in ("ffcv", "python"))
    for (a, state), (b, other_state) in zip(fast, slow, strict=True):
        assert state == other_state and same(a, b)
    assert fast[-1][1].epoch == 2


class Known:
    """A generator that gives one number: a pair's own key."""

    def __init__(self, number):
        self.number = number

    def integers(self, *_, **__):
        return self.number


def test_second_images_are_what_packing_makes_of_the_same_keys(online, singles):
    faces, partners = [face for _, face in singles], Partners(np.array(COUNTS))
    place, kinds_seen = 0, set()
    for batch, _ in taken(10, online, **UNCHANGED):
        for row, sample in enumerate(batch.sample_ids.tolist()):
            epoch, place = place // TOTAL, place + 1
            key = np.uint64(0)
            for part in (5, epoch, sample):
                key = np.uint64(joined(key, np.int64(part)))
            kinds = online.manifest.kinds[int(batch.kinds[row])].split("+")
            kinds_seen |= set(kinds)
            (partner,) = partners.of(5, np.array([epoch]), np.array([sample])).tolist()
            expected, _ = process(
                kinds,
                faces[sample],
                lambda kind, key=key: Known(np.uint64(joined(key, KINDS.index(kind) + 1))),
                other=faces[partner] if partner >= 0 else None,
            )
            assert np.array_equal(batch.second[row].numpy().transpose(1, 2, 0), expected.rgb)
            assert np.array_equal(batch.first[row].numpy().transpose(1, 2, 0), faces[sample].rgb)
            assert int(batch.labels[row]) == singles[sample][0].label
    assert kinds_seen == set(CHANCES)


def test_every_epoch_has_other_second_images_and_the_same_first_ones(online):
    epochs = [{}, {}]
    for place, (batch, _) in enumerate(taken(2 * TOTAL, online, batch=1, **UNCHANGED)):
        epochs[place // TOTAL][int(batch.sample_ids[0])] = batch
    assert len(epochs[0]) == len(epochs[1]) == TOTAL
    assert all(torch.equal(epochs[0][i].first, epochs[1][i].first) for i in range(TOTAL))
    fresh = [not torch.equal(epochs[0][i].second, epochs[1][i].second) for i in range(TOTAL)]
    assert sum(fresh) > 0.9 * TOTAL


@pytest.mark.parametrize("reader", ["ffcv", "python"])
def test_resuming_goes_on_with_the_same_pixels_on_another_number_of_ranks(online, reader):
    whole = taken(9, online, reader)
    state = whole[3][1]
    halves = [
        taken(5, online, reader, SimpleNamespace(rank=r, world_size=2), batch=3, state=state)
        for r in (0, 1)
    ]
    for (batch, after), *parts in zip(whole[4:], *halves, strict=True):
        assert {s for _, s in parts} == {after}
        for field in FIELDS:
            together = torch.stack([getattr(p, field) for p, _ in parts], dim=1).flatten(0, 1)
            assert torch.equal(together, getattr(batch, field))


def test_a_pack_that_does_not_fit_the_setting_is_refused(online, small_pack):
    with pytest.raises(UserError, match="has no second images") as caught:
        taken(1, online, second="packed")
    assert "data.second = 'online'" in caught.value.fix
    with pytest.raises(UserError, match="has second images") as caught:
        taken(1, small_pack)
    assert "--layout singles" in caught.value.fix
    with pytest.raises(UserError, match="has no second images"):
        list(make_eval_loader(online, DataConfig(), rank=0, world_size=1, batch_pairs=4))


@pytest.fixture
def copy(online, tmp_path):
    shutil.copytree(online.path, tmp_path / "copy")
    return tmp_path / "copy"


def altered(folder, **changes):
    file = folder / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return read_pack(folder)


@pytest.mark.parametrize("chances", [{}, {"bluhr": 0.5}, {"blur": 0.0}, {"blur": 1.5}])
def test_chances_that_cannot_be_drawn_are_named(copy, chances):
    with pytest.raises(UserError, match=r"manifest\.json: kind_chances"):
        taken(1, altered(copy, kind_chances=chances))


def test_kinds_that_the_chances_cannot_give_are_named(copy):
    with pytest.raises(UserError, match="not those that kind_chances"):
        taken(1, altered(copy, kind_chances={"blur": 0.5, "pose": 0.5}))


def test_what_second_images_are_made_by_counts_as_content(online, copy):
    assert read_pack(copy).manifest.digest == online.manifest.digest
    other = altered(copy, second_options={"eye_shift": 1.0})
    assert other.manifest.digest != online.manifest.digest


def test_scattered_people_are_refused(singles, tmp_path):
    scattered = write_singles(tmp_path / "scattered", [singles[i][0] for i in (0, 20, 1, 2, 3, 4)])
    with pytest.raises(UserError, match="lie apart"):
        taken(1, scattered, batch=2)


@pytest.mark.parametrize("reader", ["ffcv", "python"])
def test_in_a_large_pack_a_label_out_of_place_is_found_when_it_is_read(
    singles, tmp_path, reader, monkeypatch
):
    monkeypatch.setattr("distill.data.online_rows.CHECKED_PAIRS", 0)
    scattered = write_singles(tmp_path / "scattered", [singles[i][0] for i in (0, 20, 1, 2, 3, 4)])
    with pytest.raises(UserError, match=r"image of pair [15] is corrupt: its entry is damaged"):
        taken(4, scattered, reader, batch=6)


@pytest.mark.parametrize("reader", ["ffcv", "python"])
@pytest.mark.parametrize("part", ["image", "face"])
def test_a_damaged_photograph_is_named_also_as_anothers_partner(online, copy, reader, part):
    damaged, pack_ = 3, read_pack(copy)
    shard = pack_.index.shards[0]
    with shard.path.open("r+b") as file:
        if part == "image":
            file.seek(int(shard.pointers[damaged, 0]) + 30)
        else:
            row = SINGLES.metadata_start + damaged * SINGLES.row.itemsize
            file.seek(row + SINGLES.row.fields["face2"][1])
        file.write(b"\x5a\xa5\x5a")
    said, sooner = "first image of pair 3 is corrupt: its bytes are not those", 0
    for seed in range(8):
        whole = taken(TOTAL, read_pack(online.path), reader, batch=1, seed=seed)
        turn = [int(batch.sample_ids[0]) for batch, _ in whole].index(damaged)
        data, good = DataConfig(reader=reader, second="online"), 0
        with (
            make_train_loader(
                pack_, data, seed=seed, ranks=ONE_RANK, batch_pairs_per_rank=1
            ) as loader,
            pytest.raises(UserError, match=said),
        ):
            for good, _ in enumerate(loader, 1):
                assert good <= turn
        sooner += good < turn
    assert sooner > 0


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    root = tmp_path_factory.mktemp("photographs") / "people"
    for person, name in enumerate(("ann", "bob", "cid")):
        (root / name).mkdir(parents=True)
        for i in range(6):
            cv2.imwrite(str(root / name / f"{i}.png"), drawn(100 * person + i))
    return root


OPTIONS = {
    "layout": "singles",
    "kinds": {"pose": 0.5, "blur": 0.5},
    "second": {"gaussian_sigma": [1.0, 2.0]},
    "aligned": True,
    "workers": 1,
}


def test_packed_trained_on_verified_and_forgotten(people, tmp_path):
    result = pack(open_source(str(people)), tmp_path / "out", PackOptions(**OPTIONS, holdout=0.34))
    made, held = result.train, result.evaluation
    assert made.manifest.kinds == ["pose", "blur", "pose+blur"]
    assert (made.manifest.second, held.manifest.second) == ("online", "packed")
    assert made.manifest.kind_chances == {"pose": 0.5, "blur": 0.5}
    assert made.manifest.second_options["gaussian_sigma"] == [1.0, 2.0]
    batches = taken(6, made, batch=4)
    assert {int(k) for batch, _ in batches for k in batch.kinds} <= {0, 1, 2}
    assert verify_pack(made) == []
    assert all(len(b) for b in make_eval_loader(
        held, DataConfig(), rank=0, world_size=1, batch_pairs=4))  # fmt: skip
    forgotten = forget(["bob"], tmp_path / "out")[0].pack
    assert 1 not in {int(label) for b, _ in taken(4, forgotten, batch=4) for label in b.labels}
    assert "bob" not in (made.path / "pairs.csv").read_text()


def test_packing_alone_knows_the_size(people, tmp_path):
    options = PackOptions(**OPTIONS)
    found = estimate(open_source(str(people)), options)
    made = pack(open_source(str(people)), tmp_path / "out", options).train
    again = pack(open_source(str(people)), tmp_path / "out", options)
    assert again.reused
    assert found.pairs == made.manifest.pairs == 18
    assert found.pack_bytes == pytest.approx(int(made.index.shards[0].sizes.sum()), rel=0.05)
    pairs = PackOptions(**OPTIONS | {"layout": "pairs"})
    with pytest.raises(UserError, match=r"with other settings \(layout\)"):
        pack(open_source(str(people)), tmp_path / "out", pairs)


@pytest.mark.parametrize("wrong", [{"layout": "triples"}, {"second_per_image": 2}])
def test_options_that_contradict_each_other(wrong):
    with pytest.raises(UserError, match="--layout"):
        PackOptions(**OPTIONS | wrong)
