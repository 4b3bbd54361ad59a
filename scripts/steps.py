"""Shows what the set-up is doing, one line a step, and keeps the full output in a log file.

On a terminal the line of a running step counts its seconds; elsewhere it is printed when it starts
and when it ends. Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

TAIL_LINES = 15


class SetupError(Exception):
    """Something a person has to mend; its text is the whole message."""


class Steps:
    """Runs commands as named steps; their output goes to one log file.

    Args:
        log: file that receives the commands and their output; its folder is created.
        out: where the lines for people go.
    """

    def __init__(self, log: Path, out: TextIO = sys.stdout) -> None:
        self.log = log
        self.out = out
        self.live = out.isatty()
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("")

    def say(self, text: str) -> None:
        """Print one line."""
        print(text, file=self.out, flush=True)

    def run(self, title: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        """Run ``argv`` to its end as the step ``title``.

        Raises:
            SetupError: the command failed; the text holds the end of its output and the log's path.
        """
        started = time.monotonic()
        self._begin(title)
        with self.log.open("a") as log:
            print(f"\n$ {' '.join(argv)}", file=log, flush=True)
            offset = log.tell()
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=env
            )
            self._wait(process, title, started)
        seconds = time.monotonic() - started
        if process.returncode:
            self._end(title, seconds, "FAILED")
            raise SetupError(self._failure(title, offset))
        self._end(title, seconds, "done")

    def _wait(self, process: subprocess.Popen[bytes], title: str, started: float) -> None:
        try:
            while process.poll() is None:
                time.sleep(0.1)
                if self.live:
                    seconds = time.monotonic() - started
                    print(f"\r  {title} ... {seconds:.0f} s", end="", file=self.out, flush=True)
        except BaseException:
            process.terminate()
            process.wait()
            raise

    def _begin(self, title: str) -> None:
        if not self.live:
            self.say(f"  {title} ...")

    def _end(self, title: str, seconds: float, outcome: str) -> None:
        start = "\r" if self.live else ""
        self.say(f"{start}  {title}: {outcome} in {seconds:.0f} s")

    def _failure(self, title: str, offset: int) -> str:
        with self.log.open(errors="replace") as log:
            log.seek(offset)
            tail = log.read().splitlines()[-TAIL_LINES:]
        quoted = "\n".join(f"  | {line}" for line in tail)
        return f"{title} failed; the end of its output:\n{quoted}\nAll of it: {self.log}"
