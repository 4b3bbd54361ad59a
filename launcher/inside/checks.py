"""Before the first step: do all nodes run the same thing, see what they should, and talk well?

Each rank reports on itself, every rank compares all reports, and each failure names the node.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import distill
from distill.checkpoint.space import bytes_to_come
from distill.collectives import all_reduce_sum, barrier, echo, gather_objects
from distill.config import dump_toml
from distill.errors import UserError
from distill.files import write_whole
from distill.gpus import REMEDY
from distill.ranks import why_unseen
from launcher.jobfile import JobFile
from launcher.snapshot import code_digest

if TYPE_CHECKING:
    from distill.config import Config
    from distill.engine import Engine
    from distill.plan import Plan
    from distill.ranks import Ranks

_REDUCED_ELEMENTS = 1 << 22
_REPEATS = 3
Report = dict[str, Any]


def check_device(job: JobFile, config: Config, ranks: Ranks) -> None:
    """Refuse to train on the CPU of a node whose GPUs the job was given, unless that is asked for.

    Each rank for itself, before it meets others: one on the CPU cannot meet those on GPUs.

    Raises:
        UserError: this node, and why torch sees none.
    """
    given = max(job.gpus_per_node, _gpus())
    if ranks.device.type == "cpu" and config.run.device != "cpu" and given:
        raise UserError(
            f"start-up checks: torch sees no CUDA device on {socket.gethostname()} (rank"
            f" {ranks.rank}), where the job has {given} GPU(s): {why_unseen()}",
            fix=REMEDY,
        )


def check_all(job: JobFile, config: Config, engine: Engine, plan: Plan) -> Report:
    """Make every check, on all ranks together.

    Returns:
        What was found, alike on all ranks: bandwidth, hosts, clock skew, free space.

    Raises:
        UserError: all that is wrong, each with its node, on all ranks.
    """
    ranks = engine.ranks
    speed, wrong = all_reduce(ranks)
    measured = {"sum_is_wrong": wrong, "all_reduce_gb_per_s": speed}
    barrier()
    # Before anything that takes some ranks longer than others, such as reading the sources.
    measured["clock"] = time.time()
    reports = gather_objects(report_of(job, config, engine, plan) | measured)
    skew = max(r["clock"] for r in reports) - min(r["clock"] for r in reports)
    faults = list(judge(job, reports))
    # The slowest rank's figure: one decision, the same on all.
    bandwidth = min(r["all_reduce_gb_per_s"] for r in reports)
    if ranks.world_size > 1 and bandwidth < job.min_allreduce_gb_per_s:
        slow = f"all-reduce at {bandwidth:.2f} GB/s, less than {job.min_allreduce_gb_per_s:.2f}"
        faults.append(f"{slow}: {links(ranks, reports)}")
    if faults:
        raise UserError(
            f"start-up checks: {'; '.join(faults)}",
            fix="mend the node, or leave it out with --exclude HOST",
        )
    return {
        "hosts": _hosts(reports),
        "world_size": ranks.world_size,
        "all_reduce_gb_per_s": round(bandwidth, 3),
        "clock_skew_seconds": round(skew, 3),
        "free_gb": round(min(r["free_bytes"] for r in reports) / 1e9, 1),
        "checkpoint_gb": round(reports[0]["needed_bytes"] / 1e9, 3),
    }


def all_reduce(ranks: Ranks) -> tuple[float, bool]:
    """Bandwidth of an all-reduce of 16 MB in GB/s (bytes / second of one rank), and if it erred.

    Rank r contributes r + 1, so that the sum is W (W + 1) / 2 exactly.
    """
    values = torch.full((_REDUCED_ELEMENTS,), float(ranks.rank + 1), device=ranks.device)
    total = all_reduce_sum(values)  # the first one sets up connections
    barrier()
    began = time.perf_counter()
    for _ in range(_REPEATS):
        total = all_reduce_sum(values)
    if ranks.device.type == "cuda":
        torch.cuda.synchronize(ranks.device)
    seconds = time.perf_counter() - began
    expected = ranks.world_size * (ranks.world_size + 1) / 2
    wrong = bool((total != expected).any().item())
    return _REPEATS * values.numel() * 4 / seconds / 1e9, wrong


def links(ranks: Ranks, reports: Sequence[Report]) -> str:
    """How fast the first node talks with each of the others, slowest first; a collective.

    One after the other, so that a slow node or cable shows in its own figure alone.
    """
    hosts = _hosts(reports)
    first_ranks = [next(r["rank"] for r in reports if r["host"] == host) for host in hosts]
    speeds = [_link_gb_per_s(ranks, first_ranks[0], other) for other in first_ranks[1:]]
    found = zip(gather_objects(speeds)[first_ranks[0]], hosts[1:], strict=True)
    between = [f"{speed:.2f} GB/s between {hosts[0]} and {host}" for speed, host in sorted(found)]
    return ", ".join(between) or f"all on {hosts[0]}"


def _link_gb_per_s(ranks: Ranks, first: int, second: int) -> float:
    """Bandwidth from one rank to another and back, as ``first`` measures it."""
    values = torch.zeros(_REDUCED_ELEMENTS, device=ranks.device)
    echo(values, first, second)  # sets up the connection
    barrier()
    began = time.perf_counter()
    echo(values, first, second)
    seconds = max(time.perf_counter() - began, 1e-9)  # nothing on ranks that only look on
    return 2 * values.numel() * 4 / seconds / 1e9


def report_of(job: JobFile, config: Config, engine: Engine, plan: Plan) -> Report:
    """What this rank has to say of itself."""
    sources = Path(distill.__file__).resolve().parents[1]
    on_this_node = engine.ranks.local_rank == 0  # the others would read the same files
    return {
        "rank": engine.ranks.rank,
        "host": socket.gethostname(),
        "code": code_digest(sources) if on_this_node else job.code_digest,
        "config": hashlib.sha256(dump_toml(config).encode()).hexdigest(),
        "gpus": _gpus(),
        "free_bytes": shutil.disk_usage(plan.run.root).free,
        "needed_bytes": bytes_to_come(
            plan.run.checkpoints, engine, config.checkpoint, plan.total_steps
        ),
    }


def _gpus() -> int:
    """GPUs that the job may use on this node, whether or not each rank is shown them all."""
    on_node = os.environ.get("SLURM_GPUS_ON_NODE", "")
    return int(on_node) if on_node.isdecimal() else torch.cuda.device_count()


def judge(job: JobFile, reports: Sequence[Report]) -> Iterator[str]:
    """What is wrong, each with the node it is wrong on.

    The clocks of many ranks are read at about the same time, right after a barrier.
    """
    middle = sorted(report["clock"] for report in reports)[len(reports) // 2]
    for report in reports:
        where = f"on {report['host']} (rank {report['rank']})"
        if report["code"] != job.code_digest:
            yield f"other sources {where}: {report['code'][:12]}, not {job.code_digest[:12]}"
        if report["config"] != reports[0]["config"]:
            yield f"other settings {where} than on {reports[0]['host']}"
        if report["gpus"] < job.gpus_per_node:
            yield f"{report['gpus']} GPU(s) {where}, not {job.gpus_per_node}"
        if report["sum_is_wrong"]:
            yield f"all-reduce gives a wrong sum {where}"
        if abs(report["clock"] - middle) > job.max_clock_skew_seconds:
            yield f"the clock {where} is {report['clock'] - middle:+.1f} s off"
        if report["free_bytes"] < report["needed_bytes"]:
            needed, free = report["needed_bytes"] / 1e9, report["free_bytes"] / 1e9
            yield f"checkpoints need {needed:.2f} GB, and {free:.2f} GB are free {where}"


def _hosts(reports: Sequence[Report]) -> list[str]:
    return list(dict.fromkeys(report["host"] for report in reports))


def write_report(path: Path, found: Report) -> None:
    """Keep what was found."""
    write_whole(path, json.dumps(found, indent=1).encode())
