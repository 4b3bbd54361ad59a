"""Which source a path is: by what it holds."""

from __future__ import annotations

import os
import shutil
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from written import jpeg, record_file

from distill.data.sources.folder import FolderSource
from distill.data.sources.open import FORMATS, SourceOptions, open_source
from distill.data.sources.parquet import ParquetSource
from distill.data.sources.records import RecordSource
from distill.data.sources.shards import ShardSource
from distill.data.sources.table import TableSource
from distill.errors import UserError


@pytest.fixture
def here(tmp_path):
    (tmp_path / "people" / "ann").mkdir(parents=True)
    (tmp_path / "people" / "ann" / "0.jpg").write_bytes(jpeg(0))
    record_file(tmp_path / "rec", [(0.0, jpeg(0))])
    (tmp_path / "hf" / "data").mkdir(parents=True)
    pq.write_table(
        pa.table({"image": [jpeg(0)], "label": [0]}), tmp_path / "hf" / "data" / "a.parquet"
    )
    (tmp_path / "tar").mkdir()
    with tarfile.open(tmp_path / "tar" / "a.tar", "w") as tar:
        tar.add(tmp_path / "people" / "ann" / "0.jpg", "0.jpg")
    (tmp_path / "people" / "list.csv").write_text("path,label\nann/0.jpg,1\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("people", FolderSource),
        ("rec", RecordSource),
        ("rec/train.rec", RecordSource),
        ("hf", ParquetSource),
        ("hf/data", ParquetSource),
        ("hf/data/a.parquet", ParquetSource),
        ("tar", ShardSource),
        ("tar/a.tar", ShardSource),
        ("{tar,tar}/a.tar", ShardSource),
        ("hf/data/{a,a}.parquet", ParquetSource),
        ("people/list.csv", TableSource),
    ],
)
def test_what_a_path_holds(here, name, kind):
    assert type(open_source(str(here / name))) is kind


def test_of_many_subfolders_a_few_are_looked_into(here):
    """A folder of millions of photographs is not walked to find out that it is one."""
    for number in range(40):
        (here / "people" / f"{number:02}").mkdir()
        (here / "people" / f"{number:02}" / "0.JPG").write_bytes(jpeg(number))
        shutil.copytree(here / "hf" / "data", here / "hf" / f"language-{number:02}")
    shutil.copy(here / "hf" / "data" / "a.parquet", here / "people" / "39")
    assert type(open_source(str(here / "people"))) is FolderSource
    assert type(open_source(str(here / "hf"))) is ParquetSource


def test_a_link_to_itself_among_people_stops_nobody(here):
    (here / "people" / "loop").symlink_to("loop")
    assert type(open_source(str(here / "people"))) is FolderSource


@pytest.mark.parametrize("name", ["rec/train.rec", "hf/data/a.parquet", "tar/a.tar"])
def test_files_without_an_ending_are_known_by_their_content(here, name):
    kind = type(open_source(str(here / name)))
    shutil.copy(here / name, here / "thing")
    assert type(open_source(str(here / "thing"))) is kind


def test_what_is_none_is_told_with_what_was_looked_for(here):
    (here / "empty").mkdir()
    (here / "thing").write_bytes(b"hello")
    os.mkfifo(here / "pipe")
    for name in ("missing", "thing", "pipe"):
        with pytest.raises(UserError, match=r"train\.rec, \*\.parquet, \*\.tar"):
            open_source(str(here / name))
    with pytest.raises(UserError, match="no images in it"):
        open_source(str(here / "empty"))
    for head in (b"\x1f\x8b\x08", b"PK\3\4", b"BZh9"):
        (here / "thing").write_bytes(head + bytes(600))
        with pytest.raises(UserError, match="compressed"):
            open_source(str(here / "thing"))
    with pytest.raises(UserError, match="choose from folder, rec, parquet, tar, csv"):
        SourceOptions(format="zip")


def test_two_kinds_in_one_folder_have_to_be_told_apart(here):
    shutil.copy(here / "tar" / "a.tar", here / "rec")
    with pytest.raises(UserError, match=r"holds train\.rec and a\.tar"):
        open_source(str(here / "rec"))
    for name, kind in (("rec", RecordSource), ("tar", ShardSource)):
        assert type(open_source(str(here / "rec"), SourceOptions(format=name))) is kind
    shutil.copy(here / "rec" / "train.rec", here / "rec" / "other.rec")
    assert open_source(str(here / "rec"), SourceOptions("rec")).path.name == "train.rec"
    (here / "rec" / "train.rec").rename(here / "rec" / "third.rec")
    with pytest.raises(UserError, match=r"2 files \.rec"):
        open_source(str(here / "rec"), SourceOptions("rec"))
    assert set(FORMATS) == {"folder", "rec", "parquet", "tar", "csv"}


def test_a_pattern_may_name_files_of_one_kind_only(here):
    with pytest.raises(UserError):
        open_source(str(here / "{a,b}.zip"))


def test_columns_and_root_reach_the_source(here):
    options = SourceOptions(image_column="path", identity_column="label", root=here / "people")
    (sample,) = open_source(str(here / "people" / "list.csv"), options)
    assert (sample.identity, sample.read()) == ("1", jpeg(0))
