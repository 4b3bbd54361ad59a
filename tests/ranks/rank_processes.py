"""Starts programs as forks of one process that has imported what they import (`rank_parent`).

What a start from nothing does is shown where programs are started by `subprocess`.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

PARENT = Path(__file__).with_name("rank_parent.py")
LAUNCH = """
import sys
from distill.processes.spawn import spawn_local
ranks, script, *words = sys.argv[1:]
sys.exit(spawn_local(words, int(ranks), program=[sys.executable, script]))
"""


@functools.cache
def parent() -> subprocess.Popen[str]:
    """The process that forks; one for all tests of this process, and ends with it."""
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, PARENT], stdin=pipe, stdout=pipe, text=True)


def fork(
    server: subprocess.Popen[str], programs: Sequence[Mapping[str, object]], seconds: float
) -> list[int]:
    """Has ``server`` fork ``programs``; their exit statuses, minus the signal for one killed."""
    assert server.stdin and server.stdout
    print(json.dumps({"programs": programs, "seconds": seconds}), file=server.stdin, flush=True)
    return list(json.loads(server.stdout.readline()))


def play(script: Path, *words: str | Path, ranks: int, folder: Path, seconds: float = 400) -> str:
    """Runs ``script WORDS RANK RANKS`` once for each rank, all at once; what they wrote.

    Args:
        script: what each process runs.
        words: given to all, before the rank and the number of ranks.
        ranks: how many.
        folder: for their output, and for what DeepSpeed may build.
        seconds: after which all are killed.
    """
    outputs = [str(folder / f"{rank}.out") for rank in range(ranks)]
    env = os.environ | {"TORCH_EXTENSIONS_DIR": str(folder / "extensions")}
    arguments = [[str(word) for word in (script, *words, rank, ranks)] for rank in range(ranks)]
    programs = [
        {"arguments": mine, "out": output, "err": output, "env": env}
        for mine, output in zip(arguments, outputs, strict=True)
    ]
    statuses = fork(parent(), programs, seconds)
    told = [Path(output).read_text() for output in outputs]
    for status, output in zip(statuses, told, strict=True):
        assert status == 0, output
    return "".join(told)


def python(*arguments: str, seconds: float = 600, **env: str) -> subprocess.CompletedProcess[str]:
    """What ``python ARGUMENTS`` does, which may start local ranks; they are forks too.

    Args:
        arguments: a script, ``-m module`` or ``-c code``, and what it is given.
        seconds: after which it is killed.
        env: variables beside those of this process.
    """
    return forked_by(parent(), arguments, seconds=seconds, env=env)


def forked_by(
    server: subprocess.Popen[str],
    arguments: Sequence[str],
    *,
    seconds: float = 600,
    env: Mapping[str, str],
) -> subprocess.CompletedProcess[str]:
    """`python` of another process that forks."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = (Path(folder, name) for name in ("out", "err"))
        program = {"arguments": arguments, "out": str(out), "err": str(err)}
        (status,) = fork(server, [program | {"env": {**os.environ, **env}}], seconds)
        return subprocess.CompletedProcess(arguments, status, out.read_text(), err.read_text())


def on_ranks(
    script: Path, *words: str | Path, ranks: int, **env: str
) -> subprocess.CompletedProcess[str]:
    """``script WORDS`` as so many local ranks, looked after as `spawn_local` does it."""
    return python("-c", LAUNCH, *map(str, (ranks, script, *words)), **env)
