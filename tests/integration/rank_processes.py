"""Starts the processes of a test that plays several ranks on this machine."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path

PARENT = Path(__file__).with_name("rank_parent.py")


@functools.cache
def parent() -> subprocess.Popen[str]:
    """The process that forks ranks; one for all tests of this process, and ends with it."""
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, PARENT], stdin=pipe, stdout=pipe, text=True)


def play(script: Path, *words: str | Path, ranks: int, folder: Path, seconds: float = 400) -> str:
    """Runs ``script WORDS RANK RANKS`` once for each rank, all at once; what they wrote.

    Args:
        script: what each process runs.
        words: given to all, before the rank and the number of ranks.
        ranks: how many.
        folder: for their output, and for what DeepSpeed may build.
        seconds: after which all are killed.
    """
    asked = {"script": str(script), "words": [str(word) for word in words], "ranks": ranks}
    asked |= {"folder": str(folder), "seconds": seconds}
    server = parent()
    assert server.stdin and server.stdout
    print(json.dumps(asked), file=server.stdin, flush=True)
    statuses = json.loads(server.stdout.readline())
    outputs = [(folder / f"{rank}.out").read_text() for rank in range(ranks)]
    for status, output in zip(statuses, outputs, strict=True):
        assert status == 0, output
    return "".join(outputs)
