"""Starts the processes of a test that plays several ranks on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def play(script: Path, *words: str | Path, ranks: int, folder: Path, seconds: float = 400) -> str:
    """Runs ``script WORDS RANK RANKS`` once for each rank, all at once; what they wrote.

    Args:
        script: what each process runs.
        words: given to all, before the rank and the number of ranks.
        ranks: how many.
        folder: for what DeepSpeed may build.
        seconds: after which all are killed.
    """
    environment = os.environ | {"TORCH_EXTENSIONS_DIR": str(folder / "extensions")}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    processes = [
        subprocess.Popen(
            [sys.executable, script, *words, str(rank), str(ranks)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(ranks)
    ]
    try:
        outputs = [process.communicate(timeout=seconds)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output
    return "".join(outputs)
