"""`verify` finds what was altered and says where; `forget` removes a person and leaves the rest."""

import csv
import hashlib
import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from told import run, with_tables

from distill.data.forget import forget
from distill.data.manifest import read_pack
from distill.data.pack_writer import write_pack
from distill.data.verify import verify_pack
from distill.errors import UserError


@pytest.fixture
def copy(sharded, tmp_path):
    shutil.copytree(sharded.path, tmp_path / "copy")
    return read_pack(tmp_path / "copy")


def flip(path, place, bit=0):
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


def test_a_good_pack_is_good(sharded, capsys):
    seen = []
    assert verify_pack(sharded, 2, seen.append) == []
    assert sorted(seen) == sorted(shard.bytes for shard in sharded.manifest.shards)
    status, said = run(capsys, "verify", sharded.path)
    assert status == 0
    assert f"53 pairs in {len(sharded.manifest.shards)} shard(s), all as packed" in said


def test_a_flipped_bit_in_an_image_is_named_with_shard_and_pair(copy, capsys):
    shard = copy.index.shards[2]
    flip(shard.path, int(shard.pointers[3, 1]) + 100, 5)
    pair = int(copy.index.starts[2]) + 3
    (fault,) = verify_pack(copy)
    assert (fault.shard, fault.pair) == (shard.path.name, pair)
    assert "second image" in fault.what
    status, said = run(capsys, "verify", copy.path)
    assert status == 1 and f"{shard.path.name}: pair {pair}:" in said


@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_every_flipped_bit_of_a_shard_is_found(data, sharded, tmp_path_factory):
    """Wherever it is: refused when the pack is opened, or found by verify."""
    folder = tmp_path_factory.getbasetemp() / "flipped"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(sharded.path, folder)
    shard = data.draw(st.sampled_from(sharded.manifest.shards))
    flip(
        folder / shard.name,
        data.draw(st.integers(0, shard.bytes - 1)),
        data.draw(st.integers(0, 7)),
    )
    try:
        faults = verify_pack(read_pack(folder))
    except UserError as error:
        assert shard.name in error.what
        return
    assert faults and {fault.shard for fault in faults} == {shard.name}


def test_a_shard_too_many_is_named(copy):
    shutil.copy(copy.index.shards[0].path, copy.path / "pairs-00077.beton")
    (fault,) = verify_pack(copy)
    assert str(fault) == "pairs-00077.beton: not in the manifest: no part of this pack"


# forget


def images_of(pack, label):
    """SHA-256 of the images of one person."""
    found = set()
    for shard in pack.index.shards:
        data = shard.path.read_bytes()
        for row in np.flatnonzero(shard.samples["label"] == label):
            for start, size in zip(shard.pointers[row], shard.sizes[row], strict=True):
                found.add(data[start : start + size])
    return found


def everything(folder):
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_a_forgotten_person_is_gone_and_all_others_stay(copy, capsys):
    with_tables(copy)
    gone = images_of(copy, 2)
    others = {label: images_of(copy, label) for label in (0, 1, 3, 4)}
    assert len(gone) == 22
    status, said = run(capsys, "forget", "person 2", copy.path)
    assert status == 0 and "11 pairs removed" in said
    assert "of all 84 images left none has label 2, and none is one of those removed" in said

    left = everything(copy.path)
    assert not [image for image in gone if image in left]
    assert b"person 2" not in left
    now = read_pack(copy.path, verify_digest=True)
    assert verify_pack(now) == []
    assert {label: images_of(now, label) for label in others} == others
    assert now.manifest.identities == [
        "person 0", "person 1", "(forgotten 1)", "person 3", "person 4",
    ]  # fmt: skip
    assert now.manifest.pairs_per_identity == [11, 11, 0, 10, 10]
    assert (now.manifest.pairs, now.manifest.photographs) == (42, 42)
    assert now.manifest.forgotten == [2]
    assert now.manifest.digest != copy.manifest.digest
    with (now.path / "pairs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    labels = np.concatenate([shard.samples["label"] for shard in now.index.shards])
    assert [row["identity"] for row in rows] == [now.manifest.identities[i] for i in labels]
    assert [int(row["pair"]) for row in rows] == list(range(42))
    assert (now.path / "contact_sheet.png").read_bytes()[:4] == b"\x89PNG"
    assert "d.png" in (now.path / "rejected.csv").read_text()


def test_a_person_is_forgotten_under_either_spelling(jpeg_pairs, tmp_path, capsys):
    composed, apart = "Zo\u00eb", "Zoe\u0308"
    names = [composed, *(f"person {i}" for i in range(1, 5))]
    pack = write_pack(tmp_path / "pack", jpeg_pairs, 53, identities=names, kinds=("blur", "eyes"))
    with_tables(pack)
    (pack.path / "rejected.csv").write_text(
        f"path,reason\n{apart}/a.png,zero bytes\n{composed}/b.png,zero bytes\n"
        f"person 3/b.png,same content as {apart}/c.png\nperson 3/d.png,zero bytes\n"
    )
    status, said = run(capsys, "forget", apart, pack.path)
    assert status == 0 and "11 pairs removed" in said
    left = everything(pack.path)
    assert composed.encode() not in left and apart.encode() not in left
    assert (pack.path / "rejected.csv").read_text().splitlines()[1:] == [
        "person 3/d.png,zero bytes"
    ]


def test_shards_without_the_person_are_not_touched(make_pack, tmp_path):
    """A person in one shard only: the others keep their names and bytes."""
    pack = make_pack(tmp_path / "pack", 3, shard_bytes=1)
    names = {s.name: s.sha256 for s in pack.manifest.shards}
    assert len(names) == 3
    (done,) = forget(["person 1"], pack.path)
    now = {s.name: s.sha256 for s in done.pack.manifest.shards}
    assert len(now) == len(names) - 1 and now.items() <= names.items()


def test_only_images_as_long_as_one_that_went_are_read(make_pack, tmp_path, monkeypatch):
    """The others cannot be one of those; of a large pack they are hundreds of gigabytes."""
    from distill.data import forget as proving
    from distill.data import forget_shards as writing

    pack = make_pack(tmp_path / "pack", 53, shard_bytes=1)
    labels = [int(shard.samples["label"][0]) for shard in pack.index.shards]
    gone = {len(image) for image in images_of(pack, 2)}
    of_length = {
        shard.path for shard in pack.index.shards if gone & set(shard.sizes.ravel().tolist())
    }
    assert labels.count(2) < len(of_length) < len(labels) / 2
    read, real = set(), writing.stored_pair
    for module in (proving, writing):
        monkeypatch.setattr(
            module, "stored_pair", lambda s, row: (read.add(s.path), real(s, row))[1]
        )
    (done,) = forget(["person 2"], pack.path)
    assert read == of_length and done.scanned == 2 * (53 - labels.count(2))


def test_two_are_forgotten_one_after_the_other(copy):
    forget(["person 2"], copy.path)
    (done,) = forget(["person 0"], copy.path)
    assert done.pack.manifest.identities[:3] == ["(forgotten 2)", "person 1", "(forgotten 1)"]
    assert done.pack.manifest.forgotten == [0, 2]


def test_names_that_are_not_there_and_the_last_person(copy):
    with pytest.raises(UserError, match="nobody is called 'person 9'"):
        forget(["person 9"], copy.path)
    for number in (0, 1, 2, 3):
        forget([f"person {number}"], copy.path)
    with pytest.raises(UserError, match="'person 4' is the only person"):
        forget(["person 4"], copy.path)


@pytest.mark.parametrize(
    ("cut_at", "happened"),
    [("write_whole", False), ("filter_table", True), ("_renew_sheet", True), ("_prove", True)],
)
def test_a_forget_that_was_cut_off(copy, tmp_path, monkeypatch, cut_at, happened):
    """Before the manifest is replaced nothing has happened; after it, asking again cleans up."""
    import distill.data.forget as module

    def cut(*_args, **_options):
        raise KeyboardInterrupt

    with_tables(copy)
    shutil.copytree(copy.path, tmp_path / "whole")
    forget(["person 2"], tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(module, cut_at, cut)
        if cut_at == "filter_table":
            patch.setattr(module, "_remove_strays", lambda _: None)
        with pytest.raises(KeyboardInterrupt):
            forget(["person 2"], copy.path)
    now = read_pack(copy.path, verify_digest=True)
    assert ("person 2" in now.manifest.identities) != happened
    assert (b"person 2" in everything(copy.path)) == (cut_at != "_prove")
    if happened:
        # old files that are still there are named
        assert bool(verify_pack(now)) == (cut_at == "filter_table")
        with pytest.raises(UserError, match="nobody is called"):
            forget(["person 2"], copy.path)
    else:
        forget(["person 2"], copy.path)
    assert verify_pack(read_pack(copy.path)) == []
    assert everything(copy.path) == everything(tmp_path / "whole")


def test_one_part_of_two_is_cleaned_where_the_call_before_was_cut_off(copy, tmp_path):
    """The person is in the evaluation part still, and no more in the manifest of the other."""
    for part in ("train", "evaluation"):
        shutil.copytree(copy.path, tmp_path / "out" / part)
        made = with_tables(read_pack(tmp_path / "out" / part))
        (made.path / "rejected.csv").replace(tmp_path / "out" / "rejected.csv")
    train = tmp_path / "out" / "train"
    table = (train / "pairs.csv").read_bytes()
    forget(["person 2"], train)
    (train / "pairs.csv").write_bytes(table)
    (done,) = forget(["person 2"], tmp_path / "out")
    assert done.pack.path.name == "evaluation"
    assert b"person 2" not in everything(tmp_path / "out")


def test_an_image_packed_under_another_name_too_is_found(jpeg_pairs, tmp_path):
    from distill.data.pack_writer import write_pack

    pairs = [jpeg_pairs[0], jpeg_pairs[1], jpeg_pairs[1]._replace(label=0)]
    write_pack(tmp_path / "pack", pairs, 3, identities=["a", "b"], kinds=["blur", "eyes"])
    with pytest.raises(UserError, match="packed under another name"):
        forget(["b"], tmp_path / "pack")


def test_licence_and_purpose_are_in_the_manifest(make_pack, tmp_path):
    about = {"licence": "CC BY 4.0", "purpose_note": "research on ageing, until 2030"}
    pack = make_pack(tmp_path / "pack", 5, **about)
    kept = json.loads((pack.path / "manifest.json").read_text())
    assert {name: kept[name] for name in about} == about
    assert hashlib.sha256(pack.index.shards[0].path.read_bytes()).hexdigest() == (
        pack.manifest.shards[0].sha256
    )
