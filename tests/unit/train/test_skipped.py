"""Steps that are skipped: which of them count towards the end of a run."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from distill.checkpoint import TrainState
from distill.config import Config, load_config
from distill.engine_parts.loss_scale import LossScale
from distill.step import StepReport
from distill.train import _counted, _judge, _not_finite


@pytest.mark.parametrize(("precision", "free"), [("fp16", 16), ("bf16", 0)])
def test_gradients_that_never_are_finite_end_a_run(precision: str, free: int) -> None:
    """With fp16, too: there the scale of 2 to the 16 can be halved 16 times, and then no more."""
    scale, state = LossScale.for_precision(precision), TrainState(0)
    in_a_row = []
    for _ in range(free + 3):
        fell = scale.update(skipped=True)
        state = _counted(state, StepReport({}, True, {}, fell, None))
        in_a_row.append(state.skipped_in_a_row)
    assert in_a_row == [0] * free + [1, 2, 3]
    assert state.skipped == state.step == free + 3
    fell = scale.update(skipped=False)
    assert not fell
    assert _counted(state, StepReport({}, False, {}, fell, None)).skipped_in_a_row == 0


def test_a_loss_that_is_not_finite_is_no_search_for_a_scale() -> None:
    fell = LossScale.for_precision("fp16").update(skipped=True)
    report = StepReport({}, True, {1: [7]}, fell, None)
    assert fell
    assert _counted(TrainState(0), report).skipped_in_a_row == 1


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (1.0, "a gradient is not finite, though the loss is, on all ranks"),
        (math.nan, "the loss is not finite, though all embeddings are, on all ranks"),
    ],
)
def test_what_was_not_finite_is_what_is_told(loss: float, said: str) -> None:
    """Ranks that share the head blame a pair for its embeddings alone."""
    told: list[str] = []
    monitor = SimpleNamespace(event=lambda _step, text, _blamed, **_: told.append(text))
    spikes = SimpleNamespace(see=lambda _: False)
    job: Any = SimpleNamespace(config=Config(), monitor=monitor, spikes=spikes)
    report = StepReport({"loss/total": loss}, True, {}, False, None)
    _judge(job, TrainState(3, skipped=1), report, [])
    assert told == [f"step 3: {said}: step skipped on all ranks"]


@pytest.mark.parametrize(
    ("skipped", "saved", "advice"),
    [
        (1, None, "lower head.scale (1000), else raise train.nonfinite_limit; the command then st"),
        (
            0,
            "step-4",
            "lower head.scale (1000), else lower optimizer.lr (0.1), else raise train.no",
        ),
    ],
)
def test_the_learning_rate_is_not_blamed_where_it_has_changed_nothing(
    skipped: int, saved: str | None, advice: str
) -> None:
    job: Any = SimpleNamespace(config=load_config(None, ["head.scale=1000"]), saved=(4, saved))
    error = _not_finite(job, TrainState(1, skipped=skipped, skipped_in_a_row=1), "step 1: text")
    assert str(error).startswith("step 1: text; last good checkpoint: ")
    assert error.fix.startswith(advice)
