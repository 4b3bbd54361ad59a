"""A disk without room for the faces of a source is told of before the first one is looked at."""

import os
import shutil
from pathlib import Path

import pytest
from typed import run
from written import PLAIN, framed, image_record, jpeg, record_file

from distill.data.pack.spool import ROW, check_room
from distill.data.sources.records import RecordSource
from distill.errors import UserError
from distill.files import check_space


def test_a_data_set_larger_than_the_disk_is_refused_before_the_first_photograph(capsys, tmp_path):
    """The record that describes the file says how many there are: here 10^12, most in a hole."""
    (tmp_path / "in").mkdir()
    head = framed(image_record([1e12 + 1, 1e12 + 2], b""))
    path = tmp_path / "in" / "train.rec"
    path.write_bytes(head + framed(image_record(0, jpeg(0, 112), 1)))
    os.truncate(path, shutil.disk_usage(tmp_path).free // 200)  # faces take 294 times as much
    words = ("pack", tmp_path / "in", tmp_path / "out", "--aligned", "--workers", 1)
    status, _, trouble = run(capsys, *words)
    said = " ".join(trouble.split())
    assert status == 2 and "photographs lie beside it while it is packed" in said
    assert "GB are needed, and" in said and "--dry-run" in said
    assert "aligning" not in said and [entry.name for entry in tmp_path.iterdir()] == ["in"]


def test_a_record_file_is_not_taken_for_larger_than_it_is(tmp_path):
    """Its beginning alone, and a first photograph with two labels that say nothing of the file."""
    whole = record_file(tmp_path, [(0.0, image) for image in PLAIN])
    assert RecordSource.at(whole).expected == len(PLAIN)
    head = framed(image_record([1e12 + 1, 1e12 + 2], b""))
    whole.write_bytes(head + framed(image_record(0, PLAIN[0], 1)))
    assert 1 <= RecordSource.at(whole).expected <= whole.stat().st_size // 100
    whole.write_bytes(framed(image_record([1e9, 2e9], PLAIN[0], 1)))
    assert RecordSource.at(whole).expected is None


def test_faces_of_an_earlier_packer_are_not_asked_for_again(tmp_path):
    spool = tmp_path / "faces.spool"
    spool.touch()
    fitting = shutil.disk_usage(tmp_path).free // ROW.itemsize
    some = min(fitting // 2, (1 << 40) // ROW.itemsize)  # no file system takes files of any size
    expected = fitting + some // 2
    with pytest.raises(UserError, match=f"of {expected} photographs"):
        check_room(spool, expected, tmp_path)
    os.truncate(spool, some * ROW.itemsize)  # a hole: it takes no room
    check_room(spool, expected, tmp_path)
    check_room(spool, None, tmp_path)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no file system here tells nothing")
def test_a_file_system_that_tells_no_sizes_is_not_full():
    assert shutil.disk_usage("/proc").total == 0
    check_space(Path("/proc"), 10**15, "a pack", fix="free some space")
