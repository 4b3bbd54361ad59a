"""CSV lists written by hand and by `csv`: every fault is the row of its line."""

from __future__ import annotations

import csv
import os
import random
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written import bad, good, jpeg, outcome

from distill.data.sources.table import POINT_COLUMNS, TableSource
from distill.errors import UserError


@pytest.fixture
def photos(tmp_path):
    for i in range(4):
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "photos" / f"{i}.jpg").write_bytes(jpeg(i))
    return tmp_path


def table(folder, rows, header=("path", "identity"), name="list.csv", **how):
    with (folder / name).open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, **how)
        writer.writerow(header)
        writer.writerows(rows)
    return folder / name


def test_all_lines_in_order(photos):
    rows = [(f"photos/{i}.jpg", who) for i, who in enumerate(("Zoë, the 1st", "7", "007", "3.0"))]
    source = TableSource.at(table(photos, rows))
    people = ["Zoë, the 1st", "7", "007", "3"]
    assert outcome(source) == [(who, jpeg(i)) for i, who in enumerate(people)] == outcome(source)
    assert [s.origin for s in source] == [path for path, _ in rows]
    assert source.name == "table:list.csv"


def test_other_columns_orders_and_endings(photos):
    path = table(
        photos, [("x", 1, "photos/0.jpg")], ("junk", "Label", "file_name"), "l.tsv", delimiter="\t"
    )
    assert outcome(TableSource.at(path)) == [("1", jpeg(0))]
    path = table(photos, [("1", "photos/0.jpg", "ann")], ("label", "was", "who"))
    assert outcome(TableSource.at(path, None, "was", "who")) == [("ann", jpeg(0))]
    path.write_bytes(b"\xef\xbb\xbfpath,identity\r\nphotos/0.jpg,1\r\n\r\nphotos/1.jpg,2")
    assert [who for who, _ in outcome(TableSource.at(path))] == ["1", "2"]


def test_landmarks(photos):
    rows = [("photos/0.jpg", 1, *range(10)), ("photos/1.jpg", 1, *[""] * 10)]
    rows += [("photos/2.jpg", 1, *range(9), "nan"), ("photos/3.jpg", 1, *range(9), "")]
    source = TableSource.at(table(photos, rows, ("path", "identity", *POINT_COLUMNS)))
    samples = list(source)
    assert samples[0].landmarks == ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9))
    assert samples[1].landmarks is None
    assert ["no place in an image" in r or "no number" in r for r in bad(source)] == [True, True]
    with pytest.raises(UserError, match="9 of the ten"):
        TableSource.at(table(photos, [], ("path", "identity", *POINT_COLUMNS[:9])))


def test_paths_that_lead_out(photos, tmp_path_factory):
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.jpg"
    secret.write_bytes(jpeg(9))
    (photos / "photos" / "link.jpg").symlink_to(secret)
    (photos / "photos" / "inside.jpg").symlink_to(photos / "photos" / "0.jpg")
    (photos / "photos" / "loop.jpg").symlink_to(photos / "photos" / "loop.jpg")
    (photos / "zero").symlink_to("/dev/zero")
    os.mkfifo(photos / "pipe.jpg")
    wrong = [
        "../" + secret.parent.name + "/secret.jpg", str(secret), "photos/link.jpg", "zero",
        "/dev/zero", "pipe.jpg", "photos", "photos/loop.jpg", "", "a" * 300, "x/" * 5000, "a\0b",
        "photos/missing.jpg", "file:///etc/passwd", "~/x",
    ]  # fmt: skip
    source = TableSource.at(table(photos, [(path, "1") for path in [*wrong, "photos/inside.jpg"]]))
    found = outcome(source)
    assert [each for each in found if each[0]] == [("1", jpeg(0))]
    assert len(found) == len(wrong) + 1
    assert sum("leads out" in reason for reason in bad(source)) == 5


def test_no_way_out_behind_a_link_to_itself(photos, tmp_path_factory):
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.jpg"
    secret.write_bytes(jpeg(9))
    (photos / "out").symlink_to(secret.parent)
    (photos / "out.jpg").symlink_to(secret)
    (photos / "loop").symlink_to("loop")
    (photos / "way").symlink_to("loop/../out")
    ways = ["loop/../out/secret.jpg", "loop/../out.jpg", "way/secret.jpg", "loop/x/../../out.jpg"]
    source = TableSource.at(table(photos, [(way, "1") for way in ways]))
    said = ("through a link to itself", "leads out")  # newer Pythons follow what comes behind it
    assert [any(how in reason for how in said) for reason in bad(source)] == [True] * len(ways)


def test_a_root_that_is_given(photos):
    path = table(photos, [("0.jpg", 1), (str(photos / "photos" / "1.jpg"), 1), ("/etc/hosts", 1)])
    source = TableSource.at(path, photos / "photos")
    assert good(source) == [("1", jpeg(0)), ("1", jpeg(1))]
    assert [s.origin for s in source][:2] == ["0.jpg", "1.jpg"]
    with pytest.raises(UserError, match="no such folder"):
        TableSource.at(path, photos / "missing")


@pytest.mark.parametrize("who", ["", " ", "-1", "nan", "NaN", "1.5", "-2.0", "inf", "x" * 2000])
def test_people_that_are_nobody(photos, who):
    found = outcome(TableSource.at(table(photos, [("photos/0.jpg", who), ("photos/1.jpg", "5")])))
    assert found[0][0] == "" and "line 2: label" in found[0][1]
    assert found[1] == ("5", jpeg(1))


def test_lines_that_are_none(photos):
    path = table(photos, [])
    fine = b"photos/0.jpg,1\n"
    path.write_bytes(
        b"path,identity\n" + fine + b"photos/1.jpg\n" + b"a,b,c\n" + b'photos/"1.jpg,2\n'
        b'"photos/1.jpg"x,2\n' + b"y" * 600_000 + b",1\n" + b"\xff\xfe.jpg,2\n" + fine
    )  # fmt: skip
    source = TableSource.at(path)
    assert good(source) == 2 * [("1", jpeg(0))]
    reasons = bad(source)
    assert [r.partition(":")[0] for r in reasons[:2]] == ["line 3", "line 4"]
    assert any("longer than" in r for r in reasons)
    assert [s.origin for s in source][-1] == "photos/0.jpg"


def test_a_quote_that_never_ends_costs_a_bounded_part(photos):
    fine = "photos/0.jpg,1\n" * 10_000
    path = table(photos, [])
    path.write_text("path,identity\n" + fine[: 15 * 10] + '"open\n' + fine)
    found = outcome(TableSource.at(path))
    assert found[:10] == 10 * [("1", jpeg(0))]
    # csv gives up after 131,072 characters, about 8,740 lines.
    assert sum(bool(who) for who, _ in found) > 1_000
    assert any("line 12 to" in str(what) for who, what in found if not who)


def test_mistakes(photos):
    for content, said in [
        ("", "no line of names"),
        ("path\n", "no column identity"),
        ("who,identity\n", "no column path"),
        ("path,path\n", "no line of names"),
        ('"' + "x" * 200_000, "line 1"),
    ]:
        path = photos / "bad.csv"
        path.write_text(content)
        with pytest.raises(UserError, match=said):
            TableSource.at(path)
    path.write_text("path,identity\n")
    assert list(TableSource.at(path)) == []
    with pytest.raises(UserError, match="no column 'nope'"):
        TableSource.at(path, None, "nope")


@settings(max_examples=200, deadline=None)
@given(st.randoms(use_true_random=False))
def test_damaged_files_never_crash(tmp_path_factory, rng):
    folder = tmp_path_factory.mktemp("csv")
    for i in range(3):
        (folder / f"{i}.jpg").write_bytes(jpeg(i))
    path = table(folder, [(f"{i}.jpg", f"the person of number {i}") for i in range(3)])
    data = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(b"path,identity\r\n"), len(data))
        data[at : at + rng.randint(0, 5)] = rng.choice([b'"', b",", b"\n", b"\0", rng.randbytes(3)])
    path.write_bytes(bytes(data))
    for who, image in good(TableSource.at(path)):
        number = [jpeg(i) for i in range(3)].index(image)
        others = [f"the person of number {i}" for i in range(3) if i != number]
        # Two damaged places can make a line of two halves only if its end was damaged too.
        assert who not in others or data.count(b"\n") != 4


def test_memory_stays_flat(photos):
    path = table(photos, ((f"photos/{i % 4}.jpg", i % 7) for i in range(6_000)))
    tracemalloc.start()
    count = sum(1 for _ in TableSource.at(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 6_000
    assert peak < 2**19


def test_names_of_255_bytes_and_of_no_unicode(photos):
    random.seed(1)
    for name in ("é" * 125 + ".jpg", os.fsdecode(b"\xff\xfe.jpg"), "a\nb.jpg"):
        (photos / name).write_bytes(jpeg(7))
        source = TableSource.at(table(photos, [(name, "Ж" * 127)]))
        assert outcome(source) == [("Ж" * 127, jpeg(7))]
