"""What a pack counts and shows after somebody was forgotten, against a count by hand."""

import json
import shutil

import numpy as np
import pytest
from cut_off import killed_at, renames, stopped_at
from told import run, with_tables

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
    (done,) = forget(["b"], tmp_path / "pack")
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


def contents(folder):
    """What a pack consists of, whatever its shards are called."""
    manifest = json.loads((folder / "manifest.json").read_text())
    shards = [(folder / shard.pop("name")).read_bytes() for shard in manifest["shards"]]
    others = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".csv"}
    return manifest, shards, others, (folder / "contact_sheet.png").read_bytes()


@pytest.mark.parametrize("by_file", [True, False])
def test_several_people_go_as_one_after_the_other(make_pack, tmp_path, capsys, by_file):
    """But each shard is written once: the files that are there in the end have followed."""
    folder = with_tables(make_pack(tmp_path / "pack", shard_bytes=200_000)).path
    shutil.copytree(folder, tmp_path / "singly")
    before = {path.name for path in folder.glob("*.beton")}
    names = ["person 3", "person 0"]
    for name in names:
        forget([name], tmp_path / "singly")
    requests = tmp_path / "requests.txt"
    requests.write_text("\ufeffperson 3\r\n\n person 0 \nperson 3", encoding="utf-8")
    words = ["--names", requests] if by_file else [*names, "person 3"]
    status, said = run(capsys, "forget", *words, folder)
    assert status == 0 and "21 pairs removed" in said, said
    assert "none has one of the labels 3, 0, and none is one of those removed" in said
    assert contents(folder) == contents(tmp_path / "singly")
    now = read_pack(folder, verify_digest=True)
    assert verify_pack(now) == []
    assert now.manifest.pairs_per_identity == [0, 11, 11, 0, 10]
    assert now.manifest.identities[0] == "(forgotten 2)"
    written = {path.name for path in folder.glob("*.beton")} - before
    assert len(written) == len(before), "each was written once, under a new name"


def test_nobody_is_removed_where_one_is_not_known(make_pack, tmp_path, capsys):
    for part in ("train", "evaluation"):
        with_tables(make_pack(tmp_path / "pack" / part))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    asked = ["person 1", "person 9", "person 2", "Zoe\u0308"]
    status, said = run(capsys, "forget", *asked, tmp_path / "pack")
    assert status == 2
    assert "pack: nobody is called 'person 9', 'Zo\u00eb'; nobody was removed; names are in" in said
    everybody = [f"person {i}" for i in range(5)]
    status, said = run(capsys, "forget", *everybody, tmp_path / "pack")
    assert status == 2 and "'person 3', 'person 4' are all in it; delete it" in said
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()} == before


def write_two_parts(folder, jpeg_pairs):
    """Of which `c` alone is in both."""
    for part, names in (("train", ["a", "b", "c"]), ("evaluation", ["c", "d", "e"])):
        pairs = [jpeg_pairs[i]._replace(label=i % 3) for i in range(6)]
        write_pack(folder / part, pairs, 6, identities=names, kinds=("blur", "eyes"))


def test_people_of_whom_each_part_has_others(jpeg_pairs, tmp_path):
    write_two_parts(tmp_path, jpeg_pairs)
    train, evaluation = forget(["e", "c", "a"], tmp_path)
    assert train.pack.manifest.identities == ["(forgotten 2)", "b", "(forgotten 1)"]
    assert evaluation.pack.manifest.identities == ["(forgotten 2)", "d", "(forgotten 1)"]
    assert (train.labels, evaluation.labels) == ([2, 0], [2, 0])


def test_a_list_that_was_cut_off_is_given_again_as_it_was(jpeg_pairs, tmp_path):
    """Killed while the second part is written: the first still knows whom only it has."""
    write_two_parts(tmp_path, jpeg_pairs)
    shutil.copytree(tmp_path, tmp_path.with_name("whole"))
    forget(["a", "c", "e"], tmp_path.with_name("whole"))
    new = tmp_path / "evaluation" / "pairs-00001.beton"
    assert not new.exists()
    killed_at(lambda: forget(["a", "c", "e"], tmp_path), renames(ending=str(new)))
    assert read_pack(tmp_path / "train").manifest.identities == ["a", "b", "c"]
    forget(["a", "c", "e"], tmp_path)
    for part in ("train", "evaluation"):
        made, whole = (
            read_pack(at / part).manifest for at in (tmp_path, tmp_path.with_name("whole"))
        )
        assert made == whole


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"\n \n", "no name in it"), (b"\xff", "not UTF-8"), (None, "No such file")],
)
def test_a_list_of_names_that_is_none(make_pack, tmp_path, capsys, content, told):
    folder = make_pack(tmp_path / "pack", 5).path
    if content is not None:
        (tmp_path / "names").write_bytes(content)
    status, said = run(capsys, "forget", "--names", tmp_path / "names", folder)
    assert status == 2 and f"names: {told}" in said
    status, said = run(capsys, "forget", folder)
    assert status == 2 and "nobody to remove from it; give a name" in said


def test_two_processes_cannot_remove_people_from_one_pack_at_a_time(make_pack, tmp_path):
    """The first has written its shards and is about to name them; a second would delete those."""
    folder = make_pack(tmp_path / "pack", shard_bytes=200_000).path
    before = {path.name for path in folder.iterdir()}
    with stopped_at(lambda: forget(["person 1"], folder), renames(ending="/manifest.json")):
        assert len({path.name for path in folder.glob("*.beton")} - before) >= 2
        with pytest.raises(UserError, match="pack: another process is removing somebody from it"):
            forget(["person 4"], folder)
    forget(["person 4"], folder)
    pack = read_pack(folder, verify_digest=True)
    assert verify_pack(pack) == []
    assert pack.manifest.pairs_per_identity == [11, 0, 11, 10, 0]
    assert [path.name for path in folder.glob(".*")] == []


def test_a_killed_process_leaves_no_lock_that_holds(make_pack, tmp_path):
    folder = make_pack(tmp_path / "pack", shard_bytes=200_000).path
    killed_at(lambda: forget(["person 1"], folder), renames(ending="/manifest.json"))
    assert (folder / ".forget.lock").exists()
    forget(["person 1"], folder)
    assert verify_pack(read_pack(folder, verify_digest=True)) == []
    assert [path.name for path in folder.glob(".*")] == []
