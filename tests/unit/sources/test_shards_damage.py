"""The walk over a tar file against `tarfile`, and over files damaged at random."""

from __future__ import annotations

import random
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written import good, jpeg, shard

from distill.data.sources.shards import ShardSource
from distill.data.sources.tar import members

FORMS = [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT]


def of(path):
    return ShardSource.at(str(path))


@pytest.mark.parametrize("form", FORMS[:2])
def test_members_are_those_of_tarfile(tmp_path, form):
    rng = random.Random(3)
    names = ["x" * rng.randint(1, 240) + f"{i}" for i in range(40)]
    files = [(name, rng.randbytes(rng.randint(0, 3000))) for name in names]
    path = shard(tmp_path / "a.tar", files, form)
    with tarfile.open(path) as tar, path.open("rb") as file:
        expected = [(m.name, m.offset_data, m.size) for m in tar]
        assert [(m.name, m.offset, m.size) for m in members(file, path.stat().st_size)] == expected


@settings(max_examples=300, deadline=None)
@given(st.randoms(use_true_random=False))
def test_damaged_files_never_mix_people(tmp_path_factory, rng):
    names = [f"somebody with a long name, number {i}" for i in range(4)]
    files = [
        (f"{i}.{e}", c) for i in range(4) for e, c in (("jpg", jpeg(i)), ("txt", names[i].encode()))
    ]
    path = shard(tmp_path_factory.mktemp("tar") / "a.tar", files, rng.choice(FORMS))
    data = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data))
        how = rng.randrange(3)
        if how == 0:
            data[at : at + 4] = rng.randbytes(4)
        elif how == 1:
            data[at:at] = rng.randbytes(rng.choice([1, 512]))
        else:
            del data[at : at + rng.choice([1, 100, 512])]
    path.write_bytes(bytes(data))
    people = {jpeg(i): names[i] for i in range(4)}
    for who, image in good(of(path)):
        # A name whose own letters were damaged is nobody's; it must not be somebody else's.
        assert who == people.get(image, who) or who not in names
