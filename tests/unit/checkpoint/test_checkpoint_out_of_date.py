"""A run that goes on beside a file system that does not show all of its newest checkpoint yet."""

from __future__ import annotations

from threading import Timer

import pytest

from distill.checkpoint import find, latest_verified


def shard_of(checkpoint):
    """The one shard of a checkpoint."""
    (shard,) = checkpoint.glob("*.safetensors")
    return shard


@pytest.mark.parametrize("manifest", [False, True])
def test_a_file_that_appears_late_costs_no_checkpoint(save_steps, tmp_path, monkeypatch, manifest):
    """The folder is there, and of a file NFS remembers that there was none."""
    _, newest = save_steps(1, 2)
    late = newest / "manifest.json" if manifest else shard_of(newest)
    late.rename(tmp_path / "late")
    monkeypatch.setattr(find, "_SECONDS_BETWEEN_LOOKS", 0.4)
    shown = Timer(0.5, (tmp_path / "late").rename, [late])
    shown.start()
    found = latest_verified(tmp_path, alone=True)
    shown.join()
    assert (found.step, found.set_aside) == (2, ())


def test_files_that_never_appear_are_set_aside_after_as_many_looks_each(
    save_steps, tmp_path, monkeypatch
):
    _, second, third = save_steps(1, 2, 3)
    for checkpoint in (second, third):
        shard_of(checkpoint).unlink()
    waits = []
    monkeypatch.setattr(find.time, "sleep", waits.append)
    found = latest_verified(tmp_path, alone=True)
    assert [place for place, _ in found.set_aside] == [f"{third}.corrupt", f"{second}.corrupt"]
    assert found.step == 1 and waits == 6 * [20.0]
