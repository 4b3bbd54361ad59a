"""Programs that need the same imports, each in a process of its own; no test itself.

Importing torch takes 2 s of processor time. One process imports what all of them need, and is
forked for each: run as a file, this is that process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from rank_processes import PARENT, forked_by

ROOT = Path(__file__).parents[3]


class Forks:
    """The process that imports, once, and the programs it is forked for.

    Args:
        imports: Python to run first, with ``words`` as ``sys.argv[1:]``.
        words: for it.
        folders: where modules are looked for beside the project's.
    """

    def __init__(self, imports: str, *words: str, folders: list[Path]) -> None:
        path = os.pathsep.join(map(str, (ROOT, PARENT.parent, *folders)))
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
        """``program``, for which all is imported, with ``words`` and ``environment``."""
        return forked_by(self.parent, ["-c", program, *words], env=environment)

    def end(self) -> None:
        self.parent.communicate()


if __name__ == "__main__":
    from forked import serve

    exec(sys.argv.pop(1), {"__name__": "__main__"})
    serve()
