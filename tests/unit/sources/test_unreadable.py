"""A folder that the system does not give: nothing is made of the rest as if it were all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from privileges import without_privileges
from written import good, jpeg, shard

from distill.classify.photographs import find_photographs
from distill.data.protocols.found import sets_in
from distill.data.sources.open import SourceOptions, open_source
from distill.errors import UserError

TAR = SourceOptions("tar")


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A folder with two in it, of which one may not be read, by root neither."""
    for person in ("a", "b"):
        (tmp_path / person).mkdir()
    (tmp_path / "b").chmod(0)
    with without_privileges():
        yield tmp_path
    (tmp_path / "b").chmod(0o700)


def refused(what: Callable[[], object], folder: Path) -> None:
    with pytest.raises(UserError) as error:
        what()
    assert str(error.value) == f"{folder}: Permission denied; make it readable, or take it out"


def test_photographs_below_it_are_not_passed_over(locked: Path) -> None:
    (locked / "a" / "0.jpg").write_bytes(jpeg(0))
    refused(lambda: find_photographs([locked]), locked / "b")
    refused(lambda: open_source(str(locked)), locked / "b")
    assert find_photographs([locked / "a"]) == [locked / "a" / "0.jpg"]


def test_files_of_samples_in_it_are_not_passed_over(locked: Path) -> None:
    shard(locked / "a" / "0.tar", [("0.jpg", jpeg(0)), ("0.cls", b"1")])
    refused(lambda: open_source(str(locked), TAR), locked / "b")
    (locked / "0.tar").write_bytes((locked / "a" / "0.tar").read_bytes())
    assert len(good(open_source(str(locked), TAR))) == 1, "where there are some, no folder is asked"


def test_verification_sets_in_it_are_not_passed_over(tmp_path: Path, locked: Path) -> None:
    for part, beside in (("IJBB", "a"), ("IJBC", "b")):
        (tmp_path / part).symlink_to(beside)
    (locked / "a" / "meta").mkdir()
    (locked / "a" / "meta" / "ijbb_face_tid_mid.txt").write_text("")
    refused(lambda: sets_in(tmp_path), tmp_path / "IJBC" / "meta")
