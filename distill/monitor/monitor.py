"""Rank 0's view of a run: metrics.jsonl, TensorBoard and the terminal behind one face.

Logs are not the run: one that cannot be written (a full disk, a folder without permission) is
given up with one warning, and training goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from distill import console
from distill.config import dump_toml
from distill.monitor.metrics_file import MetricsFile, read_metrics
from distill.monitor.tensorboard import TensorBoard
from distill.monitor.terminal import Terminal, held_out, verified

if TYPE_CHECKING:
    from distill.config import Config
    from distill.run_dir import RunDir

_EVALUATION = "evaluation_"
"""In front of the tags of an evaluation: each kind of probe is a group of curves of its own."""

Log = TypeVar("Log", MetricsFile, TensorBoard)


class Monitor:
    """Shows and records a run; on ranks other than 0 every method does nothing.

    Args:
        run: where the logs go.
        config: settings, kept in TensorBoard as text.
        resumed_step: steps that are done.
        total_steps: steps of the whole run.
        active: whether this is rank 0.
    """

    def __init__(
        self, run: RunDir, config: Config, *, resumed_step: int, total_steps: int, active: bool
    ) -> None:
        self._terminal = Terminal(resumed_step, total_steps) if active else None
        # A run that is killed after an evaluation and before its save evaluates that step again.
        self._evaluated = _evaluated_steps(run.metrics, resumed_step) if active else set()
        self._metrics = _Unless(
            "metrics.jsonl", lambda: MetricsFile(run.metrics, resumed_step) if active else None
        )
        self._events = _Unless(
            "events.jsonl", lambda: MetricsFile(run.events, resumed_step) if active else None
        )
        board = active and config.monitor.tensorboard
        self._board = _Unless(
            "TensorBoard", lambda: TensorBoard(run.tensorboard, resumed_step) if board else None
        )
        self._board.do(lambda log: log.text("config", dump_toml(config), resumed_step))

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        self._metrics.do(lambda log: log.close())
        self._events.do(lambda log: log.close())
        self._board.do(lambda log: log.close())
        if self._terminal:
            self._terminal.close()

    def step(self, step: int) -> None:
        """One more step is done."""
        if self._terminal:
            self._terminal.step(step)

    def training(self, step: int, scalars: dict[str, float]) -> None:
        """Record and show what step ``step`` measured."""
        self._record(step, scalars)
        if self._terminal:
            self._terminal.numbers(step, scalars)

    def evaluation(self, step: int, scalars: dict[str, float]) -> None:
        """Record, as ``evaluation_PROBE/METRIC``, and show what was measured after ``step``."""
        self.note(f"step {step}, held-out {held_out(scalars)}")
        self._record_evaluation(step, scalars)

    def verification(self, step: int, scalars: dict[str, float]) -> None:
        """As `evaluation`, of verification sets: ``evaluation_SET/METRIC``."""
        self.note(f"step {step}, verification {verified(scalars)}")
        self._record_evaluation(step, scalars)

    def _record_evaluation(self, step: int, scalars: dict[str, float]) -> None:
        if step not in self._evaluated:
            self._record(step, {f"{_EVALUATION}{tag}": value for tag, value in scalars.items()})

    def _record(self, step: int, scalars: dict[str, float]) -> None:
        self._metrics.do(lambda log: log.write(step, scalars))
        self._board.do(lambda log: log.scalars(step, scalars))

    def picture(self, step: int, tag: str, image: NDArray[np.uint8]) -> None:
        """Show a picture, (H, W, 3) uint8 RGB, in TensorBoard."""
        self._board.do(lambda log: log.picture(step, tag, image))

    def event(
        self, step: int, text: str, sample_ids: Mapping[int, Sequence[int]], *, shown: bool = True
    ) -> None:
        """Record (and show, unless it is said otherwise) that a step went wrong, and its pairs.

        Args:
            step: the step.
            text: what happened.
            sample_ids: of the pairs that each rank saw.
            shown: whether the terminal gets a warning.
        """
        ids = {str(rank): list(ids) for rank, ids in sample_ids.items()}
        self._events.do(lambda log: log.write(step, {"event": text, "sample_ids": ids}))
        if shown:
            self.warn(text)

    @contextmanager
    def part(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """Progress of a long part of the run; yields what counts its units."""
        if self._terminal is None:
            yield lambda units: None
            return
        with self._terminal.part(title, total) as advance:
            yield advance

    def say(self, text: str) -> None:
        """How the run ended, as its result; it has ended so whether or not anybody can read it."""
        if self._terminal:
            self._terminal.close()
            with suppress(OSError):
                console.say(text)

    def note(self, text: str) -> None:
        """One plain line on the terminal."""
        if self._terminal:
            console.note(text)

    def warn(self, text: str) -> None:
        """One warning on the terminal."""
        if self._terminal:
            console.warn(text)


def _evaluated_steps(metrics: Path, until: int) -> set[int]:
    """Steps up to ``until`` whose evaluation stands in a metrics file, if it can be read."""
    try:
        lines = read_metrics(metrics)
    except OSError:  # then it cannot be written either, which is told
        return set()
    return {
        line["step"]
        for line in lines
        if line["step"] <= until and any(tag.startswith(_EVALUATION) for tag in line)
    }


class _Unless(Generic[Log]):
    """A log that is used unless, and until, it cannot be written."""

    def __init__(self, name: str, make: Callable[[], Log | None]) -> None:
        self._name = name
        self._log: Log | None = None
        try:
            self._log = make()
        except OSError as error:
            self._give_up(error)

    def do(self, action: Callable[[Log], None]) -> None:
        """Perform ``action`` on the log, if there is still one."""
        if self._log is None:
            return
        try:
            action(self._log)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        console.warn(f"{self._name} cannot be written ({error}); training goes on without it")
        self._log = None
