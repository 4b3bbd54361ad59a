"""A process that has imported what programs import, and forks them for tests; no test itself.

    python rank_parent.py

Importing torch, the part of it that every optimizer loads, and DeepSpeed takes five seconds of
processor time, and tests start hundreds of ranks. Each line of standard input asks for programs
that run side by side, as JSON:

    {"programs": [{"arguments": [..], "out": file, "err": file, "env": {..}}, ..], "seconds": ..}

Each becomes a process of its own that does what `python ARGUMENTS` does, and so do the local ranks
that it starts itself (`distill.processes.spawn`): parents, groups, signals and descriptors are as
if all had been started anew. When all have ended, or were killed after so many seconds, their exit
statuses are answered in one line.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

# What the programs import: a fork has it already.
import torch._dynamo  # every optimizer asks for it
import torch.utils.cpp_extension  # DeepSpeed asks for it
import torch.utils.tensorboard  # noqa: F401
from forked import FORKING, fork_program

import distill.__main__
import distill.checkpoint
import distill.cli.app
import distill.engine
import distill.evaluate.picture
import distill.evaluate.sets
import distill.processes.spawn
import distill.train
from distill.losses.fused import native_devices
from distill.processes.variables import variable

with variable("DS_ACCELERATOR", "cpu"):  # as `distill.engine` has it
    import deepspeed  # noqa: F401

POLL_SECONDS = 0.02


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
    """Until the input ends."""
    while line := sys.stdin.readline():
        asked = json.loads(line)
        processes = [start(program) for program in asked["programs"]]
        print(json.dumps(statuses(processes, asked["seconds"])), flush=True)


if __name__ == "__main__":
    native_devices()  # registers the operators
    distill.processes.spawn.subprocess = FORKING  # type: ignore[assignment]
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "a fork has one thread"
    gc.collect()
    gc.freeze()  # DeepSpeed's stage 3 collects garbage at each start, among all objects of torch
    serve()
