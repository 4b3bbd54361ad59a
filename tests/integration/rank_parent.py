"""A process that has imported torch, and forks the ranks that tests play; no test itself.

    python rank_parent.py

Importing torch and the part of it that every optimizer loads takes seconds of processor time, and
tests play dozens of ranks. Each line of standard input asks for some of them, as JSON:

    {"script": file, "words": [..], "ranks": how many, "folder": for what they write, "seconds": ..}

Each rank is a process of its own that runs SCRIPT WORDS RANK RANKS as a program, with its output in
FOLDER/RANK.out. When all have ended, their exit statuses are answered in one line.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import signal
import sys
import time
from pathlib import Path
from typing import Any

# What the ranks import: a fork has it already.
import torch._dynamo  # every optimizer asks for it  # noqa: F401

import distill.checkpoint
import distill.engine
import distill.step  # noqa: F401
from distill.processes.leave import run_and_leave

POLL_SECONDS = 0.02


def become(asked: dict[str, Any], rank: int) -> list[str]:
    """In the new process: its output, its environment; the arguments of its program."""
    out = os.open(Path(asked["folder"], f"{rank}.out"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for mine, stream in ((nothing, 0), (out, 1), (out, 2)):
        os.dup2(mine, stream)
    os.environ["TORCH_EXTENSIONS_DIR"] = str(Path(asked["folder"], "extensions"))
    return [asked["script"], *asked["words"], str(rank), str(asked["ranks"])]


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


def serve() -> list[str]:
    """In a rank, the arguments of its program; in the parent nothing, when the input ends."""
    while line := sys.stdin.readline():
        asked, processes = json.loads(line), []
        for rank in range(asked["ranks"]):
            process = os.fork()
            if not process:
                return become(asked, rank)
            processes.append(process)
        print(json.dumps(statuses(processes, asked["seconds"])), flush=True)
    return []


if __name__ == "__main__":
    gc.collect()
    gc.freeze()  # DeepSpeed's stage 3 collects garbage at each start, among all objects of torch
    if arguments := serve():
        sys.argv = arguments
        run_and_leave(lambda: runpy.run_path(arguments[0], run_name="__main__"))
