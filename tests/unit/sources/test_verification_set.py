"""Verification sets pickled by Python itself, and pickles that would do something else."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written import jpeg

from distill.data.images import Unusable
from distill.data.verification_set import read_verification_set
from distill.errors import UserError

IMAGES = [jpeg(i) for i in range(3)] + [b"", b"x" * 255, b"y" * 256, jpeg(7, 200), b"last"]
SAME = [True, False, False, True]


def at(folder, data):
    path = folder / "set.bin"
    path.write_bytes(data)
    return path


def read(path):
    found = read_verification_set(path)
    return [found.image(i) for i in range(len(found.images))], found.same


def old_pickle(images, same):
    """Protocol 2 as Python 2 wrote it, with its `str`: the form of lfw.bin."""
    out = b"\x80\x02]q\x01("
    for number, image in enumerate(images, 2):
        short = len(image) < 256
        out += b"U" + bytes([len(image)]) if short else b"T" + struct.pack("<i", len(image))
        out += image + b"r" + struct.pack("<I", number)
    out += b"e]q\x63(" + b"".join(b"\x88" if each else b"\x89" for each in same)
    return out + b"e\x86q\x64."


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_every_protocol(tmp_path, protocol):
    path = at(tmp_path, pickle.dumps((IMAGES, SAME), protocol))
    assert read(path) == (IMAGES, SAME)


def test_the_form_of_python_2(tmp_path):
    data = old_pickle(IMAGES, SAME)
    assert pickle.loads(data, encoding="bytes") == (IMAGES, SAME)
    assert read(at(tmp_path, data)) == (IMAGES, SAME)


def test_one_image_that_stands_in_many_pairs(tmp_path):
    images = [IMAGES[0], IMAGES[1]] * 2000  # pickled once each, then recalled
    path = at(tmp_path, pickle.dumps((images, [True, False] * 1000)))
    assert path.stat().st_size < 20_000 + sum(map(len, IMAGES[:2]))
    assert read(path) == (images, [True, False] * 1000)


@settings(deadline=None)
@given(st.lists(st.tuples(st.binary(), st.binary(), st.booleans()), min_size=1), st.integers(3, 5))
def test_any_bytes(tmp_path_factory, pairs, protocol):
    images = [image for one, other, _ in pairs for image in (one, other)]
    same = [same for _, _, same in pairs]
    data = pickle.dumps((images, same), protocol)
    assert read(at(tmp_path_factory.mktemp("bin"), data)) == (images, same)


class Harm:
    def __reduce__(self):
        return os.system, ("touch harmed",)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_nothing_is_ever_run(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    for value in (Harm(), ([Harm()], [True]), ([b"a", b"b"], [Harm()])):
        path = at(tmp_path, pickle.dumps(value, protocol))
        with pytest.raises(UserError, match=r"no verification set: (instruction|damaged)"):
            read_verification_set(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set.bin"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (([], []), "0 images for 0 pairs"),
        (([b"a", b"b"], [True, False]), "2 images for 2 pairs"),
        (([b"a", "b"], [True]), "instruction"),
        (([b"a", 3], [True]), "where a truth value should be"),
        (([b"a", b"b"], [2]), "where a truth value should be"),
        (([b"a", b"b"], [-1]), "where a truth value should be"),
        (([b"a", True], [True]), "no list of bytes"),
        (([b"a", b"b"], [b"c"]), "no list of truth values"),
        (([[b"a"], b"b"], [True]), "other than bytes"),
        ({"a": 1}, "instruction EMPTY_DICT"),
        ([b"a", b"b"], "not two lists"),
        (b"a", "not two lists"),
        (([b"a", b"b"], [True], [], []), "not two lists"),
        (1.5, "instruction BINFLOAT"),
        (([b"a", b"b"], [None]), "instruction NONE"),
    ],
)
def test_other_values(tmp_path, value, said):
    with pytest.raises(UserError, match=said):
        read_verification_set(at(tmp_path, pickle.dumps(value, 4)))


def test_lengths_that_are_not_there(tmp_path):
    for data in (
        b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc",
        b"\x80\x04\x8e" + struct.pack("<Q", 2**64 - 1),
        b"\x80\x04B" + struct.pack("<I", 2**32 - 1) + b"abc",
        b"\x80\x04T" + struct.pack("<i", -1) + b"abc",
        b"\x80\x04h\x05.", b"\x80\x04e.", b"\x80\x04]e.", b".", b"", b"(", b"\x80\x04]",
        b"\x80\x04I" + b"1" * 5000 + b"\n.", b"\x80\x04\x86.", b"\xff\xfe",
    ):  # fmt: skip
        tracemalloc.start()
        with pytest.raises(UserError, match="no verification set"):
            read_verification_set(at(tmp_path, data))
        assert tracemalloc.get_traced_memory()[1] < 2**20
        tracemalloc.stop()
    with pytest.raises(UserError, match="No such file"):
        read_verification_set(tmp_path / "missing.bin")


def test_cut_at_any_byte(tmp_path):
    data = pickle.dumps((IMAGES[2:6], SAME[:2]))
    for length in range(len(data)):
        with pytest.raises(UserError) as caught:
            read_verification_set(at(tmp_path, data[:length]))
        assert ("the file is empty" in str(caught.value)) is (length == 0)


@settings(max_examples=400, deadline=None)
@given(st.randoms(use_true_random=False))
def test_damaged_files(tmp_path_factory, rng):
    """A set or one clear error; and a set that is read is the one that Python would read."""
    data = bytearray(rng.choice([old_pickle(IMAGES, SAME), pickle.dumps((IMAGES, SAME))]))
    for _ in range(rng.randint(1, 4)):
        # Most changes where instructions are: the start, and the end with the truth values.
        at_ = rng.choice([rng.randrange(30), rng.randrange(len(data) - 30, len(data))])
        at_ = at_ if rng.random() < 0.7 else rng.randrange(len(data))
        data[at_ : at_ + rng.randint(0, 2)] = rng.randbytes(rng.randint(0, 2))
    path = at(tmp_path_factory.mktemp("bin"), bytes(data))
    try:
        images, same = read(path)
    except UserError:
        return
    # Safe, since only harmless instructions are left. In Python, for the C code's memo takes memory
    # for the largest number in it.
    try:
        as_python = pickle._Unpickler(io.BytesIO(bytes(data)), encoding="bytes").load()
    except (pickle.UnpicklingError, EOFError, ValueError):
        return
    assert (images, same) == as_python


def test_memory_holds_places_only(tmp_path):
    rng = random.Random(1)
    path = at(tmp_path, pickle.dumps(([rng.randbytes(20_000) for _ in range(2000)], [True] * 1000)))
    tracemalloc.start()
    found = read_verification_set(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.images) == 2000
    assert peak < 2**21


def test_a_file_that_changes(tmp_path):
    path = at(tmp_path, pickle.dumps((IMAGES, SAME)))
    found = read_verification_set(path)
    path.write_bytes(b"")
    with pytest.raises(Unusable, match="shorter"):
        found.image(0)
