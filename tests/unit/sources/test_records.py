"""Record files against a writer from the format's description, cut and damaged at every byte."""

from __future__ import annotations

import io
import math
import pickle
import random
import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written import (
    EXPECTED,
    IMAGES,
    MAGIC_BYTES,
    PLAIN,
    bad,
    framed,
    good,
    image_record,
    jpeg,
    outcome,
    record_file,
)

from distill.data.images import Unusable
from distill.data.sources import recordio
from distill.data.sources.records import RecordSource
from distill.errors import UserError


@pytest.mark.parametrize("described", [True, False])
@pytest.mark.parametrize("index", [True, False])
def test_all_photographs_in_order(tmp_path, described, index):
    path = record_file(tmp_path, IMAGES, described=described, index=index, people=8)
    source = RecordSource.at(path)
    assert outcome(source) == EXPECTED == outcome(source)
    assert source.expected == (len(IMAGES) if described else None)
    assert source.name == f"records:{tmp_path.name}/train.rec"
    origins = [sample.origin for sample in source]
    assert len(set(origins)) == len(IMAGES)


def test_names_are_the_same_with_and_without_an_index(tmp_path):
    path = record_file(tmp_path, IMAGES)
    names = [s.origin for s in RecordSource.at(path)]
    path.with_suffix(".idx").unlink()
    assert [s.origin for s in RecordSource.at(path)] == names


def test_samples_can_be_sent_to_workers_and_are_small(tmp_path):
    path = record_file(tmp_path, [(0.0, jpeg(1, 900))])
    (sample,) = RecordSource.at(path)
    sent = pickle.dumps(sample)
    assert len(sent) < 1000
    assert pickle.loads(sent).read() == jpeg(1, 900)


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from([MAGIC_BYTES, b"\0", b"ab", b"wxyz", MAGIC_BYTES[:2]])), min_size=1
    )
)
def test_any_content_comes_back(contents):
    joined = [b"".join(pieces) for pieces in contents]
    file = io.BytesIO(b"".join(map(framed, joined)))
    found = list(recordio.scan(file, len(file.getvalue())))
    assert [record.data for record in found] == joined


@settings(deadline=None)
@given(st.lists(st.floats(width=32), min_size=1, max_size=40), st.binary(min_size=1))
def test_label_arrays_of_every_length(tmp_path_factory, labels, image):
    folder = tmp_path_factory.mktemp("rec")
    path = record_file(folder, [(0.0, b"first"), (labels, image)], described=False)
    first = labels[0]
    fine = math.isfinite(first) and first == int(first) and 0 <= first <= 2**24
    found = outcome(RecordSource.at(path))
    assert found[0] == ("0", b"first")
    if fine:
        assert found[1] == (str(int(first)), image)
    else:
        assert found[1][0] == "" and "no person's number" in found[1][1]


@pytest.mark.parametrize("label", [-1.0, math.nan, math.inf, -math.inf, 0.5, 2.0**25, -0.25])
def test_labels_that_are_nobody(tmp_path, label):
    images = [(3.0, PLAIN[0]), (label, PLAIN[1]), ([label, 2.0], PLAIN[2]), (5.0, PLAIN[3])]
    found = outcome(RecordSource.at(record_file(tmp_path, images)))
    assert [who for who, _ in found] == ["3", "", "", "5"]
    assert "no person's number" in found[1][1] and "no person's number" in found[2][1]


def test_a_label_beyond_the_property(tmp_path):
    path = record_file(tmp_path, IMAGES, people=7)
    assert bad(RecordSource.at(path)) == 2 * ["label 7, property has 7 people"]
    (tmp_path / "property").write_text("many,112,112")
    with pytest.raises(UserError, match="not a number of people"):
        RecordSource.at(path)


def test_array_that_says_more_labels_than_there_are(tmp_path):
    content = struct.pack("<IfQQ", 1000, 0.0, 1, 0) + b"abcd"
    (tmp_path / "a.rec").write_bytes(framed(content) + framed(b"short") + framed(b""))
    reasons = bad(RecordSource.at(tmp_path / "a.rec"))
    assert "1000 labels" in reasons[0]
    assert "record of 5 bytes" in reasons[1] and "record of 0 bytes" in reasons[2]


@pytest.mark.parametrize("index", [True, False])
def test_a_header_with_an_image_is_nobody(tmp_path, index):
    contents = [image_record([9.0, 12.0], PLAIN[0]), image_record(4.0, PLAIN[1], 1)]
    (tmp_path / "a.rec").write_bytes(b"".join(map(framed, contents)))
    if index:
        (tmp_path / "a.idx").write_text(f"0\t0\n1\t{len(framed(contents[0]))}\n")
    found = outcome(RecordSource.at(tmp_path / "a.rec"))
    assert found[1] == ("4", PLAIN[1])
    assert found[0][0] == "" and "own description" in found[0][1]


def test_a_header_at_the_end_is_left_out_too(tmp_path):
    contents = [image_record(4.0, PLAIN[1], 1), image_record([2.0, 2.0], b"")]
    (tmp_path / "a.rec").write_bytes(b"".join(map(framed, contents)))
    assert outcome(RecordSource.at(tmp_path / "a.rec")) == [("4", PLAIN[1])]


def test_an_image_that_is_missing(tmp_path):
    path = record_file(tmp_path, [(1.0, b""), (2.0, PLAIN[0])])
    assert outcome(RecordSource.at(path)) == [
        ("", "no image in the record (label 1)"),
        ("2", PLAIN[0]),
    ]


@pytest.mark.parametrize("index", [True, False])
def test_cut_at_any_byte(tmp_path, index):
    images, expected = IMAGES[3:], EXPECTED[3:]
    path = record_file(tmp_path, images, described=False, index=index)
    data = path.read_bytes()
    ends = [0]
    for label, image in images:
        ends.append(ends[-1] + len(framed(image_record(label, image))))
    assert ends[-1] == len(data)
    for length in range(1, len(data)):
        path.write_bytes(data[:length])
        found = outcome(RecordSource.at(path))
        whole = sum(end <= length for end in ends[1:])
        assert found[:whole] == expected[:whole], length
        # Of the one that is cut at most the padding can be missing; then it is whole.
        rest = [each for each in found[whole:] if each != expected[whole]]
        assert index or len(rest) <= 1, length
        assert all(who == "" for who, _ in rest), length
        if length not in ends and length < ends[whole + 1] - 3:
            assert rest, length


def test_wrong_magic_loses_one_record(tmp_path):
    path = record_file(tmp_path, IMAGES, index=False)
    third = [s.origin for s in RecordSource.at(path)][2]
    data = bytearray(path.read_bytes())
    data[int(third.partition("@")[2])] ^= 0xFF
    path.write_bytes(data)
    found = outcome(RecordSource.at(path))
    assert found[:2] + found[3:] == EXPECTED[:2] + EXPECTED[3:]
    assert found[2][0] == "" and "wrong magic" in found[2][1] and "bytes left out" in found[2][1]


def test_records_out_of_step_are_found_again(tmp_path):
    """One byte of the second image lost: everything after it stands at odd places."""
    path = record_file(tmp_path, IMAGES[:4], index=False, described=False)
    data = path.read_bytes()
    cut = len(framed(image_record(*IMAGES[0]))) + 60
    path.write_bytes(data[:cut] + data[cut + 1 :])
    found = outcome(RecordSource.at(path))
    assert found[:1] + found[2:] == EXPECTED[:1] + EXPECTED[2:4]
    assert found[1][0] == "" and "no record ends at byte" in found[1][1]


def test_an_index_with_every_fault(tmp_path):
    path = record_file(tmp_path, IMAGES)
    lines = path.with_suffix(".idx").read_text().splitlines()
    size = path.stat().st_size
    wrong = [
        f"20\t{size}", f"21\t{10**18}", "22\t-4", "23\t2", "24\t8", "nonsense", "", "25\t1\t2",
        "26\t" + "9" * 500, "1.5\t0", "\xff\t0",
    ]  # fmt: skip
    path.with_suffix(".idx").write_text("\n".join(lines[:4] + wrong + lines[4:]), "latin-1")
    found = outcome(RecordSource.at(path))
    assert [each for each in found if each[0]] == EXPECTED
    reasons = [what for who, what in found if not who]
    assert len(reasons) == len(wrong)
    assert "line 5 of the index: points at byte" in reasons[0] and "past the end" in reasons[0]
    assert "wrong magic" in reasons[4]


@pytest.mark.parametrize("described", [True, False])
def test_what_an_index_that_was_cut_off_does_not_name_is_read_all_the_same(tmp_path, described):
    """At every byte of it; the number that was cut may be the place of another record by chance."""
    path = record_file(tmp_path, IMAGES, described=described)
    names = [sample.origin for sample in RecordSource.at(path)]
    index = path.with_suffix(".idx").read_bytes()
    for length in range(len(index)):
        path.with_suffix(".idx").write_bytes(index[:length])
        source = RecordSource.at(path)
        good = dict.fromkeys(each for each in outcome(source) if each[0])
        assert list(good) == EXPECTED, length
        origins = [sample.origin for sample in source]
        assert [name for name in dict.fromkeys(origins) if name in names] == names
        assert len(origins) <= len(names) + 1


def test_a_subset_with_a_hole_stays_one(tmp_path):
    path = record_file(tmp_path, IMAGES)
    lines = path.with_suffix(".idx").read_text().splitlines(keepends=True)
    path.with_suffix(".idx").write_text("".join(lines[:3] + lines[5:]))
    assert outcome(RecordSource.at(path)) == EXPECTED[:2] + EXPECTED[4:]


def test_files_that_are_none(tmp_path):
    (tmp_path / "empty.rec").touch()
    with pytest.raises(UserError, match=r"empty \(zero bytes\)"):
        RecordSource.at(tmp_path / "empty.rec")
    with pytest.raises(UserError, match="No such file"):
        RecordSource.at(tmp_path / "missing.rec")
    (tmp_path / "zeros.rec").write_bytes(bytes(100_000))
    reasons = bad(RecordSource.at(tmp_path / "zeros.rec"))
    assert reasons == ["wrong magic 0x00000000 at byte 0; 100000 bytes left out"]


def test_a_file_that_changes_after_it_was_listed(tmp_path):
    path = record_file(tmp_path, IMAGES)
    samples = list(RecordSource.at(path))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(Unusable):
        samples[-1].read()
    path.unlink()
    with pytest.raises(Unusable, match="No such file"):
        samples[0].read()


def test_a_record_that_is_too_large_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(recordio, "MAX_RECORD_BYTES", 2**20)
    with (tmp_path / "a.rec").open("wb") as file:
        file.write(MAGIC_BYTES + struct.pack("<I", 2**24))
        file.seek(2**24 + 8)
        file.write(framed(image_record(1.0, PLAIN[0])))
    tracemalloc.start()
    found = outcome(RecordSource.at(tmp_path / "a.rec"))
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    assert found[1] == ("1", PLAIN[0])
    assert "larger than" in found[0][1]


@pytest.mark.parametrize("step", [8, 9, 12])
def test_heads_all_over_take_no_time(tmp_path, step):
    """Each of 25,000 heads claims most of the file; reading each of them would take hours."""
    size = 25_000 * step
    head = MAGIC_BYTES + struct.pack("<I", size // 2) + bytes(4)
    (tmp_path / "a.rec").write_bytes((head[:step].ljust(step, b"\0")) * 25_000)
    assert good(RecordSource.at(tmp_path / "a.rec")) == []


def test_memory_stays_flat(tmp_path):
    """20 MB of records in less than 1 MB, with and without an index of 20,000 lines."""
    record = framed(image_record(1.0, random.Random(1).randbytes(1000)))
    path = tmp_path / "train.rec"
    path.write_bytes(record * 5_000)
    for index in (False, True):
        if index:
            lines = (f"{i + 1}\t{i * len(record)}\n" for i in range(5_000))
            path.with_suffix(".idx").write_text("".join(lines))
        tracemalloc.start()
        count = sum(1 for _ in RecordSource.at(path))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == 5_000
        assert peak < 2**19
