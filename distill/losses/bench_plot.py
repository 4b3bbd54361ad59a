"""The benchmark's table as a picture: time and share of the copy bandwidth against C."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from distill.files import write_whole

if TYPE_CHECKING:
    from distill.losses.bench_table import Line

STYLES = (
    *(("#c2571a", "o"), ("#7a3b9a", "s"), ("#2a7f62", "^"), ("#777777", "v")),
    *(("#2f6db3", "D"), ("#b39a2f", "P"), ("#a03050", "X")),
)
"""Colour and marker of each implementation, in the order of the table."""


def draw(path: Path, lines: Sequence[Line]) -> None:
    """Write a PNG: a column of panels for each type, of the similarity measured at most sizes.

    What has no time has no curve and no place in the legend.
    """
    similarities = [line.similarity for line in lines]
    similarity = max(dict.fromkeys(similarities), key=similarities.count)
    shown = [line for line in lines if line.similarity == similarity]
    dtypes = list(dict.fromkeys(line.dtype for line in shown))
    figure = Figure(figsize=(1.5 + 4.6 * len(dtypes), 7.4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(dtypes), sharex=True, sharey="row", squeeze=False)
    for (above, below), dtype in zip(panels.T, dtypes, strict=True):
        of_type = [line for line in shown if line.dtype == dtype]
        curves(above, of_type, "classes", "ms")
        curves(below, of_type, "classes", "share_of_copy")
        above.set(title=dtype, yscale="log", xscale="log")
        below.set(xlabel="classes C", ylim=(0, None))
        below.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    panels[0][0].set_ylabel("ms, forward and backward")
    panels[1][0].set_ylabel("share of the copy bandwidth")
    figure.suptitle(_title(shown), fontsize=11)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    save_figure(path, figure)


def _title(lines: Sequence[Line]) -> str:
    first = lines[0]
    logits = sorted({line.pairs * line.classes for line in lines})
    pairs = sorted({line.pairs for line in lines})
    size = f"B = {pairs[0]}" if len(pairs) == 1 else f"B·C = {logits[0]:.3g}"
    if len(pairs) > 1 and logits[-1] > logits[0]:
        size += f" .. {logits[-1]:.3g}"
    return f"{first.similarity}, T = {first.temperature:g}, {size}; {first.device}"


def curves(panel: Axes, lines: Sequence[Any], across: str, what: str) -> None:
    """One curve for each implementation: the field ``what`` against the field ``across``."""
    names = list(dict.fromkeys(line.what for line in lines))
    for name, (colour, marker) in zip(names, STYLES, strict=False):
        points = [(getattr(x, across), getattr(x, what)) for x in lines if x.what == name]
        drawn = sorted((place, value) for place, value in points if value is not None)
        if drawn:
            panel.plot(*zip(*drawn, strict=True), color=colour, marker=marker, label=name, ms=5)
    panel.grid(alpha=0.25)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)


def save_figure(path: Path, figure: Figure) -> None:
    """Write a figure as PNG, whole or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_whole(path, buffer.getvalue())
