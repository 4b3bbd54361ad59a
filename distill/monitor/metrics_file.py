"""metrics.jsonl: one JSON object for each logged step, floats in full precision, NaN as null."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.json_lines import read_objects


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a metrics file, in order.

    Left out are a last line that a kill has cut off, and others that a disk has damaged.

    Raises:
        OSError: it cannot be read.
    """
    return [line for line in read_objects(path) if isinstance(line.get("step"), int)]


class MetricsFile:
    """Appends to a metrics file (or to one of events, which has the same form).

    Args:
        path: the file; made where it is missing.
        resumed_step: steps that are done; later lines, of the run that was cut off, are dropped,
            so that no step stands twice.
    """

    def __init__(self, path: Path, resumed_step: int) -> None:
        kept = [line for line in read_metrics(path) if line["step"] <= resumed_step]
        partial = path.with_suffix(".part")
        partial.write_text("".join(map(_line, kept)), encoding="utf-8")
        partial.replace(path)
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Add one line and hand it to the operating system."""
        self._file.write(_line({"step": step, **scalars}))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _line(values: dict[str, Any]) -> str:
    # Python writes a float with as many digits as give back the very same float; JSON has no NaN.
    plain = {tag: _or_null(value) for tag, value in values.items()}
    return json.dumps(plain, allow_nan=False) + "\n"


def _or_null(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
