"""Our `.beton` files: FFCV reads them as they are, and damage is found before FFCV sees it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data import beton
from distill.data.beton import ALLOCATION, HEADER, PAIRS, BetonWriter
from distill.data.beton_index import BetonIndex, check_index, open_index
from distill.errors import UserError

STOCK_FFCV = """
import sys
import numpy as np
from ffcv.loader import Loader
from ffcv.reader import Reader
reader = Reader(sys.argv[1])
loader = Loader(sys.argv[1], batch_size=10, num_workers=1, drop_last=False)
parts = [[np.array(field) for field in batch] for batch in loader]
fields = {name: np.concatenate(p) for name, p in zip(reader.field_names, zip(*parts))}
np.savez(sys.argv[2], count=reader.num_samples, page=reader.page_size, **fields)
"""


def read_index(path: Path, *, classes: int, kinds: int) -> BetonIndex:
    """What lies in ``path``, with everything checked but the images themselves."""
    index = open_index(path, layout=PAIRS, side=112)
    check_index(index, classes, kinds)
    return index


@pytest.fixture(scope="module")
def seen_by_ffcv(small_pack, tmp_path_factory):
    """What unpatched FFCV makes of the file (without its minute of compilation)."""
    found = tmp_path_factory.mktemp("stock") / "found.npz"
    env = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    command = [sys.executable, "-c", STOCK_FFCV, str(small_pack.index.shards[0].path), str(found)]
    subprocess.run(command, check=True, env=env, timeout=600, cwd=found.parent)
    return np.load(found)


def test_stock_ffcv_reads_every_field(seen_by_ffcv, jpeg_pairs):
    assert int(seen_by_ffcv["count"]) == len(jpeg_pairs)
    for name in ("first", "second"):
        expected = [
            simplejpeg.decode_jpeg(getattr(pair, name), fastdct=True) for pair in jpeg_pairs
        ]
        assert np.array_equal(seen_by_ffcv[name], np.stack(expected))
    for name in ("label", "kind"):
        expected = [getattr(pair, name) for pair in jpeg_pairs]
        assert seen_by_ffcv[name].ravel().tolist() == expected
    assert int(seen_by_ffcv["page"]) == beton.PAGE_SIZE


def test_samples_never_cross_pages(tmp_path):
    rng = np.random.default_rng(0)
    blobs = [rng.bytes(int(n)) for n in rng.integers(100_000, 900_000, 24)]
    path = tmp_path / "large.beton"
    with BetonWriter(path, 12) as writer:
        for i in range(12):
            writer.append(blobs[2 * i], blobs[2 * i + 1], i, 0)
    index = read_index(path, classes=12, kinds=1)
    data = path.read_bytes()
    for i in range(12):
        pages = set()
        for k in (0, 1):
            start, size = int(index.pointers[i, k]), int(index.sizes[i, k])
            assert data[start : start + size] == blobs[2 * i + k]
            pages |= {start // beton.PAGE_SIZE, (start + size - 1) // beton.PAGE_SIZE}
        assert len(pages) == 1


def test_pairs_that_fill_a_page_to_its_last_byte_are_good(tmp_path):
    rng, half = np.random.default_rng(0), beton.PAGE_SIZE // 2
    blobs = [rng.bytes(half) for _ in range(4)]
    path = tmp_path / "full.beton"
    with BetonWriter(path, 2) as writer:
        writer.append(blobs[0], blobs[1], 0, 0)
        writer.append(blobs[2], blobs[3], 0, 0)
    index, data = read_index(path, classes=1, kinds=1), path.read_bytes()
    assert int((index.pointers + index.sizes).max()) == index.table
    assert [data[at : at + half] for at in index.pointers.ravel()] == blobs


def test_a_pair_larger_than_a_page_is_refused_and_nothing_left(tmp_path):
    with (
        pytest.raises(ValueError, match="does not fit a page"),
        BetonWriter(tmp_path / "a.beton", 1) as writer,
    ):
        writer.append(bytes(beton.PAGE_SIZE), b"x", 0, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_while_writing_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), BetonWriter(tmp_path / "a.beton", 2) as writer:
        writer.append(b"1", b"2", 0, 0)
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_writing_is_deterministic_and_buffers_do_not_grow(tmp_path, jpeg_pairs, monkeypatch):
    monkeypatch.setattr(beton, "_ROWS_BUFFERED", 7)
    for name in ("a", "b"):
        with BetonWriter(tmp_path / name, len(jpeg_pairs)) as writer:
            for pair in jpeg_pairs:
                writer.append(*pair)
            sizes = len(writer._rows), len(writer._page)
            assert sizes == (7 * beton.PAIRS.row.itemsize, beton.PAGE_SIZE)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert len(read_index(tmp_path / "a", classes=5, kinds=2)) == len(jpeg_pairs)


@pytest.fixture(scope="module")
def good(tmp_path_factory, jpeg_pairs):
    """The bytes of a small valid file."""
    path = tmp_path_factory.mktemp("good") / "good.beton"
    with BetonWriter(path, 6) as writer:
        for pair in jpeg_pairs[:6]:
            writer.append(*pair)
    return path.read_bytes()


def header(**changes):
    def change(data):
        array = np.frombuffer(data, HEADER, 1).copy()
        for name, value in changes.items():
            array[name] = value
        return array.tobytes() + data[HEADER.itemsize :]

    return change


def row(place, field, value, part=None):
    def change(data):
        rows = np.frombuffer(data, PAIRS.row, 6, PAIRS.metadata_start).copy()
        (rows[field][part] if part else rows[field])[place] = value
        return (
            data[: PAIRS.metadata_start]
            + rows.tobytes()
            + data[PAIRS.metadata_start + rows.nbytes :]
        )

    return change


def entry(place, part, field, value):
    def change(data):
        start = int(np.frombuffer(data, HEADER, 1)["alloc_table_ptr"][0])
        table = np.frombuffer(data, ALLOCATION, 12, start).reshape(6, 2).copy()
        table[field][place, part] = value
        return data[:start] + table.tobytes()

    return change


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda d: b"", "truncated"),
        (lambda d: d[:500], "truncated"),
        (lambda d: d[:-1], "truncated or altered"),
        (lambda d: d + b"\0" * 24, "truncated or altered"),
        (lambda d: d[: len(d) // 2], "truncated or altered"),
        (header(version=1), "version"),
        (header(num_samples=0), "no pairs"),
        (header(num_samples=2**62), "truncated or altered"),
        (header(page_size=3), "page size"),
        (header(page_size=0), "page size"),
        (header(num_fields=900), "other fields"),
        (header(alloc_table_ptr=2**60), "truncated or altered"),
        (row(2, "label", 5), "label 5 is outside 0 .. 4"),
        (row(2, "label", -1), "label -1 is outside"),
        (row(4, "label", 2**62), "label 46116860184273"),
        (row(1, "kind", 2), "kind 2 is outside 0 .. 1"),
        (row(3, "first", 60000, "width"), "first image is not a 112x112 JPEG"),
        (row(3, "second", 1, "mode"), "second image is not a 112x112 JPEG"),
        (row(0, "first", 2**63, "data_ptr"), "disagree"),
        (row(0, "second", 0, "data_ptr"), "disagree"),
        (entry(4, 1, "sample_id", 3), "disagree"),
        (entry(1, 1, "size", 0), "an image lies outside the data area"),
        (entry(1, 0, "size", beton.PAGE_SIZE + 1), "an image lies outside the data area"),
        (entry(3, 0, "size", 200_000), "images overlap"),
        (entry(5, 1, "size", beton.PAGE_SIZE), "images overlap, or lie outside the data area"),
        (lambda d: d.replace(b"second", b"socond", 1), "other fields"),
        (lambda d: b"MZ" + d[2:], "version"),
    ],
)
def test_damage_is_named(tmp_path, good, damage, said):
    path = tmp_path / "bad.beton"
    path.write_bytes(damage(good))
    with pytest.raises(UserError, match=said) as caught:
        read_index(path, classes=5, kinds=2)
    assert str(path) in caught.value.what
    assert "pack again" in caught.value.fix


def test_a_label_that_is_no_integer_cannot_be_stored(tmp_path, good):
    damaged = row(2, "label", np.float64(1.5).view(np.int64))(good)
    path = tmp_path / "float.beton"
    path.write_bytes(damaged)
    with pytest.raises(UserError, match="outside 0"):
        read_index(path, classes=5, kinds=2)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.beton: cannot be read \(No such file"):
        read_index(tmp_path / "none.beton", classes=5, kinds=2)


def structural(good):
    """Everything but the JPEGs: header, fields, metadata, allocation table."""
    table = int(np.frombuffer(good, HEADER, 1)["alloc_table_ptr"][0])
    return [*range(PAIRS.metadata_start + 6 * PAIRS.row.itemsize), *range(table, len(good))]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_mutated_structure_never_crashes(data, good, tmp_path_factory):
    """Either it is refused, or what is accepted lies within the file and its limits."""
    places = structural(good)
    mutated = bytearray(good)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.sampled_from(places[:24] * 40 + places))
        mutated[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "fuzzed.beton"
    path.write_bytes(mutated)
    try:
        index = read_index(path, classes=5, kinds=2)
    except UserError:
        return
    assert len(index) == 6
    assert (index.pointers + index.sizes <= len(good)).all() and (index.sizes > 0).all()
    assert set(index.samples["label"].tolist()) <= set(range(5))
