"""Programs as forks of a process that has imported what they import; no test itself."""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

DESCRIPTORS = Path("/proc/self/fd")
OURS = {int(entry.name) for entry in DESCRIPTORS.iterdir()}
"""Descriptors that the libraries may have opened; what came later is closed in a new program."""
POLL_SECONDS = 0.02


def fork_program(
    arguments: Sequence[str],
    streams: Sequence[int],
    *,
    env: Mapping[str, str],
    keep: Sequence[int] = (),
    process_group: int | None = None,
) -> int:
    """Forks a process that does what ``python ARGUMENTS`` does; its number.

    Args:
        arguments: a script, ``-m module`` or ``-c code``, and what it is given.
        streams: descriptors of its standard input, output and error.
        env: its environment.
        keep: other descriptors that it inherits.
        process_group: the one it joins, 0 for one of its own; None for that of this process.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if not process:
        if process_group is not None:
            os.setpgid(0, process_group)
        become(streams, keep, env)
        run_to_the_end(lambda: run(arguments))
    if process_group is not None:
        with contextlib.suppress(PermissionError, ProcessLookupError):  # it was quicker
            os.setpgid(process, process_group)
    return process


def become(streams: Sequence[int], keep: Sequence[int], env: Mapping[str, str]) -> None:
    """In the new process, all that starting another program changes but the program."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    for entry in list(DESCRIPTORS.iterdir()):
        if (number := int(entry.name)) not in OURS.union(keep):
            with contextlib.suppress(OSError):  # that of the listing itself
                os.close(number)
    os.environ.clear()
    os.environ.update(env)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def run(arguments: Sequence[str]) -> None:
    """What ``python ARGUMENTS`` runs."""
    first, *rest = arguments
    if first == "-c":
        sys.argv = [first, *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [first, *rest]
        sys.path.insert(0, str(Path(first).parent))
        runpy.run_path(first, run_name="__main__")


def run_to_the_end(program: Callable[[], None]) -> NoReturn:
    """Call ``program`` and end the process as Python ends, whoever called this function."""
    status = 1
    try:
        program()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - as Python does
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class ForkedProcess:
    """A `subprocess.Popen` of this Python, as far as `spawn_local` and torchrun use one."""

    def __init__(self, command: Sequence[str], **options: Any) -> None:
        python, *arguments = command
        assert python == sys.executable, python
        nothing = os.open(os.devnull, os.O_RDWR)
        streams = [
            {None: number, subprocess.DEVNULL: nothing}.get(options[name]) or options[name].fileno()
            for number, name in enumerate(("stdin", "stdout", "stderr"))
        ]
        self.pid = fork_program(
            arguments,
            streams,
            env=options["env"],
            keep=options["pass_fds"],
            process_group=options["process_group"],
        )
        os.close(nothing)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit status, minus the signal that killed it, or None while it runs."""
        if self.returncode is None and (ended := os.waitpid(self.pid, os.WNOHANG))[0]:
            self.returncode = os.waitstatus_to_exitcode(ended[1])
        return self.returncode

    def wait(self, _seconds: float | None = None) -> int:
        """Wait for its end, however long."""
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


FORKING = SimpleNamespace(Popen=ForkedProcess, DEVNULL=subprocess.DEVNULL)
"""In place of the module `subprocess` in `distill.processes.spawn`."""


def start(program: dict[str, Any]) -> int:
    """Fork a program; its process."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    Path(program["out"]).unlink(missing_ok=True)
    Path(program["err"]).unlink(missing_ok=True)
    streams = [os.open(os.devnull, os.O_RDONLY)]
    streams += [os.open(program[name], flags, 0o600) for name in ("out", "err")]
    process = fork_program(program["arguments"], streams, env=program["env"])
    for stream in streams:
        os.close(stream)
    return process


def statuses(processes: list[int], seconds: float) -> list[int]:
    """Exit statuses of all; those that take longer are killed."""
    found: dict[int, int] = {}
    deadline = time.monotonic() + seconds
    while len(found) < len(processes):
        for process in processes:
            if process not in found and (ended := os.waitpid(process, os.WNOHANG))[0]:
                found[process] = os.waitstatus_to_exitcode(ended[1])
            elif process not in found and time.monotonic() > deadline:
                os.kill(process, signal.SIGKILL)
        time.sleep(POLL_SECONDS)
    return [found[process] for process in processes]


def serve() -> None:
    """Fork what standard input asks for, until it ends; for a process that has imported all.

    Each line asks for programs that run side by side, as JSON:

        {"programs": [{"arguments": [..], "out": file, "err": file, "env": {..}}, ..],
         "seconds": ..}

    Each becomes a process of its own that does what `python ARGUMENTS` does. When all have ended,
    or were killed after so many seconds, their exit statuses are answered in one line.
    """
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "a fork has one thread"
    gc.collect()
    gc.freeze()  # DeepSpeed's stage 3 collects garbage at each start, among all objects of torch
    while line := sys.stdin.readline():
        asked = json.loads(line)
        processes = [start(program) for program in asked["programs"]]
        print(json.dumps(statuses(processes, asked["seconds"])), flush=True)
