"""Cosines in pieces: of photographs to everybody, and of every two people."""

from functools import reduce

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.audit import run
from distill.audit.compare import Alike, alike, nearest_others, own_cosines


class Rows:
    """As `Centres`, of a tensor."""

    def __init__(self, weight):
        self._unit = torch.nn.functional.normalize(weight, dim=-1)
        self.shape, self.device = tuple(weight.shape), weight.device

    def rows(self, first, stop):
        return self._unit[first:stop]

    def of_classes(self, classes):
        return self._unit[classes]

    def chosen(self, classes, sub_centres):
        return self._unit[classes, sub_centres]


@pytest.mark.parametrize("at_once", [1, 300, 1 << 24])
def test_pieces_do_not_show(monkeypatch, at_once):
    monkeypatch.setattr("distill.audit.compare.NUMBERS_AT_ONCE", at_once)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(23, 2, 8, generator=generator)
    rows = torch.nn.functional.normalize(torch.randn(9, 8, generator=generator))
    classes = torch.randint(1, 22, (9,), generator=generator)
    rows[:2] = torch.nn.functional.normalize(weight[[0, 22], [1, 0]], dim=-1)  # the ends too
    found = nearest_others(rows, classes, Rows(weight))
    cosines = torch.einsum("nd,ckd->nck", rows, torch.nn.functional.normalize(weight, dim=-1))
    own = cosines[torch.arange(9), classes]
    torch.testing.assert_close(own_cosines(rows, classes, Rows(weight)), own)
    others = cosines.amax(2)
    others[torch.arange(9), classes] = -2
    assert found.classes.tolist() == others.argmax(1).tolist()
    torch.testing.assert_close(found.cosines, others.amax(1))


@pytest.mark.parametrize(
    ("at_once", "held", "ranks"), [(16, 3, 1), (16, 2, 3), (1 << 24, 5, 2), (1 << 24, 1 << 15, 1)]
)
def test_every_two_people_are_compared_once(monkeypatch, at_once, held, ranks):
    monkeypatch.setattr("distill.audit.compare.NUMBERS_AT_ONCE", at_once)
    monkeypatch.setattr("distill.audit.compare.PEOPLE_AT_ONCE", held)
    monkeypatch.setattr("distill.audit.compare.BLOCKS_A_RANK", 1)
    weight = torch.randn(23, 2, 4, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([c for c in range(23) if c % 5])
    which = classes % 2
    unit = torch.nn.functional.normalize(weight[classes, which], dim=-1).double()
    expected = {
        (int(classes[i]), int(classes[j]))
        for i in range(len(classes)) for j in range(i) if unit[i] @ unit[j] > 0.5
    }  # fmt: skip
    settings = {"least_cosine": 0.5, "world_size": ranks}
    parts = [alike(Rows(weight), classes, which, rank=r, limit=999, **settings)
             for r in range(ranks)]  # fmt: skip
    found = [
        pair for part in parts
        for pair in zip(part.seconds.tolist(), part.firsts.tolist(), strict=True)
    ]  # fmt: skip
    assert len(found) == len(set(found)) and set(found) == expected and len(found) > 5
    few = alike(Rows(weight), classes, which, rank=0, limit=3, least_cosine=0.5, world_size=1)
    cosines = sorted(float(unit[i] @ unit[j]) for i in range(len(classes)) for j in range(i))
    assert few.cosines.tolist() == pytest.approx(cosines[:-4:-1])


def test_of_people_who_are_all_alike_a_few_are_kept(monkeypatch):
    """The first by class of equal pairs; never more in memory than some lists and one block."""
    lengths, real = [], Alike.joined
    monkeypatch.setattr("distill.audit.compare.NUMBERS_AT_ONCE", 64)
    monkeypatch.setattr("distill.audit.compare.PEOPLE_AT_ONCE", 8)
    monkeypatch.setattr(
        Alike,
        "joined",
        lambda parts: (lengths.extend(len(p.cosines) for p in parts), real(parts))[1],
    )
    same, classes = torch.eye(4)[:1].repeat(60, 1)[:, None], torch.arange(60)
    settings = {"least_cosine": 0.5, "rank": 0, "world_size": 1, "limit": 10}
    found = alike(Rows(same), classes, torch.zeros(60, dtype=torch.int64), **settings)
    assert found.firsts.tolist() == [0] * 10 and found.seconds.tolist() == list(range(1, 11))
    assert max(lengths) <= 2 * 10 + 64


@settings(max_examples=50, derandomize=True)
@given(st.lists(st.lists(st.sampled_from([0.9, 0.8, 0.7, -0.5]), max_size=6), max_size=5))
def test_pairs_of_two_and_two_ranks_are_those_of_all(cosines_of_ranks):
    """The nearest by brute force, and of equal ones the first by class; -0.5 has a sign bit."""
    limit, number = 4, iter(range(99))
    parts = [
        Alike(torch.tensor(cosines, dtype=torch.float32),
              *torch.tensor([[next(number) % 3, next(number)] for _ in cosines],
                            dtype=torch.int64).view(-1, 2).T)
        for cosines in cosines_of_ranks
    ]  # fmt: skip
    everybody = [
        pair for part in parts for pair in zip(*map(torch.Tensor.tolist, part), strict=True)
    ]
    expected = sorted(everybody, key=lambda pair: (-pair[0], *pair[1:]))[:limit]

    def of_all(mine, merge):  # the first rank's; those of the others come one by one
        return reduce(lambda rows, part: merge(torch.cat([rows, part.rows])), parts, mine)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "merged_on_first", of_all)
        found = run.nearest_of_all(Alike.none(), limit)
        patch.setattr(run, "merged_on_first", lambda mine, merge: None)
        assert not len(run.nearest_of_all(found, limit).cosines)
    assert list(zip(*map(torch.Tensor.tolist, found), strict=True)) == expected
