"""Shows what the set-up is doing, one line a step, and keeps the full output in a log file.

On a terminal the line of a running step counts its seconds; elsewhere it is printed when it starts
and when it ends. Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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

    def run(
        self,
        title: str,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        advice: str = "",
    ) -> None:
        """Run ``argv`` to its end as the step ``title``.

        Raises:
            SetupError: the command failed; the text holds the end of its output, the log's path and
                the ``advice``.
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
        self._end(process, title, started)
        if process.returncode:
            raise SetupError(failure(title, self.log, offset) + advice)

    @contextmanager
    def meanwhile(
        self,
        title: str,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        advice: str = "",
    ) -> Iterator[None]:
        """Run ``argv`` as the step ``title`` beside the steps of a block, which ends after it.

        Where the block fails, ``argv`` and all that it started are ended with it.

        Raises:
            SetupError: as for ``run``; the output is in a log file of its own.
        """
        started = time.monotonic()
        self.say(f"  {title}, beside what follows ...")
        log = self.log.with_name(f"{self.log.stem}-meanwhile{self.log.suffix}")
        with log.open("w") as out:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
            )
        try:
            yield
            self._wait(process, title, started)
        except BaseException:
            end_group(process)
            raise
        self._end(process, title, started)
        if process.returncode:
            raise SetupError(failure(title, log) + advice)

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

    def _end(self, process: subprocess.Popen[bytes], title: str, started: float) -> None:
        seconds = time.monotonic() - started
        outcome = "FAILED" if process.returncode else "done"
        start = "\r" if self.live else ""
        self.say(f"{start}  {title}: {outcome} in {seconds:.0f} s")


def failure(title: str, log: Path, offset: int = 0) -> str:
    """The message for a step that failed: the end of what it wrote to ``log`` after ``offset``."""
    with log.open(errors="replace") as file:
        file.seek(offset)
        tail = file.read().splitlines()[-TAIL_LINES:]
    quoted = "\n".join(f"  | {line}" for line in tail)
    return f"{title} failed; the end of its output:\n{quoted}\nAll of it: {log}"


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads a group, and all that it started there."""
    with suppress(ProcessLookupError):  # all of it has ended
        os.killpg(process.pid, signal.SIGTERM)
    process.wait()
