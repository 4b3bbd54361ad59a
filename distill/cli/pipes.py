"""Results that go into a pipe or a file: who reads them may have gone, the disk may be full."""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from distill.files import disk_error

READER_GONE = 128 + signal.SIGPIPE
"""Exit status where ``| head`` had enough, as shells have it for programs that the signal ends."""


@contextmanager
def results() -> Iterator[None]:
    """What the block prints gets out; a reader that has gone ends the program without a word.

    Raises:
        UserError: standard output cannot be written.
    """
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:  # started with `>&-`
                sys.stdout.flush()
    except OSError as error:
        if not _from_stdout(error):
            raise
        _discard(sys.stdout)
        if error.errno == errno.EPIPE:
            sys.exit(READER_GONE)
        raise disk_error(Path("standard output"), error) from error


def _from_stdout(error: OSError) -> bool:
    """Whether it is standard output that cannot be written."""
    handle = sys.stdout.fileno()
    if error.errno == errno.EPIPE:
        poll = select.poll()
        poll.register(handle, select.POLLOUT)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    try:
        os.write(handle, b"\n")
    except OSError:
        return True
    return False


def forget_progress() -> None:
    """Let go what nobody can read of standard error: Python 3.13 would end with a status for it."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.flush()
    except OSError:
        _discard(sys.stderr)


def _discard(stream: TextIO) -> None:
    """Nothing more gets out; else Python tries once more when it ends, and complains."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
