"""Logs of one JSON object a line, of which a kill may cut off the last and a disk damage any."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read_objects(path: Path) -> list[dict[str, Any]]:
    """The objects of the whole lines of a log, in order; none where there is no log yet.

    Raises:
        OSError: it cannot be read.
    """
    return list(objects_of(path.read_bytes())) if path.exists() else []


def objects_of(data: bytes) -> Iterator[dict[str, Any]]:
    """The objects in a log, or in a piece that was cut out of one; other lines are left out."""
    for line in data.decode(errors="replace").splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            yield found
