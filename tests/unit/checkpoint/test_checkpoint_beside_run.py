"""Reading checkpoints of a run that goes on, and removes them."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import pytest

from distill.checkpoint import find, latest_verified
from distill.checkpoint.folder import remove
from distill.checkpoint.manifest import Manifest
from distill.errors import UserError

STALE = OSError(errno.ESTALE, os.strerror(errno.ESTALE))


@pytest.mark.parametrize(
    ("listed", "error"),
    [(False, None), (False, OSError(errno.EIO, "NFS went away")), (True, STALE),
     (True, OSError("Stale file handle (os error 116)"))],  # as safetensors has it
)  # fmt: skip
def test_one_that_a_run_removes_while_it_is_read_is_not_damaged(
    save_steps, tmp_path, monkeypatch, listed, error
):
    """`evaluate` beside a run that keeps one checkpoint; NFS may list the old one for a while."""
    save_steps(1)
    real = find.verify_file

    def slow(path, entry):
        if not (tmp_path / "step-00000002").exists():
            save_steps(2)
            if not listed:
                remove(tmp_path / "step-00000001")
            if error:
                raise error
        real(path, entry)

    monkeypatch.setattr(find, "verify_file", slow)
    found = latest_verified(tmp_path)
    assert (found.step, found.set_aside) == (2, ())
    there = ["step-00000001", "step-00000002"][not listed :]
    assert sorted(path.name for path in tmp_path.iterdir()) == there


def test_one_that_goes_file_by_file_while_it_is_set_aside_is_not_damaged(
    save_steps, tmp_path, monkeypatch
):
    """Its manifest is gone, the folder is there still, and is not when it is to be renamed."""
    (path,) = save_steps(1)
    (path / "manifest.json").unlink()
    real = find.set_aside

    def late(path):
        save_steps(2)
        remove(path)
        return real(path)

    monkeypatch.setattr(find, "set_aside", late)
    found = latest_verified(tmp_path)
    assert (found.step, found.set_aside) == (2, ())
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]


def test_headers_beside_a_run_are_those_of_the_newer_one(save_steps, tmp_path, monkeypatch):
    save_steps(1)
    real = Manifest.read

    def slow(path):
        if not (tmp_path / "step-00000002").exists():
            save_steps(2)
            remove(tmp_path / "step-00000001")
        return real(path)

    monkeypatch.setattr(find, "Manifest", SimpleNamespace(read=slow))
    assert find.newest_told(tmp_path).step == 2


def test_what_is_stale_for_long_is_no_fresh_start(save_steps, tmp_path, monkeypatch):
    save_steps(1)

    def stale(*_):
        raise STALE

    monkeypatch.setattr(find, "verify_label", stale)
    with pytest.raises(UserError, match="step-00000001' is listed and removed meanwhile"):
        latest_verified(tmp_path)
    monkeypatch.setattr(find, "Manifest", SimpleNamespace(read=stale))
    with pytest.raises(UserError, match="step-00000001' is listed and removed meanwhile"):
        find.newest_told(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
