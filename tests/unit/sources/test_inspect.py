"""`pairdistill inspect` over every source, against counts made by hand."""

from __future__ import annotations

import io
import json
import pickle
import tracemalloc

import pytest
from PIL import Image
from typer.testing import CliRunner
from written import jpeg, record_file

from distill.cli.app import build_app
from distill.data.inspect import Inspection, inspect
from distill.data.sources import held
from distill.data.sources.folder import FolderSource
from distill.data.sources.open import open_source


def saved(image, kind):
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


@pytest.fixture
def records(tmp_path):
    images = [(0.0, jpeg(i)) for i in range(4)] + [(5.0, jpeg(10)), (9.0, jpeg(11, 48))]
    images += [(9.0, saved(Image.new("L", (40, 20)), "PNG")), (9.0, jpeg(0)), (-1.0, jpeg(5))]
    images += [(9.0, jpeg(7)[:-200]), (9.0, b"no image"), (float("nan"), jpeg(6))]
    return record_file(tmp_path / "set", images)


def told(*words):
    result = CliRunner().invoke(build_app(), ["inspect", *map(str, words)])
    return result.exit_code, result.stdout


def test_json_counts_everything(records):
    status, said = told(records.parent, "--json", "--min-images", 2)
    found = json.loads(said)
    assert status == 0
    assert found["source"] == "records:set/train.rec"
    assert (found["photographs"], found["damaged"], found["people"]) == (12, 4, 3)
    assert found["duplicates"] == 1
    assert found["images_a_person"] == {"1": 1, "2": 0, "3 .. 4": 2}
    assert found["people_with_fewer_first"] == ["5"]
    assert found["sizes"] == {"32x32": 6, "48x48": 1, "40x20": 1}
    assert found["colour"] == {"RGB JPEG": 7, "L PNG": 1}
    reasons = " ".join(found["damage"])
    for word in ("no person's number", "truncated or damaged JPEG", "not an image"):
        assert word in reasons
    assert sum(found["damage"].values()) == 4 == len(found["damaged_first"])


def test_quick_reads_headers_only(records):
    quick = json.loads(told(records, "--json", "--quick")[1])
    assert (quick["damaged"], quick["photographs"]) == (3, 12)


def test_the_terminal_shows_a_histogram(records):
    status, said = told(records)
    assert status == 0
    assert "12 photographs of 3 people" in said
    assert "1 people with fewer than 2 photographs: 5" in said
    assert "1 x truncated or damaged JPEG" in said and "#" not in said
    bars = {line.split()[0]: line.count("█") for line in said.splitlines() if "█" in line}
    assert bars["32x32"] == 40 and bars["48x48"] == round(40 / 6)


def test_a_verification_set(tmp_path):
    images = [jpeg(0), jpeg(1), jpeg(2), b"no image"]
    (tmp_path / "lfw.bin").write_bytes(pickle.dumps((images, [True, False])))
    said = told(tmp_path / "lfw.bin")[1].splitlines()
    assert said[0] == "lfw.bin: 2 pairs, 1 of one person"
    assert said[1:3] == ["  10 runs, which the published accuracy is the mean of",
                         "  1 of 4 images damaged"]  # fmt: skip
    assert said[3].startswith("    image 3 (pair 1): not an image")
    found = json.loads(told(tmp_path / "lfw.bin", "--json")[1])
    assert (found["pairs"], found["same"], found["damaged"], found["folds"]) == (2, 1, 1, 10)


def test_a_folder_of_sets_and_one_of_photographs_beside_them(records, tmp_path):
    for folder in (tmp_path / "alone", records.parent):
        folder.mkdir(exist_ok=True)
        for name in ("lfw", "agedb_30"):
            (folder / f"{name}.bin").write_bytes(pickle.dumps(([jpeg(0)] * 4, [True, False])))
    sets = json.loads(told(tmp_path / "alone", "--json")[1])["sets"]
    assert [(one["set"], one["pairs"]) for one in sets] == [("agedb_30.bin", 2), ("lfw.bin", 2)]
    result = CliRunner().invoke(build_app(), ["inspect", str(records.parent)])
    assert "12 photographs of 3 people" in result.stdout
    assert "lfw.bin" not in result.stdout
    assert "`evaluate` reads; name it to look into it: agedb_30.bin, lfw.bin" in result.stderr


def test_mistakes_are_one_error(tmp_path):
    from distill.errors import UserError

    result = CliRunner().invoke(build_app(), ["inspect", str(tmp_path / "missing")])
    assert isinstance(result.exception, UserError)
    assert "no such file or folder" in str(result.exception)


class Many:
    """Photographs that are made while they are read."""

    name, expected = "many", None

    def __init__(self, count):
        self.count = count

    def __iter__(self):
        data = jpeg(1)
        for i in range(self.count):
            yield held(f"{i}", str(i % 5), data + i.to_bytes(4, "little"))


def test_memory_grows_by_a_digest_a_photograph():
    inspect(Many(10), quick=True)
    tracemalloc.start()
    found = inspect(Many(3000), quick=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found.photographs, found.duplicates, len(found.people)) == (3000, 0, 5)
    assert peak < 2**19


def test_histogram_of_nothing_and_of_much():
    assert Inspection("x").histogram() == []
    found = Inspection("x")
    found.people.update({"a": 1, "b": 4, "c": 9999, "d": 10_000, "e": 2_000_000})
    assert dict(found.histogram())["10000 or more"] == 2
    assert sum(count for _, count in found.histogram()) == 5


def test_two_spellings_of_a_name_are_counted_as_one_person(tmp_path):
    for number, who in enumerate(("Zoe\u0308", "Zo\u00eb")):
        (tmp_path / who).mkdir()
        (tmp_path / who / "a.jpg").write_bytes(jpeg(number))
    assert dict(inspect(FolderSource(tmp_path), quick=True).people) == {"Zo\u00eb": 2}


def test_a_folder_of_people(tmp_path):
    for who, count in (("Zoë", 3), ("Ann", 1)):
        (tmp_path / who).mkdir()
        for i in range(count):
            (tmp_path / who / f"{i}.jpg").write_bytes(jpeg(i))
    found = inspect(open_source(str(tmp_path)))
    assert found.people == {"Zoë": 3, "Ann": 1}
    assert (found.duplicates, found.few(2)) == (1, ["Ann"])


def test_what_has_no_row_in_a_folder_of_people_is_told(tmp_path):
    for who in ("ann", "phone", "gone"):
        (tmp_path / who).mkdir()
    for name in ("ann/a.jpg", "stray.jpg"):
        (tmp_path / name).write_bytes(jpeg(1))
    for name in ("ann/b.heic", "phone/c.HEIC", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"?")
    done = CliRunner().invoke(build_app(), ["inspect", str(tmp_path)])
    warned = " ".join(done.stderr.split())
    assert "1 photographs of 1 people" in done.stdout
    assert "warning: 2 folder(s) of people hold no image: gone, phone" in warned
    assert "warning: 1 image(s) outside the folder of any person: stray.jpg" in warned
    assert "warning: 3 file(s) not tried, for their ending is of no image that is read: 2" in warned
