"""What a run does that is told to stop: it saves where it can, and is stopped in any case."""

from __future__ import annotations

from pathlib import Path
from signal import SIGUSR2
from types import SimpleNamespace
from typing import Any

import pytest

from distill import milestones, train
from distill.checkpoint import SaveFailed, TrainState


@pytest.mark.parametrize(
    ("skipped", "full", "saved", "words"),
    [
        (0, False, Path("step-4"), "stopped by SIGUSR2; the same command goes on from here"),
        (0, True, Path("step-4"), "not saved (disk full); the same command goes on from step-4"),
        (0, True, None, "not saved (disk full); the same command goes on from the start"),
        (1, False, Path("step-4"), "not saved (losses are not finite); the same command goes on"),
    ],
)
def test_a_stop_is_one_whether_or_not_it_can_be_saved(
    monkeypatch: pytest.MonkeyPatch, skipped: int, full: bool, saved: Path | None, words: str
) -> None:
    """Else a job that is preempted while its disk is full would end as a mistake of the user's."""
    asked: list[bool] = []

    def save(*_: object, must: bool) -> None:
        asked.append(must)
        if full:
            raise SaveFailed("disk full", fix="free some space")

    said: list[str] = []
    job: Any = SimpleNamespace(saved=(4, saved), monitor=SimpleNamespace(say=said.append))
    monkeypatch.setattr(milestones, "save_now", save)
    stopped = train._stop(job, TrainState(step=7, skipped_in_a_row=skipped), SIGUSR2)
    assert stopped == (7, SIGUSR2)
    assert asked == ([] if skipped else [True])
    assert len(said) == 1
    assert words in said[0]


def test_what_is_saved_already_is_not_saved_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop may come in the last evaluation, after the last step was saved."""
    monkeypatch.setattr(milestones, "save_now", lambda *_, **__: pytest.fail("saved again"))
    said: list[str] = []
    job: Any = SimpleNamespace(saved=(7, Path("s")), monitor=SimpleNamespace(say=said.append))
    assert train._stop(job, TrainState(step=7), SIGUSR2).exit_status == 128 + SIGUSR2
    assert said == ["stopped by SIGUSR2; the same command goes on from here"]
