"""The numbers of `bench_pairs.py`: its CSV, means over seeds, and differences of arms."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distill.data.pack import DEFAULT_KINDS
from distill.files import write_whole

Line = Mapping[str, str]
Key = tuple[str, str, str]

PROBES = ("clean", *DEFAULT_KINDS, "processed")
"""Clean photographs, each processing, and the mean over processings."""
METRICS = tuple(
    f"{probe}/{measure}"
    for measure in ("top1", "agreement", "apart", "cosine", "auc", "probability")
    for probe in PROBES
    if probe != "clean" or measure not in ("agreement", "apart", "cosine")
)
"""Numbers of the demo's evaluation, and `pairs_apart.apart`."""


class Estimate(NamedTuple):
    """A mean over seeds and its standard error; NaN with one seed."""

    mean: float
    error: float
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """Of one number a seed."""
        n = len(values)
        error = float(np.std(values, ddof=1) / n**0.5) if n > 1 else float("nan")
        return cls(float(np.mean(values)), error, n)


def read_lines(path: Path) -> dict[Key, Line]:
    """The finished trainings by arm, seed and digest of settings; none where there is no file."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {(x["arm"], x["seed"], x["settings"]): x for x in csv.DictReader(file)}


def write_lines(path: Path, lines: Iterable[Line]) -> None:
    """Write the CSV whole, by seed and arm."""
    ordered = sorted(lines, key=lambda line: (int(line["seed"]), line["arm"], line["settings"]))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(ordered[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(ordered)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, buffer.getvalue().encode())


def arms_of(lines: Iterable[Line]) -> list[str]:
    """The arms, in the order of the lines."""
    return list(dict.fromkeys(line["arm"] for line in lines))


def by_seed(lines: Iterable[Line], arm: str, metric: str) -> dict[str, float]:
    """One number a seed."""
    return {line["seed"]: float(line[metric]) for line in lines if line["arm"] == arm}


def mean(lines: Sequence[Line], arm: str, metric: str) -> Estimate:
    """Of an arm."""
    return Estimate.of(list(by_seed(lines, arm, metric).values()))


def difference(lines: Sequence[Line], arm: str, base: str, metric: str) -> Estimate:
    """Of ``arm`` less ``base``, seed by seed."""
    ours, theirs = by_seed(lines, arm, metric), by_seed(lines, base, metric)
    return Estimate.of([ours[seed] - theirs[seed] for seed in ours if seed in theirs])


def show(lines: Sequence[Line]) -> None:
    """Print the means, and how far arms are from `first` and from `pairs`."""
    arms = arms_of(lines)
    print(f"\nmean ± standard error over {len({x['seed'] for x in lines})} seeds")
    _print_table(arms, lambda arm, metric: mean(lines, arm, metric), ".3f")
    for base in ("first", "pairs"):
        others = [arm for arm in arms if arm not in ("first", base)]
        if base in arms and others:
            print(f"\nless {base}, seed by seed: mean ± standard error")
            _print_table(
                others, lambda arm, metric, b=base: difference(lines, arm, b, metric), "+.3f"
            )


def _print_table(arms: Sequence[str], cell: Callable[[str, str], Estimate], style: str) -> None:
    print("| | " + " | ".join(arms) + " |", "|---|" + "---:|" * len(arms), sep="\n")
    for metric in METRICS:
        found = [cell(arm, metric) for arm in arms]
        cells = [f"{x.mean:{style}} ± {x.error:.3f}" for x in found]
        print(f"| {metric} | " + " | ".join(cells) + " |")
