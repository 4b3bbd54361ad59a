"""Record files with bytes changed, put in and taken out at random: a fixed number of cases."""

from __future__ import annotations

import io
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written import EXPECTED, IMAGES, MAGIC_BYTES, framed, good, image_record, outcome, record_file

from distill.data.sources.recordio import scan
from distill.data.sources.records import RecordSource


def changed_bytes(data: bytes, rng: random.Random) -> tuple[bytes, set[int]]:
    """Some bytes overwritten; which."""
    out, touched = bytearray(data), set()
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out))
        value = rng.choice([b"\0", b"\xff", rng.randbytes(4), MAGIC_BYTES, rng.randbytes(20)])
        end = min(at + len(value), len(out))
        out[at:end] = value[: end - at]
        touched |= set(range(at, end))
    return bytes(out), touched


@pytest.mark.parametrize("index", [True, False])
def test_overwritten_bytes_harm_only_their_records(tmp_path, index):
    """300 damaged files: no crash, and what was not touched comes out with its person, in order."""
    path = record_file(tmp_path, IMAGES, described=False, index=index)
    data = path.read_bytes()
    sizes = [len(framed(image_record(*each))) for each in IMAGES]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    rng = random.Random(5)
    for _ in range(300):
        changed, touched = changed_bytes(data, rng)
        path.write_bytes(changed)
        found = good(RecordSource.at(path))
        # With its head, the record behind would say that this one goes on.
        kept = [
            expected
            for expected, start, size in zip(EXPECTED, starts, sizes, strict=True)
            if not touched & set(range(start, start + size + 8))
        ]
        places = iter(found)
        assert all(each in places for each in kept), sorted(touched)


@settings(max_examples=300, deadline=None)
@given(st.randoms(use_true_random=False))
def test_bytes_put_in_and_taken_out_never_crash(tmp_path_factory, rng):
    path = record_file(tmp_path_factory.mktemp("rec"), IMAGES[:4], index=rng.random() < 0.5)
    data = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 5)):
        at = rng.randrange(len(data))
        if rng.random() < 0.5:
            data[at:at] = rng.choice([MAGIC_BYTES, rng.randbytes(3), rng.randbytes(40)])
        else:
            del data[at : at + rng.randint(1, 60)]
        data = data or bytearray(b"\0")
    path.write_bytes(bytes(data))
    allowed = set(EXPECTED[:4])
    whole = [
        each for each in good(RecordSource.at(path)) if each[1] in dict(allowed_images(allowed))
    ]
    assert set(whole) <= allowed


def allowed_images(pairs):
    return [(image, who) for who, image in pairs]


@settings(max_examples=300, deadline=None)
@given(st.randoms(use_true_random=False))
def test_records_and_gaps_tile_the_file(tmp_path_factory, rng):
    """Every byte is in one of them, in order: nothing is lost untold, nor told twice."""
    path = record_file(tmp_path_factory.mktemp("rec"), IMAGES[:4], index=False)
    data = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data))
        if rng.random() < 0.5:
            data[at : at + rng.randint(0, 9)] = rng.choice([MAGIC_BYTES, rng.randbytes(7)])
        else:
            del data[at : at + rng.randint(1, 60)]
    found = list(scan(io.BytesIO(data), len(data)))
    assert [each.offset for each in found] == [0, *(each.end for each in found[:-1])]
    assert found[-1].end == len(data)


@pytest.mark.parametrize("index", [True, False])
def test_a_record_whose_length_swallows_the_next_is_told_and_the_next_is_not_lost(tmp_path, index):
    path = record_file(tmp_path, IMAGES[:4], described=False, index=index)
    data = bytearray(path.read_bytes())
    sizes = [len(framed(image_record(*each))) for each in IMAGES[:2]]
    data[4:8] = (sum(sizes) - 8).to_bytes(4, "little")
    path.write_bytes(data)
    found = outcome(RecordSource.at(path))
    assert found[0][0] == "" and "another record begins at byte" in found[0][1]
    assert found[1:] == EXPECTED[1:4]
