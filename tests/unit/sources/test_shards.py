"""Tar shards written by `tarfile`: every form of header, every fault, nothing extracted."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import tracemalloc

import pytest
from written import bad, good, jpeg, outcome, shard

from distill.data.sources.paths import expanded
from distill.data.sources.shards import ShardSource
from distill.errors import UserError

FORMS = [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT]


def simple(count, first=0):
    for i in range(first, first + count):
        yield f"{i:05d}.jpg", jpeg(i)
        yield f"{i:05d}.cls", str(i % 3).encode()


def of(path):
    return ShardSource.at(str(path))


@pytest.mark.parametrize("form", FORMS)
def test_samples_in_order_and_readable_by_workers(tmp_path, form):
    for number in (1, 0):
        shard(tmp_path / f"s-{number}.tar", simple(5, 5 * number), form)
    expected = [(str(i % 3), jpeg(i)) for i in range(10)]
    assert outcome(of(tmp_path)) == expected == outcome(of(tmp_path / "s-{0..1}.tar"))
    samples = list(of(tmp_path))
    assert samples[0].origin == "s-0.tar/00000.jpg"
    sent = pickle.dumps(samples[7])
    assert len(sent) < 500 and pickle.loads(sent).read() == jpeg(7)
    assert of(tmp_path).name == f"tar:{tmp_path.name}/s-0.tar and 1 more"


@pytest.mark.parametrize("form", FORMS[:2])
def test_long_and_odd_names(tmp_path, form):
    names = ["é人" * 40, "a" * 255, "sub/" * 30 + "x", "with\nline", "b'\"", "." * 3 + "x"]
    files = [(f"{name}.png", jpeg(i)) for i, name in enumerate(names)]
    labels = [(f"{name}.txt", f"person {i}".encode()) for i, name in enumerate(names)]
    mixed = [each for pair in zip(files, labels, strict=True) for each in pair]
    found = outcome(of(shard(tmp_path / "a.tar", mixed, form)))
    if form == tarfile.PAX_FORMAT:
        assert [who for who, _ in found[:5]] == [f"person {i}" for i in range(5)]
    assert {what for who, what in found if who} >= {jpeg(i) for i in range(5)}


def test_who_it_is(tmp_path):
    points = [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10.5]]
    told = {
        "a": {".cls": b"7\n", ".json": b'{"label": 3}', ".txt": b"a caption"},
        "b": {".json": json.dumps({"identity": "Zo\u00eb", "landmarks": points}).encode()},
        "c": {".txt": b"  Ann O'Hara\n"},
        "d": {
            ".json": json.dumps(
                {"label": 12, "points": [x for point in points for x in point]}
            ).encode()
        },
    }
    files = [(k + e, v) for k, all_ in told.items() for e, v in [*all_.items(), (".JPG", jpeg(1))]]
    samples = list(of(shard(tmp_path / "a.tar", files)))
    assert [s.identity for s in samples] == ["7", "Zoë", "Ann O'Hara", "12"]
    as_read = tuple((float(x), float(y)) for x, y in points)
    assert [s.landmarks for s in samples] == [None, as_read, None, as_read]


@pytest.mark.parametrize(
    ("ending", "content", "reason"),
    [
        (".cls", b"-1", "not a person's number"),
        (".cls", b"nan", "not a person's number"),
        (".cls", b"9" * 40, "not a person's number"),
        (".cls", "²".encode(), "not a person's number"),
        (".cls", b"", "not a person's number"),
        (".txt", b" ", "is no person"),
        (".txt", b"nan", "is no person"),
        (".txt", b"-3", "no person's number"),
        (".txt", b"x" * 5000, "5000 characters"),
        (".json", b"{", "cannot be read"),
        (".json", b"[" * 100_000, "cannot be read"),
        (".json", b"[1]", "no object"),
        (".json", b"{}", "is no person"),
        (".json", b'{"label": true}', "is no person"),
        (".json", b'{"label": NaN}', "no person's number"),
        (".json", b'{"label": -2}', "no person's number"),
        (".json", b'{"label": 1.5}', "no person's number"),
        (".json", b'{"label": [1]}', "is no person"),
        (".json", b'{"label": -1%s}' % (b"0" * 400), "no person's number"),
        (".json", b'{"label": 1%s}' % (b"0" * 2000), "no person's number"),
        (".json", b'{"label": 1, "landmarks": [1%s]}' % (b"0" * 400), "is no number"),
        (".json", b'{"label": 1, "landmarks": [1, 2]}', "2 numbers, ten are needed"),
        (".json", b'{"label": 1, "landmarks": "x"}', "no number"),
        (".json", b'{"label": 1, "landmarks": [1,2,3,4,5,6,7,8,9,NaN]}', "no place"),
        (".xyz", b"1", "no label"),
    ],
)
def test_labels_that_are_nobody(tmp_path, ending, content, reason):
    files = [("a.jpg", jpeg(0)), (f"a{ending}", content), *simple(1, 4)]
    found = outcome(of(shard(tmp_path / "a.tar", files)))
    assert found[0][0] == "" and reason in found[0][1]
    assert found[1:] == [("1", jpeg(4))]


def test_a_number_of_any_length_is_a_name(tmp_path):
    files = [("a.jpg", jpeg(0)), ("a.json", b'{"label": 18446744073709551615%s}' % (b"0" * 400))]
    assert outcome(of(shard(tmp_path / "a.tar", files))) == [(f"{2**64 - 1}{'0' * 400}", jpeg(0))]


def test_what_macos_writes_before_each_file_is_passed_over(tmp_path):
    """The attributes of x.jpg, as a file ._x.jpg: else no label would stand by its image."""
    files = [(f"people/{name}", content) for name, content in simple(3)]
    doubled = [
        each
        for name, content in files
        for each in ((name.replace("/", "/._"), b"\0\5\x16\7 Mac OS X"), (name, content))
    ]
    expected = [(str(i), jpeg(i)) for i in range(3)]
    assert outcome(of(shard(tmp_path / "a.tar", doubled))) == expected
    on_top = [(name.rpartition("/")[2], content) for name, content in doubled]
    assert outcome(of(shard(tmp_path / "b.tar", on_top))) == expected


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_what_leads_out_is_refused(tmp_path):
    files = [
        ("../up.jpg", jpeg(0)), ("../up.cls", b"1"),
        ("/etc/abs.jpg", jpeg(0)), ("/etc/abs.cls", b"1"),
        ("a/../../b.jpg", jpeg(0)), ("a/../../b.cls", b"1"),
        ("", special("sym.jpg", tarfile.SYMTYPE, "/etc/passwd")), ("sym.cls", b"1"),
        ("", special("hard.jpg", tarfile.LNKTYPE, "00004.jpg")), ("hard.cls", b"1"),
        ("", special("dev.jpg", tarfile.CHRTYPE)), ("dev.cls", b"1"),
        ("", special("pipe.jpg", tarfile.FIFOTYPE)), ("pipe.cls", b"1"),
        ("", special("folder", tarfile.DIRTYPE)),
        *simple(1, 4),
    ]  # fmt: skip
    found = outcome(of(shard(tmp_path / "in" / "a.tar", files)))
    assert [what for who, what in found if who] == [jpeg(4)]
    reasons = [what for who, what in found if not who]
    words = ["leads out"] * 3 + ["a link", "a link", "a device", "a pipe"]
    assert len(reasons) == len(words)
    assert all(word in reason for word, reason in zip(words, reasons, strict=True))
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_groups_that_are_no_sample(tmp_path):
    files = [
        ("a.jpg", jpeg(0)),
        ("b.cls", b"1"),
        ("c.jpg", jpeg(1)), ("c.png", jpeg(2)), ("c.cls", b"1"),
        ("d.jpg", jpeg(1)), ("d.cls", b"1"), ("d.cls", b"2"),
        *[(f"e.x{i}", b"") for i in range(70)], ("e.jpg", jpeg(1)), ("e.cls", b"1"),
        ("f.jpg", jpeg(3)), ("f.cls", b"2"),
        ("a.cls", b"1"),
    ]  # fmt: skip
    found = outcome(of(shard(tmp_path / "a.tar", files)))
    assert good(of(tmp_path)) == [("2", jpeg(3))]
    reasons = [what for who, what in found if not who]
    assert [r.split(" (")[0] for r in reasons] == [
        "no label", "no image", "2 images of one name", "two files d.cls",
        "more than 64 files of one name", "no image",
    ]  # fmt: skip


def test_sizes_are_bounded_before_anything_is_read(tmp_path):
    """Files with holes claim gigabytes; headers too."""
    path = tmp_path / "a.tar"
    info = tarfile.TarInfo("big.jpg")
    info.size = 300 * 2**20
    label = tarfile.TarInfo("big.cls")
    label.size = 2 * 2**20
    with path.open("wb") as file:
        for each in (info, label):
            file.write(each.tobuf())
            file.seek(each.size, io.SEEK_CUR)
        long = tarfile.TarInfo("@LongLink")
        long.type, long.size = tarfile.GNUTYPE_LONGNAME, 2**29
        file.write(long.tobuf())
        file.seek(long.size, io.SEEK_CUR)
        ok = tarfile.TarInfo("x.jpg")
        file.write(ok.tobuf() + bytes(1024))
    tracemalloc.start()
    reasons = bad(of(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "too large (314572800 bytes)" in reasons[0]
    assert "extended header of 536870912 bytes" in reasons[1]
    assert peak < 2**19


def test_negative_sizes_end(tmp_path):
    info = tarfile.TarInfo("a.jpg")
    data = bytearray(info.tobuf())
    data[124:136] = b"\xff" * 12  # base 256: -1
    data[148:156] = b"        "
    data[148:156] = f"{sum(data):06o}\0 ".encode()
    (tmp_path / "a.tar").write_bytes(bytes(data) + bytes(1024))
    assert any("tells of -1 bytes" in reason for reason in bad(of(tmp_path)))


def test_a_header_lost_in_the_middle(tmp_path):
    path = shard(tmp_path / "a.tar", simple(6))
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        at = tar.getmember("00002.jpg").offset
    data[at + 3] ^= 0x55
    path.write_bytes(data)
    found = outcome(of(path))
    assert [each for each in found if each[0]] == [(str(i % 3), jpeg(i)) for i in (0, 1, 3, 4, 5)]
    reasons = [what for who, what in found if not who]
    assert "no tar header at byte" in reasons[0] and reasons[1] == "no image"


def test_cut_at_many_places(tmp_path):
    """Samples before the cut come out whole, and a cut is always told."""
    path = shard(tmp_path / "a.tar", simple(4))
    data = path.read_bytes()
    expected = [(str(i % 3), jpeg(i)) for i in range(4)]
    with tarfile.open(path) as tar:
        last = max(info.offset_data + 512 for info in tar)
    for length in range(1, last + 512, 37):
        path.write_bytes(data[:length])
        found = outcome(of(path))
        whole = [each for each in found if each[0]]
        assert whole == expected[: len(whole)]
        assert any(not who for who, _ in found), length


def test_several_archives_in_one_file(tmp_path):
    """As `cat` makes them: the end mark of the first is no end."""
    one, two = (shard(tmp_path / f"{i}.tar", simple(2, 2 * i)).read_bytes() for i in range(2))
    (tmp_path / "all.tar").write_bytes(one + two)
    assert len(good(of(tmp_path / "all.tar"))) == 4


def test_patterns():
    assert expanded("a-{08..11}.tar") == [f"a-{i:02d}.tar" for i in range(8, 12)]
    assert expanded("{x,y}/{0..1}") == ["x/0", "x/1", "y/0", "y/1"]
    assert expanded("plain") == ["plain"]
    for pattern in ("{0..99999999}", "{5..2}", "{0..9999}{0..9999}"):
        with pytest.raises(UserError):
            expanded(pattern)


def test_mistakes(tmp_path):
    with pytest.raises(UserError, match=r"no \.tar in it"):
        of(tmp_path)
    with pytest.raises(UserError, match="No such file"):
        of(tmp_path / "a-{0..3}.tar")
    (tmp_path / "a.tar").touch()
    with pytest.raises(UserError, match="empty"):
        of(tmp_path)


def test_memory_stays_flat(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for i in range(1500):
            for ending, content in ((".jpg", b"x" * 2000), (".cls", b"1")):
                info = tarfile.TarInfo(f"{i:06d}{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            tar.members.clear()
    tracemalloc.start()
    count = sum(1 for _ in of(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 1500
    assert peak < 2**19
