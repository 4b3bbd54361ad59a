"""Opening packs: whole ones are read, damaged and mixed ones refused by name."""

import json
import shutil

import pytest

from distill.data.manifest import read_pack, shard_name
from distill.data.pack_writer import write_pack
from distill.errors import UserError


@pytest.fixture
def copy(small_pack, tmp_path):
    shutil.copytree(small_pack.path, tmp_path / "copy")
    return tmp_path / "copy"


def rewrite(folder, **changes):
    file = folder / "manifest.json"
    content = json.loads(file.read_text())
    for name, value in changes.items():
        content[name] = value
    file.write_text(json.dumps(content))


def test_a_pack_is_read_back(small_pack):
    pack = read_pack(str(small_pack.path), verify_digest=True)
    assert pack == small_pack
    assert pack.manifest.pairs == 53
    assert pack.manifest.pairs_per_identity == [11, 11, 11, 10, 10]
    assert pack.manifest.pairs_per_kind == {"blur": 27, "eyes": 26}
    assert len(pack.index) == 53


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pairs": 52}, "pairs_per_identity: does not add up"),
        ({"format": 3}, "format"),
        ({"identities": ["one", "one"]}, "a name appears twice"),
        ({"pairs": "many"}, "pairs"),
        ({"surprise": 1}, "surprise"),
        ({"shards": []}, "shards"),
        ({"kinds": [], "pairs_per_kind": {}}, "kinds"),
        ({"image_side": 20}, "image_side"),
    ],
)
def test_a_wrong_manifest_is_named(copy, changes, said):
    rewrite(copy, **changes)
    with pytest.raises(UserError, match=said) as caught:
        read_pack(copy)
    assert str(copy) in caught.value.what


def test_a_manifest_that_is_no_json(copy):
    (copy / "manifest.json").write_bytes(b"{")
    with pytest.raises(UserError, match=r"manifest\.json"):
        read_pack(copy)


def change_shard(folder, number=0, **changes):
    file = folder / "manifest.json"
    shards = json.loads(file.read_text())["shards"]
    shards[number] |= changes
    rewrite(folder, shards=shards)


FIRST = "pairs-00000.beton"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bytes": 10}, "its manifest says 10"),
        ({"sha256": "no"}, "sha256"),
        ({"name": "../pairs-00000.beton"}, "not a plain file name"),
        ({"pairs": 0}, "pairs"),
    ],
)
def test_a_wrong_shard_in_a_manifest_is_named(copy, changes, said):
    change_shard(copy, **changes)
    with pytest.raises(UserError, match=said) as caught:
        read_pack(copy)
    assert str(copy) in caught.value.what


def test_no_pack_and_no_beton(tmp_path, copy):
    with pytest.raises(UserError, match="no pack there"):
        read_pack(tmp_path / "nothing")
    (copy / FIRST).unlink()
    with pytest.raises(UserError, match=r"pairs-00000\.beton: No such file"):
        read_pack(copy)


def test_a_truncated_beton(copy):
    with (copy / FIRST).open("r+b") as file:
        file.truncate(3_000_000)
    with pytest.raises(UserError, match="truncated or of another pack"):
        read_pack(copy)


def test_the_beton_of_another_pack(copy, make_pack, tmp_path):
    other = make_pack(tmp_path / "other", 40)
    shutil.copy(other.path / FIRST, copy / FIRST)
    with pytest.raises(UserError, match="another pack"):
        read_pack(copy)
    change_shard(copy, bytes=other.manifest.total_bytes)
    with pytest.raises(UserError, match="other pairs than its manifest knows"):
        read_pack(copy)
    change_shard(copy, ends_sha256="")  # as in a pack of before
    with pytest.raises(UserError, match="holds 40 pairs, its manifest says 53"):
        read_pack(copy)


def test_a_flipped_byte_is_found_by_the_digest(copy):
    data = bytearray((copy / FIRST).read_bytes())
    data[2_200_000] ^= 1
    (copy / FIRST).write_bytes(data)
    read_pack(copy)
    with pytest.raises(UserError, match="SHA-256"):
        read_pack(copy, verify_digest=True)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda a, b: b.unlink(), r"00002\.beton: No such file"),
        (lambda a, b: b.write_bytes(b.read_bytes()[:-1]), r"00002\.beton: .* truncated"),
        (lambda a, b: a.rename(b), r"00001\.beton: No such file"),
    ],
    ids=["deleted", "truncated", "moved"],
)
def test_a_damaged_shard_of_several_is_named(sharded, tmp_path, damage, said):
    shutil.copytree(sharded.path, tmp_path / "copy")
    damage(*(tmp_path / "copy" / shard_name(i) for i in (1, 2)))
    with pytest.raises(UserError, match=said):
        read_pack(tmp_path / "copy")


def test_a_shard_of_a_pack_of_the_same_form_is_no_match(jpeg_pairs, tmp_path):
    """Same size, same pairs, same labels: only the images are others'."""
    packs = []
    for name, turn in (("a", 0), ("b", 1)):
        pairs = [p._replace(label=0, kind=0) for p in jpeg_pairs[turn : turn + 20]]
        packs.append(write_pack(tmp_path / name, pairs, 20, identities=["x"], kinds=["blur"]))
    assert packs[0].manifest.total_bytes == packs[1].manifest.total_bytes
    shutil.copy(packs[1].path / FIRST, packs[0].path / FIRST)
    with pytest.raises(UserError, match=r"00000\.beton: other pairs .* of another pack"):
        read_pack(packs[0].path)


def test_shards_that_were_swapped_are_found_when_opened_and_by_their_digests(sharded, tmp_path):
    """Also where sizes and counts are the same."""
    shutil.copytree(sharded.path, tmp_path / "copy")
    a, b, c = (tmp_path / "copy" / name for name in (shard_name(1), shard_name(2), "c"))
    facts = sharded.manifest.shards
    assert facts[1].pairs == facts[2].pairs  # or they would be told apart sooner
    a.rename(c)
    b.rename(a)
    c.rename(b)
    with pytest.raises(UserError, match=r"00001\.beton: other pairs than its manifest knows"):
        read_pack(tmp_path / "copy")
    unmarked = [{**shard.model_dump(), "ends_sha256": ""} for shard in facts]
    rewrite(tmp_path / "copy", shards=unmarked)
    read_pack(tmp_path / "copy")
    with pytest.raises(UserError, match=r"00001\.beton: its SHA-256"):
        read_pack(tmp_path / "copy", verify_digest=True)


def test_a_pack_of_version_1_still_opens(copy):
    """A single file, `pairs.beton`, its facts in the manifest itself."""
    (copy / FIRST).rename(copy / "pairs.beton")
    file = copy / "manifest.json"
    content = json.loads(file.read_text())
    (facts,) = content.pop("shards")
    new = ("licence", "purpose_note", "forgotten", "second", "kind_chances", "second_options")
    old = {name: value for name, value in content.items() if name not in new}
    old |= {"format": 1, "beton_bytes": facts["bytes"], "beton_sha256": facts["sha256"]}
    file.write_text(json.dumps(old))
    pack = read_pack(copy, verify_digest=True)
    assert [shard.name for shard in pack.manifest.shards] == ["pairs.beton"]
    assert len(pack.index) == 53
