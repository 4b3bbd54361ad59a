"""What a pack counts and shows after somebody was forgotten, against a count by hand."""

import numpy as np
import pytest
from cut_off import killed_at, renames, stopped_at

from distill.data.forget import _sheet_pairs, forget
from distill.data.manifest import read_pack
from distill.data.pack.parts import SHEET_PAIRS
from distill.data.pack_writer import write_pack
from distill.data.verify import verify_pack
from distill.errors import UserError


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


def test_two_processes_cannot_remove_people_from_one_pack_at_a_time(make_pack, tmp_path):
    """The first has written its shards and is about to name them; a second would delete those."""
    folder = make_pack(tmp_path / "pack", shard_bytes=200_000).path
    before = {path.name for path in folder.iterdir()}
    with stopped_at(lambda: forget("person 1", folder), renames(ending="/manifest.json")):
        assert len({path.name for path in folder.glob("*.beton")} - before) >= 2
        with pytest.raises(UserError, match="pack: another process is removing somebody from it"):
            forget("person 4", folder)
    forget("person 4", folder)
    pack = read_pack(folder, verify_digest=True)
    assert verify_pack(pack) == []
    assert pack.manifest.pairs_per_identity == [11, 0, 11, 10, 0]
    assert [path.name for path in folder.glob(".*")] == []


def test_a_killed_process_leaves_no_lock_that_holds(make_pack, tmp_path):
    folder = make_pack(tmp_path / "pack", shard_bytes=200_000).path
    killed_at(lambda: forget("person 1", folder), renames(ending="/manifest.json"))
    assert (folder / ".forget.lock").exists()
    forget("person 1", folder)
    assert verify_pack(read_pack(folder, verify_digest=True)) == []
    assert [path.name for path in folder.glob(".*")] == []
