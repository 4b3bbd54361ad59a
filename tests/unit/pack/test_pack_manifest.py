"""Opening packs: whole ones are read, damaged and mixed ones refused by name."""

import json
import shutil

import pytest

from distill.data.manifest import read_pack
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
    assert len(pack.index()) == 53


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pairs": 52}, "pairs_per_identity: does not add up"),
        ({"format": 2}, "format"),
        ({"identities": ["one", "one"]}, "a name appears twice"),
        ({"pairs": "many"}, "pairs"),
        ({"surprise": 1}, "surprise"),
        ({"beton_bytes": 10}, "its manifest says 10"),
        ({"kinds": [], "pairs_per_kind": {}}, "kinds"),
        ({"beton_sha256": "no"}, "beton_sha256"),
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


def test_no_pack_and_no_beton(tmp_path, copy):
    with pytest.raises(UserError, match="no pack there"):
        read_pack(tmp_path / "nothing")
    (copy / "pairs.beton").unlink()
    with pytest.raises(UserError, match=r"pairs\.beton: No such file"):
        read_pack(copy)


def test_a_truncated_beton(copy):
    with (copy / "pairs.beton").open("r+b") as file:
        file.truncate(3_000_000)
    with pytest.raises(UserError, match="truncated or of another pack"):
        read_pack(copy)


def test_the_beton_of_another_pack(copy, make_pack, tmp_path):
    other = make_pack(tmp_path / "other", 40)
    shutil.copy(other.beton, copy / "pairs.beton")
    with pytest.raises(UserError, match="another pack"):
        read_pack(copy)
    rewrite(copy, beton_bytes=other.manifest.beton_bytes)
    with pytest.raises(UserError, match="holds 40 pairs, its manifest says 53"):
        read_pack(copy)


def test_a_flipped_byte_is_found_by_the_digest(copy):
    data = bytearray((copy / "pairs.beton").read_bytes())
    data[2_200_000] ^= 1
    (copy / "pairs.beton").write_bytes(data)
    read_pack(copy)
    with pytest.raises(UserError, match="SHA-256"):
        read_pack(copy, verify_digest=True)
