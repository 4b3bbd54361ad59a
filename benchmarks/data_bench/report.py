"""Table, CSV and plot."""

from __future__ import annotations

import csv
import datetime
import os
import platform
import statistics
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from data_bench.measure import Ratio, Speed
from distill.processes.cores import usable_cores

PACKAGES = (
    "pairdistill", "torch", "ffcv", "simplejpeg", "opencv-python-headless", "numpy", "numba",
    "webdataset",
)  # fmt: skip


class Line(NamedTuple):
    """A row of the table: what, how fast, and over what it is compared with, by wall time and by
    processor time.
    """

    part: str
    way: str
    per_second: float
    cpu_us: float
    own_us: float
    of_limit: float
    of_limit_cpu: float
    of_torch: float
    of_torch_cpu: float
    of_limit_rounds: str


def lines(part: str, found: dict[str, list[Speed]], limit: str, torch_way: str) -> list[Line]:
    """The medians, and the medians of the ratios."""
    rows = []
    for name, speeds in found.items():
        middle = (statistics.median(column) for column in zip(*speeds, strict=True))
        limits, others = (Ratio.of(found, name, to) for to in (limit, torch_way))
        rounds = " ".join(f"{ratio:.2f}" for ratio in limits.wall)
        rows.append(Line(part, name, *middle, *limits.medians(), *others.medians(), rounds))
    return rows


def about(**settings: int) -> dict[str, str]:
    """Where and when: columns of every row of the CSV."""
    with Path("/proc/cpuinfo").open() as file:
        model = next((row.split(":")[1].strip() for row in file if "model name" in row), "?")
    return {
        "date": datetime.date.today().isoformat(),
        "device": f"{model}, {usable_cores()} cores",
        **{name: str(value) for name, value in settings.items()},
        "load": f"{os.getloadavg()[1]:.1f}",
        "versions": " ".join([f"python {platform.python_version()}", *_versions()]),
    }


def _versions() -> Iterator[str]:
    for name in PACKAGES:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            yield f"{name} -"


def show(rows: list[Line], where: dict[str, str]) -> None:
    """Prints the table: ratios by wall time, and in brackets by processor time."""
    print(", ".join(f"{key} {value}" for key, value in where.items()))
    heads = f"{'per second':>11}{'cpu us':>8}{'own us':>8}{'x limit':>14}{'x torch':>14}  rounds"
    print(f"{'':38}{heads}")
    for row in rows:
        limits, others = (
            f"{wall:7.2f} ({cpu:.2f})"
            for wall, cpu in (
                (row.of_limit, row.of_limit_cpu),
                (row.of_torch, row.of_torch_cpu),
            )
        )
        numbers = f"{row.per_second:11.0f}{row.cpu_us:8.0f}{row.own_us:8.0f}"
        ratios = f"{limits:>14}{others:>14}  {row.of_limit_rounds}"
        print(f"{row.part + ': ' + row.way:38}{numbers}{ratios}")


def write_csv(rows: list[Line], where: dict[str, str], path: Path) -> None:
    """The same as a file."""
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow([*Line._fields, *where])
        for row in rows:
            cells = [f"{v:.3f}" if isinstance(v, float) else v for v in row]
            table.writerow([*cells, *where.values()])


def draw(rows: list[Line], where: dict[str, str], path: Path) -> None:
    """Bars of the medians; beside each its share of the limit."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    parts = list(dict.fromkeys(row.part for row in rows))
    counts = [sum(row.part == part for row in rows) for part in parts]
    figure, axes = pyplot.subplots(len(parts), 1, figsize=(8, 6.4), height_ratios=counts)
    for axis, part in zip(axes, parts, strict=True):
        own = [row for row in rows if row.part == part]
        unit = "pairs a second" if part == "loading" else "photographs a second"
        colours = ["#2a6fbb" if "pairdistill" in row.way else "#b8bec6" for row in own]
        bars = axis.barh([row.way for row in own], [row.per_second for row in own], color=colours)
        labels = [f"{row.per_second:,.0f}  ({row.of_limit:.2f})" for row in own]
        axis.bar_label(bars, labels, padding=4, fontsize=9)
        axis.set_title(f"{part}: {unit} (in brackets: share of {own[0].way!r})", fontsize=10)
        axis.margins(x=0.18)
        axis.invert_yaxis()
        axis.tick_params(axis="x", labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"{where['device']}, {where['workers']} workers, {where['date']}, load {where['load']}",
        fontsize=9,
    )
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
