"""A process that a signal stops or kills at a chosen change of the disk; no test itself."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Change = Callable[[str, tuple], bool]
"""Whether a change is the chosen one, by Python's audit event and its arguments."""


def renames(*, ending: str) -> Change:
    """The change that gives something a path that ends like this."""
    return lambda event, args: event == "os.rename" and os.fspath(args[1]).endswith(ending)


def removes(ending: str) -> Change:
    """The change that removes a file or a tree whose path ends like this."""
    return lambda event, args: (
        event in ("os.remove", "shutil.rmtree") and os.fspath(args[0]).endswith(ending)
    )


def fork(work: Callable[[], object], signal_number: int = 0, at: Change | None = None) -> int:
    """A fork of this process that does ``work``, and gets the signal right before the change.

    Its exit status is 1 where ``work`` raised something, which it prints.
    """
    sys.stdout.flush()
    if process := os.fork():
        return process
    status = 1
    try:
        if at is not None:
            sent = []

            def watch(event: str, args: tuple) -> None:
                if (
                    not sent
                    and event in ("os.rename", "os.remove", "shutil.rmtree")
                    and at(event, args)
                ):
                    sent.append(event)
                    os.kill(os.getpid(), signal_number)

            sys.addaudithook(watch)
        work()
        status = 0
    except BaseException as error:  # noqa: BLE001 - whatever it was, the parent goes on alone
        print(error, file=sys.stderr)
    finally:
        os._exit(status)


@contextmanager
def stopped_at(work: Callable[[], object], at: Change) -> Iterator[None]:
    """Does ``work`` in a process that stands still, right before the change, during the block."""
    process = fork(work, signal.SIGSTOP, at)
    try:
        assert os.WIFSTOPPED(os.waitpid(process, os.WUNTRACED)[1]), "no such change"
        yield
    except BaseException:
        os.kill(process, signal.SIGKILL)
        raise
    os.kill(process, signal.SIGCONT)
    assert end_of(process) == 0


def end_of(process: int) -> int:
    """Waits for its end: exit status, or the number of the signal below 0."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def killed_at(work: Callable[[], object], at: Change) -> None:
    """Does ``work`` in a process that is killed right before the change."""
    assert end_of(fork(work, signal.SIGKILL, at)) == -signal.SIGKILL, "no such change"
