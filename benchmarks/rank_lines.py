"""Lines of a table that ranks of this machine measure, for benchmarks that start themselves anew.

A benchmark starts its own file once for each number of ranks, with ``--lines FILE`` behind its
options; there rank 0 writes down what was measured, and here it is read.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from distill.processes.spawn import spawn_local


def measured(script: str, counts: Sequence[int]) -> Iterator[list[dict[str, Any]]]:
    """What ``script`` measured on each number of ranks, a list of lines each.

    Raises:
        SystemExit: ranks failed; with their status.
    """
    for ranks in counts:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "lines.jsonl")
            program = [sys.executable, script, *sys.argv[1:], "--lines", str(path)]
            if status := spawn_local([], ranks, program=program):
                raise SystemExit(status)
            yield [json.loads(line) for line in path.read_text().splitlines()]


def write_down(path: str, lines: Iterable[dict[str, Any]]) -> None:
    """Add lines to those that were measured before."""
    with Path(path).open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def numbers(words: str) -> list[int]:
    """Whole numbers with commas between them."""
    return [int(float(word)) for word in words.split(",")]
