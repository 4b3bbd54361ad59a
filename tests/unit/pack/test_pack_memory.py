"""Memory of packing: numbers alone, however many photographs there are."""

import gc
import tracemalloc
from contextlib import closing

import numpy as np
import pytest

from distill.data.pack import photos, sides
from distill.data.pack.build import parts_of, write_rejected
from distill.data.pack.journal import JOURNAL_NAME, Journal, Record
from distill.data.pack.options import PackOptions
from distill.data.pack.photos import survey
from distill.data.pack.sides import alike_groups, split_survey
from distill.data.pack.work import Looked
from distill.data.sources import Sample
from distill.data.workers import Team

PEOPLE, FEW, MANY = 100, 1_000, 4_000


class Photographs:
    name, expected = "drawn", None

    def __init__(self, count):
        self.count = count

    def __iter__(self):
        for i in range(self.count):
            yield Sample(f"person {i % PEOPLE}/photograph {i}.jpg", f"person {i % PEOPLE}", bytes)


def look(photographs, *_):
    """A face for most, without any pixels; every 101st is a copy of the first."""
    found = []
    for row, sample in photographs:
        digest = np.random.default_rng(0 if row % 101 == 0 else row).bytes(32)
        note = "no face found" if row % 10 == 0 else "2 faces, the most prominent taken"
        face = row % 10 != 1
        line = Record(sample.origin, sample.identity, face, digest, note).line()
        found.append(Looked(line, face, digest))
    return found


def hashes(piece, _spool):
    return [int(np.random.default_rng(row).integers(2**63)) for row in piece[1].tolist()]


def peak_bytes(folder, count, options):
    """The most that is in memory from the first photograph to the last plan of a pair."""
    folder.mkdir()
    (folder / "faces.spool").touch()
    source, team = Photographs(count), Team(None, 1)
    gc.collect()
    tracemalloc.start()
    with closing(Journal(folder / JOURNAL_NAME, folder)) as journal:
        found = survey(source, options, journal, folder / "faces.spool", team, lambda _: None)
        split = None
        if options.holdout:
            group_of = alike_groups(found.photos, "", team, lambda _: None)
            split = split_survey(found, group_of, options, lambda _: None)
        write_rejected(found.rejected(), folder, folder)
        planned = sum(sum(1 for _ in p.plans) for p in parts_of(found, split, folder, options))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count > planned / len(options.kinds) > count / 20
    return peak


@pytest.mark.parametrize(
    "chosen",
    [{}, {"holdout": 0.1}, {"holdout": 0.1, "split_by": "identity"}],
    ids=["all", "by image", "by identity"],
)
def test_a_photograph_more_costs_less_than_a_hundred_bytes(tmp_path, monkeypatch, chosen):
    monkeypatch.setattr(photos, "look", look)
    monkeypatch.setattr(sides, "hash_rows", hashes)
    options = PackOptions(**chosen)
    peak_bytes(tmp_path / "first", FEW, options)  # what is loaded once
    few, many = (peak_bytes(tmp_path / str(n), n, options) for n in (FEW, MANY))
    slope = (many - few) / (MANY - FEW)
    print(f"{slope:.0f} bytes a photograph")
    assert 20 < slope < 100
