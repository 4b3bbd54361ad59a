"""The comparison as a picture: bars by kind of probe, one colour an arm."""

from __future__ import annotations

import io

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from distill.demo.arms import ARMS
from distill.demo.comparison import Numbers

COLOURS = ("#b8b8b8", "#5b8db8", "#c2571a")
"""One for each arm, told apart in grey print too."""

PANELS = (("top1", "identified, top-1"), ("agreement", "same answer as clean"))


def comparison_picture(results: dict[str, Numbers], kinds: list[str]) -> bytes:
    """A PNG with top-1 accuracy and agreement of every arm."""
    figure = Figure(figsize=(11, 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2, sharey=True)
    for panel, (metric, title) in zip(axes, PANELS, strict=True):
        probes = kinds if metric == "agreement" else ["clean", *kinds]
        _bars(panel, results, probes, metric)
        panel.set_title(title, fontsize=11)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(ARMS), frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _bars(axes: Axes, results: dict[str, Numbers], probes: list[str], metric: str) -> None:
    width = 0.8 / len(ARMS)
    for place, (arm, colour) in enumerate(zip(ARMS, COLOURS, strict=True)):
        heights = [results[arm.name].get(f"{probe}/{metric}", 0.0) for probe in probes]
        lefts = [index + (place - 1) * width for index in range(len(probes))]
        bars = axes.bar(lefts, heights, width * 0.94, color=colour, label=arm.title)
        axes.bar_label(bars, fmt="%.2f", fontsize=6.5, padding=1)
    axes.set_xticks(range(len(probes)), probes)
    axes.set_ylim(0, 1.08)
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
