"""The benchmark's table: its sizes, its lines, and its files: a CSV, and a PNG beside it."""

from __future__ import annotations

import csv
import io
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from distill.files import write_whole
from distill.losses import bench_plot, implementation_info
from distill.losses.bench_peers import peer_versions


class Size(NamedTuple):
    """One place in the table."""

    similarity: str
    dtype: str
    pairs: int
    classes: int


PRESETS = {
    "cpu": [
        Size(similarity, dtype, 5_000_000 // classes, classes)
        for similarity, counts in (
            ("kl", (1_000, 10_000, 100_000, 1_000_000)),
            *(("ce", (100_000,)), ("mmd", (100_000,))),
        )
        for dtype in ("float32", "bfloat16")
        for classes in counts
    ],
    "h100": [
        *(Size("kl", "bfloat16", 1024, 2**power) for power in range(14, 21)),
        # Rows that no cluster holds: they go through the device in waves.
        Size("kl", "bfloat16", 256, 2**21),
        Size("kl", "float32", 256, 2**20),
    ],
}
"""Sizes of whole tables, by the device they are for."""


@dataclass(frozen=True)
class Line:
    """One implementation at one size; `ms` is the median. None where nothing was measured."""

    device: str
    similarity: str
    dtype: str
    temperature: float
    pairs: int
    classes: int
    what: str
    ms: float | None
    least_ms: float | None
    gb_s: float | None
    copy_gb_s: float
    share_of_copy: float | None
    peak_mb: float | None
    peak_bytes_per_logit: float | None
    times_native: float | None
    load: float
    note: str

    def cells(self) -> list[str]:
        """As text."""
        return [
            *(self.similarity, self.dtype, str(self.pairs), str(self.classes), self.what),
            *(text(self.ms, ".2f"), text(self.times_native, ".1f"), text(self.gb_s, ".1f")),
            *(text(self.share_of_copy, ".0%"), text(self.peak_mb, ".1f")),
            text(self.peak_bytes_per_logit, ".1f"),
        ]


HEAD = (
    *("similarity", "type", "B", "C", "what", "ms", "times native", "GB/s", "of copy"),
    *("peak MB", "peak bytes per logit"),
)


def text(value: float | None, style: str) -> str:
    """The number, or nothing where there is none."""
    return "" if value is None else format(value, style)


def device_name(device: str) -> str:
    """The processor or the GPU, and how many threads."""
    name = processor_name(device)
    return name if device == "cuda" else f"{name}, {torch.get_num_threads()} threads"


def processor_name(device: str) -> str:
    """The processor or the GPU."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.machine()


def driver(device: str) -> str:
    """Version of the GPU's driver; blank on the CPU, and where `nvidia-smi` does not say."""
    if device != "cuda" or not shutil.which("nvidia-smi"):
        return ""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.splitlines()[0].strip() if answer.returncode == 0 else ""


def stamp(device: str) -> dict[str, str]:
    """With what, and when."""
    info = implementation_info()
    versions = {"driver": driver(device), "torch": info.torch, "cuda": torch.version.cuda or ""}
    return versions | peer_versions() | {"build": info.build, "date": time.strftime("%Y-%m-%d")}


def save(folder: Path, lines: Sequence[Line], stamped: dict[str, str]) -> Path:
    """Write the CSV and beside it the PNG, named after device and day; return the CSV's path."""
    path = save_csv(folder, "pair-loss", lines[0].device, [asdict(line) for line in lines], stamped)
    bench_plot.draw(path.with_suffix(".png"), lines)
    return path


def save_csv(
    folder: Path, name: str, device: str, lines: Sequence[dict[str, Any]], stamped: dict[str, str]
) -> Path:
    """Write a table's CSV, named after it, the device and the day; return its path."""
    short = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
    path = folder / f"{name}_{short}_{stamped['date']}.csv"
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [*lines[0], *stamped], lineterminator="\n")
    writer.writeheader()
    for line in lines:
        cells = line | stamped
        writer.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in cells.items()})
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(path, buffer.getvalue().encode())
    return path


def notes(lines: Sequence[Line]) -> list[str]:
    """Why there are blanks, each reason once."""
    return list(dict.fromkeys(f"{line.what}: {line.note}" for line in lines if line.note))
