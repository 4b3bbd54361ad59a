"""Parquet files as pyarrow, pandas and Hugging Face's datasets write them."""

from __future__ import annotations

import json
import random
import sys
import tracemalloc
from dataclasses import replace
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from written import bad, good, jpeg, outcome

from distill.data.pack import PackOptions, pack
from distill.data.sources import parquet_file
from distill.data.sources.parquet import ParquetSource
from distill.errors import UserError

IMAGES = [jpeg(i) for i in range(6)]
PEOPLE = [3, 3, 0, 7, 7, 7]
EXPECTED = [(str(who), image) for who, image in zip(PEOPLE, IMAGES, strict=True)]


def written(path, columns, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **how)
    return path


def of(path, *more, **named):
    return ParquetSource.at(str(path), *more, **named)


KINDS = [pa.binary(), pa.large_binary(), pa.binary_view(), pa.dictionary(pa.int8(), pa.binary())]


@pytest.mark.parametrize("kind", KINDS, ids=["bytes", "large", "view", "dictionary"])
@pytest.mark.parametrize("rows", [1, 2, 100])
def test_bytes_in_order(tmp_path, kind, rows):
    columns = {"label": PEOPLE, "image": pa.array(IMAGES, kind), "junk": list("abcdef")}
    source = of(written(tmp_path / "a.parquet", columns, row_group_size=rows))
    assert outcome(source) == EXPECTED == outcome(source)
    assert source.expected == 6
    assert [s.origin for s in source] == [f"a.parquet/{i}" for i in range(6)]


def test_hugging_face_form_with_names(tmp_path):
    (tmp_path / "far.jpg").write_bytes(jpeg(9))
    images = [{"bytes": image, "path": None} for image in IMAGES[:3]]
    images += [{"bytes": None, "path": "far.jpg"}, {"bytes": None, "path": None}, None]
    names = ["Ann", "", "C", "Bob", "E", "F", "G"]
    features = {"label": {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    table = pa.table({"image": images, "label": [0, 3, 1, 2, 2, 2]}).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    (tmp_path / "data").mkdir()
    pq.write_table(table, tmp_path / "data" / "train-0.parquet")
    found = outcome(of(tmp_path, tmp_path))
    assert found[:2] == [("Ann", IMAGES[0]), ("Bob", IMAGES[1])]
    assert "is no person" in found[2][1]
    assert found[3] == ("C", jpeg(9))
    assert [what for _, what in found[4:]] == 2 * ["no image in the row"]
    pq.write_table(table.set_column(1, "label", pa.array([7] * 6)), tmp_path / "data" / "b.parquet")
    reasons = bad(of(tmp_path / "data" / "b.parquet"))
    assert "the file names 7 people" in reasons[0]


def test_paths_and_several_files(tmp_path):
    for i in range(4):
        (tmp_path / f"{i}.jpg").write_bytes(jpeg(i))
    paths = ["0.jpg", "1.jpg", "../x.jpg", "/etc/hosts", "2.jpg", "3.jpg"]
    for part in (1, 0):
        rows = slice(3 * part, 3 * part + 3)
        columns = {"path": paths[rows], "identity": ["a", "b", "c"]}
        written(tmp_path / f"{part}.parquet", columns)
    found = outcome(of(tmp_path))
    assert [who for who, _ in found] == ["a", "b", "", "", "b", "c"]
    assert found == outcome(of(f"{tmp_path}/{{0..1}}.parquet"))
    assert "leads out" in found[2][1] and "leads out" in found[3][1]


@pytest.mark.parametrize(
    "labels",
    [
        [0, -1, None],
        [0.0, float("nan"), 1.5],
        ["0", "", None],
        ["0", "-4", "nan"],
        [0, -(2**63), -2],
    ],
)
def test_people_that_are_nobody(tmp_path, labels):
    found = outcome(of(written(tmp_path / "a.parquet", {"image": IMAGES[:3], "label": labels})))
    assert found[0] == ("0", IMAGES[0])
    assert all(who == "" and "person" in what for who, what in found[1:])


@pytest.mark.parametrize("kind", [pa.string_view(), pa.dictionary(pa.int8(), pa.string())])
def test_paths_of_any_kind_of_text(tmp_path, kind):
    (tmp_path / "0.jpg").write_bytes(jpeg(0))
    columns = {"path": pa.array(["0.jpg", "../0.jpg"], kind), "identity": pa.array(["a"] * 2, kind)}
    found = outcome(of(written(tmp_path / "a.parquet", columns)))
    assert found[0] == ("a", jpeg(0)) and "leads out" in found[1][1]


def test_people_of_a_data_base_are_decimals(tmp_path):
    labels = [Decimal(0), Decimal(10**25), Decimal("1.5"), Decimal(-1), None]
    kind = pa.decimal128(38, 1)
    columns = {"image": IMAGES[:5], "label": pa.array(labels, kind)}
    found = outcome(of(written(tmp_path / "a.parquet", columns)))
    assert found[:2] == [("0", IMAGES[0]), (str(10**25), IMAGES[1])]
    assert all(who == "" and "person" in what for who, what in found[2:])


def test_landmarks(tmp_path):
    flat, pairs = [float(i) for i in range(10)], [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    for points in (flat, pairs):
        columns = {"image": IMAGES[:3], "label": [0, 0, 0], "landmarks": [points, None, points[:4]]}
        source = of(written(tmp_path / "a.parquet", columns))
        samples = list(source)
        assert samples[0].landmarks == ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9))
        assert samples[1].landmarks is None
        assert "ten are needed" in bad(source)[0]


def test_columns_that_are_missing_or_wrong(tmp_path):
    path = written(tmp_path / "a.parquet", {"image": IMAGES[:1], "who": [1]})
    with pytest.raises(UserError, match=r"no column identity, label.*there are image, who"):
        of(path)
    assert outcome(of(path, identity="who")) == [("1", IMAGES[0])]
    with pytest.raises(UserError, match="no column 'nope'"):
        of(path, image="nope")
    with pytest.raises(UserError, match="no column image"):
        of(written(tmp_path / "b.parquet", {"label": [1]}))
    with pytest.raises(UserError, match="column 'image' holds list"):
        of(written(tmp_path / "b.parquet", {"image": [[1, 2]], "label": [1]}))
    with pytest.raises(UserError, match="column 'image' holds int64"):
        of(written(tmp_path / "b.parquet", {"image": [1], "label": [1]}))


def test_a_later_file_that_is_another(tmp_path):
    written(tmp_path / "0.parquet", {"image": IMAGES[:1], "label": [1]})
    written(tmp_path / "1.parquet", {"image": IMAGES[:1], "other": [1]})
    (tmp_path / "2.parquet").write_bytes(b"PAR1 no PAR1")
    written(tmp_path / "3.parquet", {"image": IMAGES[1:2], "label": [2]})
    source = of(tmp_path)
    found = outcome(source)
    assert [who for who, _ in found] == ["1", "", "", "2"]
    assert "no column 'label'" in found[1][1]
    assert source.expected == 3


def test_files_that_are_none(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    with pytest.raises(UserError, match=r"a\.parquet: .*give a whole parquet file"):
        of(tmp_path / "a.parquet")
    (tmp_path / "a.parquet").write_bytes(b"")
    with pytest.raises(UserError, match="empty"):
        of(tmp_path / "a.parquet")
    empty = written(tmp_path / "a.parquet", {"image": pa.array([], pa.binary()), "label": []})
    assert outcome(of(empty)) == []


def test_a_damaged_page_loses_its_row_group(tmp_path):
    images = [jpeg(i, 112) for i in range(6)]
    columns = {"image": images, "label": PEOPLE}
    how = {"row_group_size": 2, "compression": "none", "write_statistics": False}
    how["write_page_checksum"] = True
    path = written(tmp_path / "a.parquet", columns, **how)
    data = bytearray(path.read_bytes())
    at = data.find(images[2][-60:-20])
    data[at] ^= 0xFF
    path.write_bytes(data)
    found = outcome(of(path))
    left = [(str(PEOPLE[i]), images[i]) for i in (0, 1, 4, 5)]
    assert [each for each in found if each[0]] == left
    (reason,) = bad(of(path))
    assert reason.startswith("2 rows of row group 1: ")
    options = PackOptions(aligned=True, workers=1, kinds={"blur": 1.0}, max_rejected=0.25)
    with pytest.raises(UserError, match=r"a\.parquet: 2 of 6 photographs rejected"):
        pack(of(path), tmp_path / "out", options)
    manifest = pack(of(path), tmp_path / "out", replace(options, max_rejected=0.4)).train.manifest
    assert (manifest.samples_seen, manifest.samples_rejected, manifest.pairs) == (6, 2, 4)


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_file, "MAX_FILE_BYTES", 2**22)
    huge = bytes(2**23)
    path = written(
        tmp_path / "a.parquet",
        {"image": [huge] * 4, "label": [1] * 4},
        compression="zstd",
        use_dictionary=False,
        write_statistics=False,
    )
    assert path.stat().st_size < 2**16
    before = pa.total_allocated_bytes()  # what other tests have left
    tracemalloc.start()
    (reason,) = bad(of(path))
    peak = tracemalloc.get_traced_memory()[1] + pa.total_allocated_bytes() - before
    tracemalloc.stop()
    assert "4 rows of row group 0" in reason and "decompression bomb" in reason
    assert peak < 2**22


def test_damaged_files_never_crash(tmp_path):
    """200 mutated files: rows or reasons, or one clear error where the file does not open."""
    names = [f"the person of number {i}" for i in range(6)]
    path = written(tmp_path / "a.parquet", {"image": IMAGES, "label": names}, row_group_size=3)
    data, rng = path.read_bytes(), random.Random(4)
    people = dict(zip(IMAGES, names, strict=True))
    opened = 0
    for _ in range(200):
        changed = bytearray(data)
        for _ in range(rng.randint(1, 3)):
            # Half of the changes into the description at the end.
            at = (
                rng.randrange(len(data) - 900, len(data))
                if rng.random() < 0.5
                else rng.randrange(len(data))
            )
            changed[at : at + rng.randint(0, 4)] = rng.randbytes(rng.randint(0, 4))
        path.write_bytes(bytes(changed))
        try:
            found = good(of(path))
        except UserError:
            continue
        opened += 1
        for who, image in found:
            assert people.get(image, who) == who or who not in names
    assert opened > 20


def test_without_pyarrow_one_line_says_so(tmp_path, monkeypatch):
    path = written(tmp_path / "a.parquet", {"image": IMAGES, "label": PEOPLE})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"not installed; pip install .*pyarrow"):
        of(path)


def test_memory_stays_flat(tmp_path):
    """100 MB of rows in one row group, read with a small part of that."""
    path = tmp_path / "a.parquet"
    schema = pa.schema([("image", pa.binary()), ("label", pa.int64())])
    rng = random.Random(1)
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        table = pa.table(
            {"image": [rng.randbytes(10_000) for _ in range(10_000)], "label": range(10_000)},
            schema,
        )
        writer.write_table(table, row_group_size=10_000)
    del table
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    peak = count = 0
    for _ in of(path):
        count += 1
        peak = max(peak, pa.total_allocated_bytes() - before)
    traced = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 10_000
    assert traced < 4 * 2**20
    assert peak < 16 * 2**20
