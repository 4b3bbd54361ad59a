"""The benchmarks' clock: steps timed in turn, on the host or by the device's own events."""

from __future__ import annotations

import statistics
import time

import torch

from distill.losses.bench_peers import LIGER, QUACK, Step, prepare

COMPILED = "torch.compile"
OTHERS = ("plain", COMPILED, LIGER, QUACK)
"""Whose failures are noted in the table: any error at all, as their code raises what it likes."""
CALLS_ON_CUDA = 10
"""Calls of a round on CUDA, queued together; their median counts."""
BUSY_CYCLES = 40_000_000
"""For which the device spins before a round, so that the host is ahead of it: about 20 ms."""
OTHERS_NUMBERS = 2**26
"""float32 numbers read before each call: more than any level-2 cache, and nothing left to write."""


def seconds(step: Step, device: str) -> float:
    """Wall time of one call; on CUDA the device's time between events around it."""
    if device == "cuda":
        return _device_seconds(step)
    prepare(step)
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _device_seconds(step: Step) -> float:
    others = torch.zeros(OTHERS_NUMBERS, device="cuda")
    events = [
        [torch.cuda.Event(enable_timing=True) for _ in range(2)]  # type: ignore[no-untyped-call]
        for _ in range(CALLS_ON_CUDA)
    ]
    torch.cuda._sleep(BUSY_CYCLES)  # type: ignore[no-untyped-call]
    for start, end in events:
        prepare(step)
        others.sum()
        start.record()
        step()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(float(start.elapsed_time(end)) for start, end in events) / 1e3


def times(
    steps: dict[str, Step], device: str, rounds: int, failed: dict[str, str] | None = None
) -> dict[str, list[float]]:
    """Seconds of each step in each round, timed in turn; one round before that warms up.

    Args:
        steps: by name.
        device: ``cpu`` or ``cuda``.
        rounds: how many count.
        failed: takes the names of others' steps that fail, and why; they are left out from then
            on. None: every failure is raised.
    """
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for done in range(rounds + 1):
        for name, step in steps.items():
            if failed and name in failed:
                continue
            spent = 0.0

            def timed(step: Step = step) -> None:
                nonlocal spent
                spent = seconds(step, device)

            if failed is None:
                timed()
            elif reason := failure(name, timed):
                failed[name] = reason
            if done:
                taken[name].append(spent)
    return {name: spent for name, spent in taken.items() if name not in (failed or {})}


def medians(steps: dict[str, Step], device: str, rounds: int) -> dict[str, float]:
    """Median seconds of each step."""
    taken = times(steps, device, rounds)
    return {name: statistics.median(values) for name, values in taken.items()}


def failure(name: str, step: Step) -> str:
    """Call a step; why it failed, in one line, or blank. What fails of ours is raised."""
    try:
        step()
    except Exception as error:
        if name not in OTHERS:
            raise
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""
