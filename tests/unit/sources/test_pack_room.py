"""A disk without room for the faces of a source is told of before the first one is looked at."""

import shutil

import pytest
from typed import run
from written import framed, image_record, jpeg

from distill.data.pack.spool import ROW, check_room
from distill.errors import UserError


def test_a_data_set_larger_than_the_disk_is_refused_before_the_first_photograph(capsys, tmp_path):
    """The record that describes the file says how many there are: here 10^12."""
    (tmp_path / "in").mkdir()
    head = framed(image_record([1e12 + 1, 1e12 + 2], b""))
    (tmp_path / "in" / "train.rec").write_bytes(head + framed(image_record(0, jpeg(0, 112), 1)))
    words = ("pack", tmp_path / "in", tmp_path / "out", "--aligned", "--workers", 1)
    status, _, trouble = run(capsys, *words)
    said = " ".join(trouble.split())
    assert status == 2 and "aligned faces of 999999995903 photographs lie beside it" in said
    assert "3.77e+07 GB are needed, and" in said and "--dry-run" in said
    assert "aligning" not in said and [entry.name for entry in tmp_path.iterdir()] == ["in"]


def test_faces_of_an_earlier_packer_are_not_asked_for_again(tmp_path):
    spool = tmp_path / "faces.spool"
    spool.touch()
    fitting = shutil.disk_usage(tmp_path).free // ROW.itemsize
    expected, few = fitting * 2, fitting // 2
    with pytest.raises(UserError, match=f"of {expected} photographs"):
        check_room(spool, expected, tmp_path)
    with spool.open("r+b") as file:
        file.truncate((expected - few) * ROW.itemsize)  # a hole: it takes no room
    check_room(spool, expected, tmp_path)
    check_room(spool, None, tmp_path)
