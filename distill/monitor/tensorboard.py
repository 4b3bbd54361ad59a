"""Event files for TensorBoard."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SETTINGS_NAME = "events.out.tfevents.0.settings"
"""The event file with the settings of the newest start. TensorBoard reads the files of a run in the
order of their names and keeps the first settings that it finds: this one comes before any date."""


class TensorBoard:
    """Writes event files into a folder.

    Args:
        folder: where; made where it is missing.
        resumed_step: steps that are done; points of later steps, left by a run that was cut off,
            are hidden, so that no curve has doubled points.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, resumed_step: int) -> None:
        from torch.utils.tensorboard import (
            SummaryWriter,
        )  # slow to import, and rank 0 alone needs it

        self._folder = folder
        self._hook = threading.excepthook
        threading.excepthook = self._on_thread_error
        self._writer = SummaryWriter(str(folder), purge_step=resumed_step + 1)

    def scalars(self, step: int, scalars: dict[str, float]) -> None:
        """One point of each curve."""
        for tag, value in scalars.items():
            self._writer.add_scalar(tag, value, step)
        self._writer.flush()

    def picture(self, step: int, tag: str, image: NDArray[np.uint8]) -> None:
        """One picture, (H, W, 3) uint8 RGB."""
        self._writer.add_image(tag, image, step, dataformats="HWC")

    def text(self, tag: str, text: str, step: int) -> None:
        """A text, shown as it is."""
        indented = "".join(f"    {line}\n" for line in text.splitlines())
        self._writer.add_text(tag, indented, step)

    def settings(self, settings: Mapping[str, bool | float | str]) -> None:
        """What the page HPARAMS compares runs by, in place of what was said of this run before.

        No experiment is described, which would hold for one run and hide what others vary: without
        one the page takes the settings of all runs, those that differ first, and every curve.
        """
        from torch.utils.tensorboard.summary import hparams

        # SummaryWriter.add_hparams would make a run of its own, in a folder below.
        _, started, _ = hparams(dict(settings), {})  # type: ignore[no-untyped-call]
        hidden = self._folder / ".settings"  # renamed when whole: a reader never sees a part
        hidden.write_bytes(_one_event(started))
        hidden.replace(self._folder / SETTINGS_NAME)

    def close(self) -> None:
        """Write what is left and close."""
        threading.excepthook = self._hook
        self._writer.close()

    def _on_thread_error(self, error: threading.ExceptHookArgs) -> None:
        """No stack trace of the thread that writes: its error is raised again at the next call."""
        if not type(error.thread).__module__.startswith("tensorboard."):
            self._hook(error)


def _one_event(summary: Any) -> bytes:
    """An event file that holds one summary."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    content = io.BytesIO()
    file = RecordWriter(content)
    for said in ({"file_version": "brain.Event:2"}, {"summary": summary}):
        file.write(Event(wall_time=time.time(), **said).SerializeToString())
    return content.getvalue()
