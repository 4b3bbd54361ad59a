"""The boundaries between steps: what a save that goes wrong costs, and what it does not."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distill import milestones
from distill.checkpoint import SaveFailed, TrainState
from distill.config import Config


@pytest.fixture
def job() -> Any:
    said: list[str] = []
    return SimpleNamespace(
        config=Config(),
        plan=SimpleNamespace(run=SimpleNamespace(checkpoints=Path("checkpoints"))),
        engine=None,
        facts=None,
        monitor=SimpleNamespace(warn=said.append, said=said),
        watchdog=SimpleNamespace(mark=lambda *_: None),
        ranks=SimpleNamespace(is_first=True),
        saved=(4, Path("step-4")),
    )


def test_an_old_checkpoint_that_cannot_be_removed_ends_no_run(
    job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS, where one of its files is open on this node: the new one is written."""

    def busy(*_: object, verified: Path, **__: object) -> None:
        assert verified == Path("step-8"), "the one that was just read back"
        raise OSError(errno.ENOTEMPTY, "Directory not empty", "checkpoints/.removing-step-2")

    monkeypatch.setattr(milestones, "save", lambda *_: Path("step-8"))
    monkeypatch.setattr(milestones, "prune", busy)
    milestones.save_now(job, TrainState(step=8))
    assert job.saved == (8, Path("step-8"))
    (told,) = job.monitor.said
    assert "Directory not empty: 'checkpoints/.removing-step-2'" in told


@pytest.mark.parametrize("must", [False, True])
def test_a_save_that_fails_is_told_or_raised_and_the_last_one_stays(
    job: Any, monkeypatch: pytest.MonkeyPatch, must: bool
) -> None:
    def full(*_: object) -> Path:
        raise SaveFailed("disk full")

    monkeypatch.setattr(milestones, "save", full)
    if must:
        with pytest.raises(SaveFailed, match="disk full"):
            milestones.save_now(job, TrainState(step=8), must=True)
    else:
        milestones.save_now(job, TrainState(step=8))
        assert job.monitor.said == ["disk full; training goes on, the last checkpoint is step-4"]
    assert job.saved == (4, Path("step-4"))
