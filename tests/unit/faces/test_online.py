"""Second images in the loader: what packing makes, keyed by (seed, epoch, sample) alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data.faces import AlignedFace
from distill.data.keyed import keyed_rng
from distill.data.second import KINDS, TAKING_OTHER, SecondOptions, draw_kinds, process
from distill.data.second.frame_finder import worn_of
from distill.data.second.online import (
    FACE_ROW,
    Partners,
    SecondMaker,
    face_row,
    face_rows,
    needs_partner,
    way_bits,
    ways,
)
from distill.data.second.pixels.draws import joined

CHANCES = dict.fromkeys(KINDS, 0.3)
SAMPLES = 240


class Pack:
    """Some faces of four people, as a loader has them in memory."""

    def __init__(self, faces: list[AlignedFace], labels: list[int]) -> None:
        order = np.arange(SAMPLES) * len(faces) // SAMPLES
        self.images = np.stack([faces[i].rgb for i in order])
        self.rows = face_rows(np.frombuffer(b"".join(face_row(faces[i]) for i in order), np.uint8))
        self.labels = np.array(labels, np.int64)[order]
        self.faces, self.order = faces, order
        self.partners = Partners(np.bincount(self.labels))

    def seconds(self, maker: SecondMaker, epoch: int, ids: np.ndarray) -> tuple[np.ndarray, ...]:
        epochs = np.full(len(ids), epoch, np.int64)
        drawn = maker.draw(epochs, ids)
        partner = self.partners.of(maker.seed, epochs, ids)
        out = np.zeros((len(ids), 112, 112, 3), np.uint8)
        at = np.maximum(partner, 0)
        maker.make(
            epochs, ids, drawn, self.images[ids], self.rows[ids], partner, self.images[at],
            self.rows[at], out,
        )  # fmt: skip
        return out, drawn, partner


@pytest.fixture(scope="module")
def pack(frontal) -> Pack:
    people = sorted({origin.split("/")[0] for origin in frontal})
    labels = [people.index(origin.split("/")[0]) for origin in frontal]
    return Pack(list(frontal.values()), labels)


@pytest.fixture(scope="module")
def maker() -> SecondMaker:
    made = SecondMaker(5, CHANCES)
    made.warm_up()
    return made


def test_the_same_whatever_the_batches_ranks_and_threads(pack, maker):
    ids = np.arange(0, SAMPLES, 5)
    whole, drawn, partner = pack.seconds(maker, 3, ids)
    shuffled = np.random.default_rng(0).permutation(len(ids))
    runs = np.array_split(shuffled, 7)  # other batches, in another order, on several threads
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda run: pack.seconds(maker, 3, ids[run]), runs))
    for run, (seconds, kinds, others) in zip(runs, parts, strict=True):
        assert np.array_equal(seconds, whole[run])
        assert np.array_equal(kinds, drawn[run])
        assert np.array_equal(others, partner[run])


def test_fresh_in_every_epoch_and_for_every_seed(pack, maker):
    ids = np.arange(0, SAMPLES, 6)
    here = pack.seconds(maker, 0, ids)[0]
    next_epoch = pack.seconds(maker, 1, ids)[0]
    other_seed = pack.seconds(SecondMaker(6, CHANCES), 0, ids)[0]
    for other in (next_epoch, other_seed):
        assert (here != other).any(axis=(1, 2, 3)).mean() > 0.95


class Known:
    """A generator that gives one number, to put a key into packing's hands."""

    def __init__(self, number: np.uint64) -> None:
        self._number = number

    def integers(self, *_: object, **__: object) -> np.uint64:
        return self._number


def own_stream(key: np.uint64, kind: str) -> Known:
    return Known(np.uint64(joined(key, np.int64(KINDS.index(kind) + 1))))


def test_packing_makes_the_very_same_pixels_from_the_same_keys(pack, maker):
    ids = np.arange(0, SAMPLES, 6)
    seconds, drawn, partner = pack.seconds(maker, 2, ids)
    for row, sample in enumerate(ids):
        key = np.uint64(0)
        for part in (maker.seed, 2, sample):
            key = np.uint64(joined(key, np.int64(part)))
        kinds = [kind for place, kind in enumerate(KINDS) if drawn[row] >> place & 1]
        rng_of = partial(own_stream, key)
        other = pack.faces[pack.order[partner[row]]]
        made, _ = process(kinds, pack.faces[pack.order[sample]], rng_of, other=other)
        assert np.array_equal(made.rgb, seconds[row]), kinds


def test_both_modes_have_one_distribution(pack, maker):
    ids = np.arange(SAMPLES)
    rng = np.random.default_rng(0)
    online = [pack.seconds(maker, epoch, ids) for epoch in (0, 1)]
    drawn = np.concatenate([d for _, d, _ in online])
    packed_kinds, packed = [], []
    for sample in ids:
        kinds = draw_kinds(CHANCES, keyed_rng("offline", int(sample), "kinds"))
        rng_of = lambda kind, s=sample: keyed_rng("offline", int(s), kind)  # noqa: E731
        same = np.flatnonzero((pack.labels == pack.labels[sample]) & (ids != sample))
        other = pack.faces[pack.order[rng.choice(same)]]
        packed.append(process(kinds, pack.faces[pack.order[sample]], rng_of, other=other)[0].rgb)
        packed_kinds.append(way_bits("+".join(kinds)))
    for place in range(len(KINDS)):
        shares = [((np.array(d) >> place) & 1).mean() for d in (drawn, packed_kinds)]
        # Four deviations of the difference of two binomial shares.
        assert abs(shares[0] - shares[1]) < 4 * np.sqrt(0.3 * 0.7 * (1 / 480 + 1 / 240))
    for measure in (mean, contrast, detail, change):
        one = np.array([measure(s, f) for s, f in zip(online[0][0], pack.images, strict=True)])
        two = np.array([measure(s, f) for s, f in zip(packed, pack.images, strict=True)])
        spread = np.sqrt(one.var() / len(one) + two.var() / len(two))
        assert abs(one.mean() - two.mean()) < 4 * spread, measure.__name__


def mean(rgb: np.ndarray, _: np.ndarray) -> float:
    return float(rgb.mean())


def contrast(rgb: np.ndarray, _: np.ndarray) -> float:
    return float(rgb.std())


def detail(rgb: np.ndarray, _: np.ndarray) -> float:
    return float(np.abs(np.diff(rgb.astype(int), axis=1)).mean())


def change(rgb: np.ndarray, first: np.ndarray) -> float:
    return float(np.abs(rgb.astype(int) - first).mean())


def test_kinds_come_up_as_often_as_asked():
    chances = {"forehead": 0.3, "blur": 0.6, "pose": 0.05}
    ids = np.arange(20_000)
    drawn = SecondMaker(1, chances).draw(np.zeros_like(ids), ids)
    assert (drawn > 0).all()
    none = np.prod([1 - p for p in chances.values()])
    for kind, p in chances.items():
        share = ((drawn >> KINDS.index(kind)) & 1).mean()
        assert abs(share - p - none * p / sum(chances.values())) < 0.012


@given(st.dictionaries(st.sampled_from(KINDS), st.sampled_from([0.2, 0.7, 1.0]), min_size=1))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_every_way_that_comes_up_is_listed_once(chances):
    names = ways(chances)
    assert len(set(names)) == len(names)
    assert names[: len(chances)] == [kind for kind in KINDS if kind in chances]
    ids = np.arange(300)
    drawn = SecondMaker(2, chances).draw(np.zeros_like(ids), ids)
    assert set(drawn.tolist()) <= {way_bits(name) for name in names}


def test_partners_are_other_photos_of_the_person():
    labels = np.array([0, 0, 0, 0, 2, 5, 5])
    partners = Partners(np.bincount(labels))
    assert np.array_equal(partners.label_of(np.arange(7)), labels)
    ids = np.tile(np.arange(7), 3000)
    epochs = np.repeat(np.arange(3000), 7)
    found = partners.of(0, epochs, ids)
    assert (found[ids == 4] == -1).all()
    some = ids != 4
    assert (labels[found[some]] == labels[ids[some]]).all()
    assert (found[some] != ids[some]).all()
    shares = np.bincount(found[ids == 0], minlength=7)[1:4] / 3000
    assert np.abs(shares - 1 / 3).max() < 0.04


def test_kinds_and_the_other_photo_are_drawn_apart_from_each_other():
    ids, epochs = np.arange(20_000), np.zeros(20_000, np.int64)
    drawn = SecondMaker(4, dict.fromkeys(KINDS, 0.5)).draw(epochs, ids)
    steps = (Partners(np.array([20_000])).of(4, epochs, ids) - ids) % 20_000
    rows = [steps, *((drawn >> place) & 1 for place in range(len(KINDS)))]
    found = np.corrcoef(np.stack(rows)) - np.eye(1 + len(KINDS))
    assert np.abs(found).max() < 5 / np.sqrt(20_000)
    seeds = (0, 1, 4, 128, 2**32, 2**64 - 1)
    others = [SecondMaker(seed, dict.fromkeys(KINDS, 0.5)).draw(epochs, ids) for seed in seeds]
    assert len({each.tobytes() for each in others}) == len(seeds)


def test_only_pose_and_eyes_need_another_photo():
    bits = np.array([way_bits(kind) for kind in KINDS])
    assert [kind for kind, yes in zip(KINDS, needs_partner(bits), strict=True) if yes] == [
        "pose",
        "eyes",
    ]
    assert TAKING_OTHER == ("pose", "eyes")  # the same for packing


def test_a_person_with_one_photo_is_served_too(pack, maker):
    ids = np.arange(6)
    alone = np.full(6, -1, np.int64)
    epochs = np.zeros(6, np.int64)
    drawn = np.full(6, way_bits("pose+eyes"), np.int64)
    out = [np.zeros((6, 112, 112, 3), np.uint8) for _ in range(2)]
    for others, result in zip((pack.images[:6], pack.images[6:12]), out, strict=True):
        rows = pack.rows[:6]
        maker.make(epochs, ids, drawn, pack.images[:6], rows, alone, others, rows, result)
    assert np.array_equal(*out)  # what stands in the place of the partner is not looked at


def test_rows_of_faces_survive_as_integers(frontal):
    face = next(iter(frontal.values()))
    kept = np.frombuffer(face_row(face), np.int64)
    assert FACE_ROW.itemsize == kept.nbytes == 48
    row = face_rows(np.stack([kept, kept]))[1]
    assert np.array_equal(row["points"], face.points)
    assert row["worn"] == worn_of(face)


def test_options_reach_the_compiled_code(pack):
    options = SecondOptions(crop_styles=("cut",), cut=(0.25, 0.25))
    seconds = pack.seconds(SecondMaker(0, {"crop": 1.0}, options), 0, np.arange(8))[0]
    changed = (seconds != pack.images[:8]).any(axis=3).mean(axis=(1, 2))
    assert np.abs(changed - 0.25).max() < 0.02
