"""The terminal: a live bar where there is one, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from distill import console


class Terminal:
    """Shows the steps of a run.

    Args:
        resumed_step: steps that are done.
        total_steps: steps of the whole run.
    """

    def __init__(self, resumed_step: int, total_steps: int) -> None:
        self._total = total_steps
        self._first: tuple[int, float] | None = None
        self._bar: console.LiveProgress | None = None
        if sys.stderr.isatty():
            self._bar = console.live_progress()
            self._task = self._bar.add_task("train", total=total_steps, completed=resumed_step)
            self._bar.start()

    def step(self, step: int) -> None:
        """One more step is done."""
        if self._first is None:  # the first step also pays for everything that is built once
            self._first = (step, time.monotonic())
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def numbers(self, step: int, scalars: dict[str, float]) -> None:
        """Show losses and speed."""
        text = summary(scalars)
        if self._bar is not None:
            self._bar.numbers = text
            return
        console.note(f"step {step}/{self._total}  {text}  left {self._left(step)}")

    def _left(self, step: int) -> str:
        """Remaining time, from the mean pace since the first step."""
        first, began = self._first or (step, 0.0)
        if step == first:
            return "?"
        seconds = (time.monotonic() - began) / (step - first) * (self._total - step)
        minutes, seconds = divmod(round(seconds), 60)
        return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"

    @contextmanager
    def part(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """A second bar (or nothing, where there is no terminal) for one part of the run."""
        bar = self._bar
        if bar is None:
            yield lambda units: None
            return
        task = bar.add_task(title, total=total)
        try:
            yield lambda units: bar.advance(task, units)
        finally:
            bar.remove_task(task)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.stop()


WAITING_SHOWN = 0.1
"""A share of the time above which it is told that steps wait for pairs."""


def summary(scalars: dict[str, float]) -> str:
    """The few numbers that fit into a line."""
    shown = (
        ("loss", "loss/total", "{:.4f}"),
        ("ce", "loss/ce_first", "{:.4f}"),
        ("ce2", "loss/ce_second", "{:.4f}"),
        ("sim", "loss/similarity", "{:.4f}"),
        ("acc", "accuracy/first", "{:.3f}"),
        ("lr", "schedule/lr", "{:.2e}"),
        ("images/s", "speed/images_per_second", "{:.0f}"),
    )
    parts = [f"{word} {form.format(scalars[tag])}" for word, tag, form in shown if tag in scalars]
    waiting = scalars.get("speed/data_wait_share", 0.0)
    if waiting > WAITING_SHOWN:
        parts.append(f"waiting {waiting:.0%} for pairs")
    return "  ".join(parts)


PROBES = (("top1", "top-1", 3), ("auc", "AUC", 3))
SETS = (("accuracy", "accuracy", 5), ("auc", "AUC", 5))
OTHER_SETS = (("tar_at_far_0.0001", "TAR at FAR 0.01%", 4), ("auc", "AUC", 5))
"""Metrics, their words and their digits, those that say most first."""


def held_out(scalars: dict[str, float], metrics: Sequence[tuple[str, str, int]] = PROBES) -> str:
    """The metric that says most, for each kind of probe, or each set, in a line.

    Args:
        scalars: what an evaluation found, by ``PROBE/METRIC``; ``processed`` is a mean.
        metrics: `PROBES`, `SETS` or `OTHER_SETS`.
    """
    for metric, word, digits in metrics:
        found = {
            tag.removesuffix(f"/{metric}"): value
            for tag, value in scalars.items()
            if tag.endswith(f"/{metric}") and not tag.startswith("processed/")
        }
        if found:
            return f"{word}: " + " ".join(f"{probe} {v:.{digits}f}" for probe, v in found.items())
    return "photographs: too few for any number"


def verified(scalars: dict[str, float]) -> str:
    """The same of sets: accuracy where it is measured, else TAR or the area under the curve."""
    judged = {tag.split("/")[0] for tag in scalars if tag.endswith("/accuracy")}
    own = {tag: value for tag, value in scalars.items() if tag.split("/")[0] in judged}
    others = {tag: value for tag, value in scalars.items() if tag not in own}
    parts = [held_out(found, m) for found, m in ((own, SETS), (others, OTHER_SETS)) if found]
    return "; ".join(parts) or held_out(scalars, SETS)
