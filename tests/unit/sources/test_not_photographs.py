"""What `embed` and `classify` say of files and folders that are no photographs, and then go on."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from written import jpeg, record_file

from distill.classify.photographs import find_photographs
from distill.data.one_face import face_or_reason
from distill.data.pack_writer import EncodedPair, write_pack
from distill.errors import UserError


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of each, written by what knows nothing of the readers."""
    root: Path = tmp_path_factory.mktemp("others")
    (root / "face.jpg").write_bytes(jpeg(0))
    (root / "half.jpg").write_bytes(jpeg(0)[:300])
    (root / "list.csv").write_text("path,label\nface.jpg,1\n")
    (root / "lfw.bin").write_bytes(b"\x80\x02")
    record_file(root / "rec", [(0.0, jpeg(0))])
    shutil.copy(root / "rec" / "train.rec", root / "renamed.dat")
    (root / "hf" / "data").mkdir(parents=True)
    pq.write_table(pa.table({"image": [jpeg(0)]}), root / "hf" / "data" / "a.parquet")
    for name, mode in (("a.tar", "w"), ("a.tgz", "w:gz")):
        with tarfile.open(root / name, mode) as tar:
            tar.add(root / "face.jpg", "0.jpg")
    (root / "sets").mkdir()
    shutil.copy(root / "lfw.bin", root / "sets")
    write_pack(
        root / "pack",
        iter([EncodedPair(jpeg(0, 112), jpeg(1, 112), 0, 0)]),
        1,
        identities=["a"],
        kinds=("blur",),
    )
    (root / "pack" / "contact_sheet.png").write_bytes(jpeg(0))  # as `pack` leaves it
    return root


PACKED = "`pairdistill pack` and `inspect` read it"
NAMED = {
    "rec/train.rec": f"a record file, not a photograph; {PACKED}",
    "renamed.dat": f"a record file, not a photograph; {PACKED}",
    "hf/data/a.parquet": f"a parquet file, not a photograph; {PACKED}",
    "list.csv": f"a table, not a photograph; {PACKED}",
    "a.tar": "a tar archive, not a photograph; unpack it",
    "a.tgz": "a compressed file, not a photograph; unpack it",
    "lfw.bin": "a verification set, not a photograph; `pairdistill evaluate` and `inspect` read it",
    "pack/pairs-00000.beton": "a pack, not a photograph; its pairs are for training",
}
FOLDERS = {
    "rec": "a record file",
    "hf": "a parquet file",
    "pack": "a pack",
    "sets": "a verification set",
}


@pytest.mark.parametrize("name", NAMED)
def test_a_file_is_named_with_what_takes_it(here: Path, name: str) -> None:
    found = face_or_reason(here / name, None)
    assert isinstance(found, str)
    assert found.startswith(f"unreadable: {NAMED[name]}")


def test_photographs_beside_them_are_read_and_damaged_ones_are_told_as_before(here: Path) -> None:
    files = find_photographs([here / "rec" / "train.rec", here / "face.jpg"])
    faces = [face_or_reason(path, None) for path in files]
    assert isinstance(faces[0], str)
    assert isinstance(faces[1], np.ndarray) and faces[1].shape == (112, 112, 3)
    assert "damaged header" in str(face_or_reason(here / "half.jpg", None))
    assert face_or_reason(here / "missing.rec", None) == "unreadable: no such file"
    os.mkfifo(here / "pipe.rec")
    assert face_or_reason(here / "pipe.rec", None) == "unreadable: not a regular file"


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_without_photographs_is_named_too(here: Path, name: str) -> None:
    with pytest.raises(UserError, match=rf"{name}: {FOLDERS[name]}, no photographs in it; "):
        find_photographs([here / "face.jpg", here / name])
