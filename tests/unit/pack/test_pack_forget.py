"""What a pack counts and shows after somebody was forgotten, against a count by hand."""

import numpy as np

from distill.data.forget import _sheet_pairs, forget
from distill.data.manifest import read_pack
from distill.data.pack.parts import SHEET_PAIRS
from distill.data.pack_writer import write_pack


def test_an_evaluation_pack_loses_photographs_with_all_of_their_pairs(jpeg_pairs, tmp_path):
    kinds, people = ("blur", "eyes", "pose"), [0, 1, 1, 0, 2, 1, 2]
    pairs = [
        jpeg_pairs[2 * i]._replace(first=jpeg_pairs[i].first, label=label, kind=kind)
        for i, label in enumerate(people)
        for kind in range(3)
    ]
    names = ["a", "b", "(forgotten 1)"]  # as somebody may be called
    write_pack(tmp_path / "pack", pairs, 21, identities=names, kinds=kinds, photographs=7,
               purpose="evaluation")  # fmt: skip
    (done,) = forget("b", tmp_path / "pack")
    manifest = read_pack(tmp_path / "pack", verify_digest=True).manifest
    assert (done.pairs, manifest.pairs, manifest.photographs) == (9, 12, 4)
    assert manifest.pairs_per_kind == dict.fromkeys(kinds, 4)
    assert manifest.identities == ["a", "(forgotten 2)", "(forgotten 1)"]


def test_a_new_contact_sheet_shows_a_few_people_of_each_single_kind(jpeg_pairs, tmp_path):
    draw = np.random.default_rng(3)
    kinds, count = ("blur", "eyes", "pose", "blur+eyes"), 40
    pairs = [
        jpeg_pairs[i]._replace(label=int(draw.integers(9)), kind=int(kind))
        for i, kind in enumerate(draw.choice(4, count, p=[0.5, 0.3, 0.1, 0.1]))
    ]
    names = [f"person {i}" for i in range(9)]
    pack = write_pack(
        tmp_path / "pack", pairs, count, identities=names, kinds=kinds, shard_bytes=100_000
    )
    assert len(pack.manifest.shards) > 1
    expected = [[], [], []]
    for pair in pairs:
        if pair.kind < 3 and pair.label not in [one.label for one in expected[pair.kind]]:
            expected[pair.kind].append(pair)
    shown = list(_sheet_pairs(pack))
    for kind, wanted in enumerate(expected):
        found = [(one.first, one.second) for one in shown if one.kind == kinds[kind]]
        assert found == [(pair.first, pair.second) for pair in wanted[:SHEET_PAIRS]]
    assert len(expected[0]) > SHEET_PAIRS > len(expected[2]) > 0
    assert {one.kind for one in shown} == set(kinds[:3])
