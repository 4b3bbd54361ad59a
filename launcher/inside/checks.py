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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import distill
from distill.checkpoint.folder import clear_leftovers
from distill.checkpoint.space import bytes_to_come, check_room
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
_TOLD = 5
"""Nodes that are named of one fault: a job of a thousand ranks would else fill a log with one."""
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
            fix=f"{REMEDY}; where other nodes show theirs, leave this one out with --exclude HOST",
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
    measured: Report = {"sum_is_wrong": wrong, "all_reduce_gb_per_s": speed, "unremoved": []}
    if ranks.is_first:  # as the next save would: what killed ones left is room
        measured["unremoved"] = [p.name for p in clear_leftovers(plan.run.checkpoints)]
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
    _refuse(faults, plan.run.checkpoints, reports)
    return {
        "hosts": _hosts(reports),
        "world_size": ranks.world_size,
        "all_reduce_gb_per_s": round(bandwidth, 3),
        "clock_skew_seconds": round(skew, 3),
        "free_gb": round(min(r["free_bytes"] for r in reports) / 1e9, 1),
        "checkpoint_gb": round(reports[0]["needed_bytes"] / 1e9, 3),
    }


def _refuse(faults: list[str], checkpoints: Path, reports: Sequence[Report]) -> None:
    """One error for ``faults`` of nodes and for a disk without room, with the remedy for each."""
    fixes = ["mend the node, or leave it out with --exclude HOST"] if faults else []
    try:
        judge_room(checkpoints, reports)
    except UserError as error:
        faults.append(error.what)
        fixes.append(error.fix)
    if faults:
        raise UserError(f"start-up checks: {'; '.join(faults)}", fix="; ".join(fixes))


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
    if len(between) > _TOLD:
        between[_TOLD:] = [f"{len(between) - _TOLD} more are faster"]
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
    """What is wrong with nodes, each with those it is wrong on.

    The clocks of many ranks are read at about the same time, right after a barrier.
    """
    middle = sorted(report["clock"] for report in reports)[len(reports) // 2]
    first = reports[0]

    def told(wrong: Callable[[Report], bool], words: Callable[[Report, str], str]) -> Iterator[str]:
        return _by_node([report for report in reports if wrong(report)], words)

    yield from told(
        lambda r: r["code"] != job.code_digest,
        lambda r, on: f"other sources {on}: {r['code'][:12]}, not {job.code_digest[:12]}",
    )
    yield from told(
        lambda r: r["config"] != first["config"],
        lambda _, on: f"other settings {on} than on {first['host']}",
    )
    yield from told(
        lambda r: r["gpus"] < job.gpus_per_node,
        lambda r, on: f"{r['gpus']} GPU(s) {on}, not {job.gpus_per_node}",
    )
    yield from told(lambda r: r["sum_is_wrong"], lambda _, on: f"all-reduce gives a wrong sum {on}")
    yield from told(
        lambda r: abs(r["clock"] - middle) > job.max_clock_skew_seconds,
        lambda r, on: f"the clock {on} is {r['clock'] - middle:+.1f} s off",
    )


def _by_node(wrong: Sequence[Report], words: Callable[[Report, str], str]) -> Iterator[str]:
    """A fault in ``words`` once for each node, of its first rank; many nodes are only counted."""
    nodes: dict[str, list[Report]] = {}
    for report in wrong:
        nodes.setdefault(report["host"], []).append(report)
    for host, (one, *others) in list(nodes.items())[:_TOLD]:
        more = f" and {len(others)} more" if others else ""
        yield words(one, f"on {host} (rank {one['rank']}{more})")
    if len(nodes) > _TOLD:
        yield f"so on {len(nodes) - _TOLD} more nodes"


def judge_room(checkpoints: Path, reports: Sequence[Report]) -> None:
    """Refuse a disk without room: one for all ranks, so it is judged once, as the fullest sees it.

    Raises:
        UserError: see `check_room`.
    """
    needed = max(report["needed_bytes"] for report in reports)
    least = min(reports, key=lambda report: report["free_bytes"])
    where = f" on {least['host']} (rank {least['rank']})"
    check_room(checkpoints, needed, least["free_bytes"], reports[0]["unremoved"], where)


def _hosts(reports: Sequence[Report]) -> list[str]:
    return list(dict.fromkeys(report["host"] for report in reports))


def write_report(path: Path, found: Report) -> None:
    """Keep what was found."""
    write_whole(path, json.dumps(found, indent=1).encode())
