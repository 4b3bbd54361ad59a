"""Rank 0's view of a run: metrics.jsonl, TensorBoard and the terminal behind one face.

Logs are not the run: where one cannot be written (a full disk, a folder without permission),
training goes on with one warning, and later it is tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from distill import console
from distill.config import by_key, dump_toml, toml_value
from distill.monitor.metrics_file import MetricsFile, read_metrics
from distill.monitor.tensorboard import TensorBoard
from distill.monitor.terminal import Terminal, held_out, verified

if TYPE_CHECKING:
    from distill.config import Config
    from distill.run_dir import RunDir

_EVALUATION = "evaluation_"
"""In front of the tags of an evaluation: each kind of probe is a group of curves of its own."""

FIRST_PAUSE_SECONDS = 600.0
"""After which a log is tried again that could not be written; each further pause is twice as long,
since each try may leave a small file."""

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
        self._metrics, self._events = (
            _Unless(path.name, partial(MetricsFile, path) if active else None, resumed_step)
            for path in (run.metrics, run.events)
        )
        board = active and config.monitor.tensorboard
        make_board = partial(TensorBoard, run.tensorboard) if board else None
        self._board = _Unless("TensorBoard", make_board, resumed_step)
        self._board.do(resumed_step, lambda log: _show_settings(log, config, resumed_step))

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        for log in (self._metrics, self._events, self._board):
            log.close()
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
        self._metrics.do(step, lambda log: log.write(step, scalars))
        self._board.do(step, lambda log: log.scalars(step, scalars))

    def picture(self, step: int, tag: str, image: NDArray[np.uint8]) -> None:
        """Show a picture, (H, W, 3) uint8 RGB, in TensorBoard."""
        self._board.do(step, lambda log: log.picture(step, tag, image))

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
        self._events.do(step, lambda log: log.write(step, {"event": text, "sample_ids": ids}))
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


def _show_settings(board: TensorBoard, config: Config, step: int) -> None:
    """Settings as a text to read and as columns to compare runs by; its folder names a run."""
    board.text("config", dump_toml(config), step)
    columns = {key: value for key, value in by_key(config).items() if key != "run.dir"}
    plain = (bool, int, float, str)
    board.settings({k: v if isinstance(v, plain) else toml_value(v) for k, v in columns.items()})


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
    """A log that is used except while it cannot be written.

    Args:
        name: what the terminal calls it.
        make: opens it, from the steps that are done; None for no log.
        step: steps that are done.
    """

    def __init__(self, name: str, make: Callable[[int], Log] | None, step: int) -> None:
        self._name = name
        self._make: Callable[[int], Log] | None = make
        self._log: Log | None = None
        self._pause_seconds, self._again = FIRST_PAUSE_SECONDS, 0.0
        self._open(step)

    def do(self, step: int, action: Callable[[Log], None]) -> None:
        """Perform ``action`` on the log, about ``step``, if it can be written."""
        if self._log is None and monotonic() >= self._again:
            self._open(step - 1)
        if self._log is None:
            return
        try:
            action(self._log)
        except OSError as error:
            self._pause(error)

    def close(self) -> None:
        """Close the log, where there is one."""
        if self._log is not None:
            try:
                self._log.close()
            except OSError as error:
                self._pause(error)

    def _open(self, step: int) -> None:
        if self._make is None:
            return
        try:
            self._log = self._make(step)
        except OSError as error:
            self._pause(error)

    def _pause(self, error: OSError) -> None:
        if self._pause_seconds == FIRST_PAUSE_SECONDS:
            console.warn(f"{self._name} cannot be written ({error}); training goes on without it")
        if self._log is not None:
            with suppress(OSError):
                self._log.close()
        self._log, self._again = None, monotonic() + self._pause_seconds
        self._pause_seconds *= 2
