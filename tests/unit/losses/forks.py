"""Programs that need the same imports, each in a process of its own; no test itself.

Importing torch takes 2 s of processor time. One process imports what all of them need, and is
forked for each: run as a file, this is that process. Each line of its standard input asks for a
program, as JSON, and its exit status is answered in one line.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]


class Forks:
    """The process that imports, once, and the programs it is forked for.

    Args:
        imports: Python to run first, with ``words`` as ``sys.argv[1:]``.
        words: for it.
        folders: where modules are looked for beside the project's.
    """

    def __init__(self, imports: str, *words: str, folders: list[Path]) -> None:
        path = os.pathsep.join(map(str, (ROOT, *folders)))
        self.parent = subprocess.Popen(
            [sys.executable, __file__, imports, *words],
            env={**os.environ, "PYTHONPATH": path},
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, program: str, *words: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """``program``, which has what was imported, ``words`` and ``environment``."""
        assert self.parent.stdin and self.parent.stdout
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            asked = {"program": program, "words": words, "environment": environment}
            asked |= {"out": str(out), "err": str(err)}
            print(json.dumps(asked), file=self.parent.stdin, flush=True)
            status = int(self.parent.stdout.readline())
            said = out.read_text(), err.read_text()
        return subprocess.CompletedProcess([program, *words], status, *said)

    def end(self) -> None:
        self.parent.communicate()


def become(asked: dict[str, Any]) -> str:
    """In the new process: its input and output, its arguments; the program."""
    streams = [(os.devnull, os.O_RDONLY)]
    streams += [(asked[name], os.O_WRONLY | os.O_CREAT) for name in ("out", "err")]
    for number, (name, how) in enumerate(streams):
        os.dup2(os.open(name, how), number)
    os.environ.update(asked["environment"])
    sys.argv = ["-c", *asked["words"]]
    return asked["program"]


def serve() -> str:
    """In a fork, its program; in the parent nothing, when the input ends."""
    while line := sys.stdin.readline():
        asked = json.loads(line)
        process = os.fork()
        if not process:
            return become(asked)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
    return ""


if __name__ == "__main__":
    from distill.processes.leave import run_and_leave

    imports, known = sys.argv.pop(1), {"__name__": "__main__"}
    exec(imports, known)
    gc.collect()
    gc.freeze()  # what was imported is no fork's garbage
    if program := serve():
        run_and_leave(lambda: exec(program, known))
