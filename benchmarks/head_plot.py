"""The table of `bench_head.py` as a picture: time and memory against C, and against W."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from distill.losses.bench_plot import curves, save_figure


def draw(path: Path, lines: Sequence[Any], complete: str) -> None:
    """Write a PNG: growth with C at the most ranks, and with W at the most classes.

    ``complete`` names a way that was measured everywhere.
    """
    of_one = [line for line in lines if line.what == complete]
    most_ranks = max(line.ranks for line in of_one)
    most_classes = max(line.classes for line in of_one)
    figure = Figure(figsize=(11, 7.4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 2)
    by_classes = [line for line in lines if line.ranks == most_ranks]
    by_ranks = [line for line in lines if line.classes == most_classes]
    for column, shown, across in ((0, by_classes, "classes"), (1, by_ranks, "ranks")):
        for row, what in enumerate(("ms", "peak_mb")):
            curves(panels[row][column], shown, across, what)
            panels[row][column].set(xscale="log", yscale="log")
    panels[0][0].set(title=f"W = {most_ranks}", ylabel="ms, forward and backward")
    panels[0][1].set(title=f"C = {most_classes:,}")
    panels[1][0].set(xlabel="classes C", ylabel="peak MB of rank 0, without dW")
    panels[1][1].set(xlabel="ranks W")
    ranks = sorted({line.ranks for line in of_one})
    for panel in panels[:, 1]:
        panel.set_xticks(ranks, map(str, ranks), minor=False)
        panel.minorticks_off()
    first = of_one[0]
    rows = f"{first.pairs} {'pairs' if first.images == 'pair' else 'images'} a rank"
    title = f"{first.head} head, {first.dtype}, b = {rows}, D = {first.width}"
    figure.suptitle(f"{title}; {first.device}", fontsize=11)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    save_figure(path, figure)
