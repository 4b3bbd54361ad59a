"""What the planner found, as tables of a terminal, as JSON, and as the error where nothing fits."""

from __future__ import annotations

import math
from typing import Any

from rich.table import Table

from distill.errors import UserError
from distill.planner.choose import RECOMPUTE, Comparison, Row
from distill.planner.memory import PARTS

GIB = 2**30


def heading(found: Comparison, network: str) -> str:
    """What was asked, in two lines, and what the figures leave out, a line each."""
    job, machine = found.job, found.machine
    what = "pairs" if job.images_per_pair == 2 else "images"
    times = f" in {job.accumulation} forward passes" if job.accumulation > 1 else ""
    return (
        f"{network}, {job.classes} identities, {job.precision}, {job.optimizer}:"
        f" {job.global_pairs} {what} a step on {job.ranks} ranks,"
        f" {job.micro_pairs * job.accumulation} each{times}\n"
        f"{machine.gpu.name}, {machine.gpu.memory_gib:g} GiB, of which"
        f" {machine.usable_bytes / GIB:.1f} for tensors. All figures are predicted, none measured."
        + "".join(f"\n{note}" for note in found.notes)
    )


def comparison_table(found: Comparison) -> Table:
    """One line a choice; the best is marked."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("ZeRO", justify="right")
    for name in ("head", "loss"):
        table.add_column(name, no_wrap=True)
    names = ("sent\nMB", "arith.\nms", "memory\nms", "network\nms", "step\nms")
    for name in ("GiB\na rank", *names):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for row in found.rows:
        style = "green" if row is found.best else "" if row.fits else "dim"
        table.add_row(*_cells(found, row), style=style)
    return table


def _cells(found: Comparison, row: Row) -> list[str]:
    choice, seconds = row.choice, row.seconds
    rate = f" {choice.sample_rate:g}" if choice.sample_rate < 1.0 else ""
    sent = sum(one.bytes_a_rank(found.job.ranks) for one in row.traffic)
    times = (seconds.arithmetic, seconds.memory, seconds.network, seconds.step)
    return [
        str(choice.zero_stage),
        choice.placement + rate,
        choice.form,
        f"{row.memory.peak_bytes / GIB:.2f}",
        f"{sent / 1e6:.0f}",
        *(f"{1e3 * time:.1f}" for time in times),
        _note(found, row),
    ]


def _note(found: Comparison, row: Row) -> str:
    if row is found.best:
        return "take this"
    if row.fits:
        return ""
    return f"with {row.remedy}" if row.remedy else "too large"


def parts_table(row: Row) -> Table:
    """Bytes of a rank by phase of a step and by part, in GiB."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("GiB a rank")
    for phase in row.memory.phases:
        table.add_column(phase.replace(" ", "\n"), justify="right")
    for part, words in PARTS.items():
        values = [parts[part] for parts in row.memory.phases.values()]
        if any(values):
            table.add_row(words, *(f"{v / GIB:.2f}" if v else "" for v in values))
    totals = [parts.total() for parts in row.memory.phases.values()]
    table.add_row("together", *(f"{total / GIB:.2f}" for total in totals), style="bold")
    return table


def traffic_table(found: Comparison, row: Row) -> Table:
    """Collectives of a step."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("over the network, a step", "collective"):
        table.add_column(name)
    for name in ("whole, MB", "a rank sends, MB"):
        table.add_column(name, justify="right")
    for one in row.traffic:
        sent = one.bytes_a_rank(found.job.ranks)
        table.add_row(one.what, one.collective, f"{one.payload / 1e6:.3f}", f"{sent / 1e6:.3f}")
    return table


def as_json(found: Comparison) -> dict[str, Any]:
    """Everything, in bytes and seconds."""
    return {
        "predicted": True,
        "notes": list(found.notes),
        "job": vars(found.job),
        "gpu": vars(found.machine.gpu),
        "usable_bytes": int(found.machine.usable_bytes),
        "choices": [_row_as_json(found, row) for row in found.rows],
        "best": found.rows.index(found.best) if found.best else None,
    }


def _row_as_json(found: Comparison, row: Row) -> dict[str, Any]:
    traffic = [
        one._asdict() | {"bytes_a_rank": one.bytes_a_rank(found.job.ranks)} for one in row.traffic
    ]
    return {
        "settings": row.choice.overrides,
        "fits": row.fits,
        "would_fit_with": row.remedy,
        "peak_bytes": row.memory.peak_bytes,
        "peak_phase": row.memory.peak_phase,
        "bytes": {phase: dict(parts) for phase, parts in row.memory.phases.items()},
        "network": traffic,
        "seconds": vars(row.seconds) | {"step": row.seconds.step, "slowest": row.seconds.bound_by},
    }


def what_would_fit(found: Comparison) -> UserError:
    """What to say where no choice fits."""
    usable = found.machine.usable_bytes / 2**30
    least = min(found.rows, key=lambda row: row.memory.peak_bytes)
    needed = least.memory.peak_bytes / 2**30
    what = (
        f"nothing fits: {usable:.1f} GiB of a {found.machine.gpu.memory_gib:g} GiB GPU are for"
        f" tensors, and the least that any choice takes is {needed:.1f} GiB"
        f" ({' '.join(least.choice.overrides)})"
    )
    mended = [row for row in found.rows if row.remedy]
    if not mended:
        gib = needed / (1.0 - found.machine.headroom)
        return UserError(what, fix=f"take GPUs of {math.ceil(gib)} GiB, or a smaller network")
    first = min(mended, key=lambda row: (not _on_as_many(row.remedy), row.seconds.step))
    return UserError(what, fix=f"{first.remedy} with {' '.join(first.choice.overrides)} would fit")


def _on_as_many(remedy: str) -> bool:
    """Whether it asks for no other GPUs and no other training."""
    return remedy.startswith("accumulation") or RECOMPUTE in remedy
