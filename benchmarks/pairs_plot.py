"""The table of `bench_pairs.py` as a picture: means by probe, and differences from `pairs`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pairs_table import METRICS, Estimate, Line, arms_of, difference, mean
from scipy.stats import t

from distill.demo.arms import ARMS
from distill.losses.bench_plot import save_figure

BASE = "pairs"
STYLES = (
    *(("#8c8c8c", "o"), ("#3f79ad", "s"), ("#c2571a", "D"), ("#2a7f62", "^")),
    *(("#7a3b9a", "v"), ("#b39a2f", "P"), ("#a03050", "X")),
)
"""Colour and marker of each arm, in the order of the lines."""
MEASURES = {
    "top1": "identified, top-1",
    "agreement": "same answer as clean",
    "cosine": "embeddings' cosine to clean",
    "auc": "verified, AUC",
}
LABELS = {arm.name: arm.title for arm in ARMS[:2]}
Find = Callable[[str, str], Estimate]


def draw(path: Path, lines: Sequence[Line]) -> None:
    """Write a PNG: above, means with standard errors; below, differences with 95% intervals."""
    arms = arms_of(lines)
    seeds = len({line["seed"] for line in lines})
    styles = dict(zip(arms, STYLES, strict=False))
    figure = Figure(figsize=(16, 7), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(MEASURES), sharex="col")
    for (above, below), (measure, title) in zip(panels.T, MEASURES.items(), strict=True):
        _points(above, styles, measure, lambda arm, metric: mean(lines, arm, metric))
        above.set_title(title, fontsize=11)
        others = {arm: style for arm, style in styles.items() if arm != BASE}
        _points(below, others, measure, lambda arm, metric: _interval(lines, arm, metric))
        below.axhline(0.0, color=styles[BASE][0], lw=1.2)
    panels[0][0].set_ylabel("mean ± standard error")
    panels[1][0].set_ylabel(f"less {BASE}, seed by seed: 95% interval")
    figure.suptitle(f"{seeds} seeds, each with its own held-out photographs", fontsize=11)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(arms), frameon=False)
    save_figure(path, figure)


def _interval(lines: Sequence[Line], arm: str, metric: str) -> Estimate:
    """The difference, with half of its 95% interval by Student's t in place of the error."""
    found = difference(lines, arm, BASE, metric)
    return found._replace(error=found.error * float(t.ppf(0.975, found.seeds - 1)))


def _points(axes: Axes, styles: dict[str, tuple[str, str]], measure: str, find: Find) -> None:
    """A point with its error for every arm, side by side at each probe."""
    metrics = [metric for metric in METRICS if metric.endswith(f"/{measure}")]
    step = 0.7 / len(styles)
    for place, (arm, (colour, marker)) in enumerate(styles.items()):
        found = [find(arm, metric) for metric in metrics]
        where = [probe + (place - (len(styles) - 1) / 2) * step for probe in range(len(metrics))]
        values, errors = [x.mean for x in found], [x.error for x in found]
        look = {"color": colour, "marker": marker, "ms": 4.5, "lw": 0, "elinewidth": 1.3}
        axes.errorbar(where, values, errors, label=LABELS.get(arm, f"pairs + {arm}"), **look)
    for boundary in range(1, len(metrics)):
        axes.axvline(boundary - 0.5, color="#e6e6e6", lw=0.8, zorder=0)
    names = [metric.split("/")[0].replace("processed", "all five\n(mean)") for metric in metrics]
    axes.set_xticks(range(len(metrics)), names, fontsize=7)
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
