"""The walk over a tar file against `tarfile`, and over files damaged at random."""

from __future__ import annotations

import errno
import io
import random
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written import good, jpeg, outcome, shard

from distill.data.sources.shards import ShardSource, _samples
from distill.data.sources.tar import _pax, members

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


def test_damage_is_called_by_its_place(tmp_path):
    path = shard(tmp_path / "a.tar", [("0.jpg", jpeg(0)), ("0.txt", b"ann"), ("1.jpg", jpeg(1))])
    data = path.read_bytes()
    place = data.index(b"0.txt")
    path.write_bytes(data[:place] + b"\xff" * 512 + data[place + 512 :])
    assert [s.origin for s in of(path)][:2] == ["a.tar/0.jpg", f"a.tar/@{place}"]


@pytest.mark.parametrize(("more", "fits"), [(62, True), (63, False)])
def test_files_of_one_name_are_counted(tmp_path, more, fits):
    files = [("0.jpg", jpeg(0)), ("0.txt", b"ann"), *((f"0.x{i}", b"") for i in range(more))]
    path = shard(tmp_path / "a.tar", files)
    assert outcome(of(path))[0] == (
        ("ann", jpeg(0)) if fits else ("", "more than 64 files of one name")
    )


@pytest.mark.parametrize(("zeros", "whole"), [(0, False), (1, True), (2, True), (20, True)])
def test_one_block_of_zeros_is_an_end(tmp_path, zeros, whole):
    path = shard(tmp_path / "a.tar", [("0.jpg", jpeg(0)), ("0.txt", b"ann")])
    with tarfile.open(path) as tar:
        end = tar.getmembers()[-1].offset_data + 512
    path.write_bytes(path.read_bytes()[:end] + bytes(512 * zeros))
    found = outcome(of(path))
    assert found[0] == ("ann", jpeg(0))
    assert found[1:] == [] if whole else "without its end mark" in found[1][1]


def pax(key: bytes, value: bytes) -> bytes:
    """One record of an extended header: its length, which counts its own digits, first."""
    rest = b" " + key + b"=" + value + b"\n"
    lengths = (n for n in range(len(rest), len(rest) + 5) if len(b"%d" % n + rest) == n)
    return b"%d" % next(lengths) + rest


KEY = st.binary(min_size=1, max_size=120).filter(lambda key: b"=" not in key)


@given(st.lists(st.tuples(KEY, st.binary(max_size=120))), st.binary(max_size=40), st.integers(1, 4))
def test_extended_headers_come_back_and_any_bytes_behind_them_are_damage(told, noise, cut):
    content = b"".join(pax(*each) for each in told)
    assert list(_pax(content)) == told
    assert list(_pax(content + noise))[: len(told)] == told
    if told:
        assert list(_pax(content[:-cut] + noise))[: len(told) - 1] == told[:-1]
    assert list(_pax(b"x" + content)) == list(_pax(b"9" * 9 + content)) == [(b"", b"")]


class Failing(io.BytesIO):
    """A file of which some bytes cannot be read any more."""

    bad = range(0)

    def read(self, size=-1):
        if self.bad and self.tell() < self.bad.stop and self.tell() + size > self.bad.start:
            raise OSError(errno.EIO, "Input/output error")
        return super().read(size)


@pytest.mark.parametrize("form", FORMS)
def test_places_that_the_disk_does_not_give_cost_what_lies_there(tmp_path, monkeypatch, form):
    names = [f"{'far/' * 40}{i}" for i in range(4)]  # long: with headers that are read apart
    if form == tarfile.USTAR_FORMAT:
        names = [str(i) for i in range(4)]
    files = [
        (f"{n}.{e}", c) for n in names for e, c in (("cls", n[-1:].encode()), ("jpg", jpeg(0)))
    ]
    path = shard(tmp_path / "a.tar", files, form)
    data, whole = path.read_bytes(), [(str(i), jpeg(0)) for i in range(4)]
    for place in range(0, len(data), 512):
        file = Failing(data)
        file.bad = range(place, place + 1)
        found = list(_samples(path, "a.tar", file, len(data)))
        told = [(sample.identity, sample.read()) for sample in found if sample.identity]
        assert len(told) >= 3 and set(told) <= set(whole)
        assert [each for each in whole if each in told] == told
        lost = [outcome([sample])[0][1] for sample in found if not sample.identity]
        assert not lost or any("cannot be read" in reason for reason in lost)
        assert len(told) == 4 or lost
