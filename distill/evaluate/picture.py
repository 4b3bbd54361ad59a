"""The report as a picture: ROC curves on the left, bars for each kind of probe on the right."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter

from distill.evaluate.metrics import EXPECTED_FALSE_ACCEPTS

if TYPE_CHECKING:
    from distill.evaluate.report import Condition, Report

INK, QUIET, GRID, SHADE = "#1d2733", "#667483", "#e3e8ed", "#f1f3f6"
CLEAN_COLOUR = "#1d2733"
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c6d31")
"""After Okabe and Ito (2008): people with any colour vision can tell them apart."""
BARS = (("top1", "right person"), ("agreement", "same answer as clean"), ("tar", "TAR at FAR 1%"))
SHADES = (1.0, 0.55, 0.22)
BAR_FAR = "0.01"


def picture(report: Report) -> bytes:
    """The picture of ``report`` as PNG; no state of pyplot is touched."""
    figure = empty_figure(12.5)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
    draw_curves(left, report.conditions)
    draw_bars(right, report.conditions)
    return as_png(figure, report.heading)


def picture_of_curves(conditions: Sequence[Condition], title: str) -> bytes:
    """The ROC curves alone as PNG, as `picture` draws them."""
    figure = empty_figure(6.6)
    draw_curves(figure.subplots(), conditions)
    return as_png(figure, title)


def empty_figure(width_inches: float) -> Figure:
    """A white figure that pyplot knows nothing of."""
    layout = ConstrainedLayoutEngine(w_pad=0.14, h_pad=0.1)
    figure = Figure(figsize=(width_inches, 6.2), dpi=150, facecolor="white", layout=layout)
    FigureCanvasAgg(figure)
    return figure


def as_png(figure: Figure, title: str) -> bytes:
    """``figure`` under a heading."""
    figure.suptitle(title, x=0.012, ha="left", color=INK, fontsize=13)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


def colours(conditions: Sequence[Condition]) -> list[str]:
    """Ink for the clean probes, then one colour a kind."""
    return [CLEAN_COLOUR, *(COLOURS[i % len(COLOURS)] for i in range(len(conditions) - 1))]


def draw_curves(axes: Axes, conditions: Sequence[Condition]) -> None:
    """ROC curves, FAR logarithmic, dotted where too few impostors remain.

    The ground is shaded where that is so for all of them.
    """
    for condition, colour in zip(conditions, colours(conditions), strict=True):
        found = condition.verification
        if found.auc is None:
            continue
        far, tar = np.array(found.curve).T
        label = f"{condition.name}: AUC {found.auc:.3f}, EER {100 * (found.eer or 0):.1f}%"
        width = 2.4 if colour == CLEAN_COLOUR else 1.7
        carried = int(np.searchsorted(far, EXPECTED_FALSE_ACCEPTS / found.impostor))
        for part, style, name in (
            (slice(carried, None), "-", label),
            (slice(carried + 1), ":", None),
        ):
            axes.step(far[part], tar[part], style, where="post", color=colour, lw=width, label=name)
    axes.set(title="Same person or not", xlabel="FAR: impostor pairs accepted")
    axes.set(ylabel="TAR: genuine pairs accepted", ylim=(0, 1.02))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    scale_far(axes, conditions)
    plain(axes)
    explain_curves(axes)


def explain_curves(axes: Axes) -> None:
    """A legend below the curves, which are then free to go anywhere."""
    if axes.lines:
        legend_below(axes, distance=0.13, columns=2, handlelength=1.6)


def legend_below(axes: Axes, *, distance: float, columns: int, handlelength: float) -> None:
    """The legend of ``axes`` under it, without a box."""
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -distance),
        ncols=columns,
        fontsize=9,
        frameon=False,
        labelcolor=INK,
        handlelength=handlelength,
    )


def scale_far(axes: Axes, conditions: Sequence[Condition]) -> None:
    """The logarithmic FAR axis, down to what the largest number of impostor pairs can show."""
    impostors = max(condition.verification.impostor for condition in conditions)
    if not impostors:
        axes.text(0.5, 0.5, "no pairs to compare", transform=axes.transAxes, ha="center")
        return
    lowest = max(1 / impostors, 1e-6)
    carried = EXPECTED_FALSE_ACCEPTS / impostors
    axes.set_xscale("log")
    axes.set_xlim(lowest, 1)
    decades = np.arange(np.ceil(np.log10(lowest)), 1)
    axes.xaxis.set_major_locator(FixedLocator(list(10.0**decades)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda far, _: f"{100 * far:g}%")
    if carried < 1:
        axes.axvspan(lowest, carried, color=SHADE, zorder=0)
        axes.text(
            np.sqrt(lowest * carried),
            1.03,
            f"dotted: fewer than\n{EXPECTED_FALSE_ACCEPTS} false accepts",
            ha="center",
            fontsize=8,
            color=QUIET,
        )


def draw_bars(axes: Axes, conditions: Sequence[Condition]) -> None:
    """A group of bars for each condition: full, hatched and pale, in the colour of its curve."""
    height = 0.8 / len(BARS)
    drawn = set()
    for row, (condition, colour) in enumerate(zip(conditions, colours(conditions), strict=True)):
        for index, value in enumerate(bar_values(condition)):
            if value is not None:
                place = row + (index - (len(BARS) - 1) / 2) * height
                draw_bar(axes, place, height, value, colour, index)
                drawn.add(index)
    axes.set_yticks(range(len(conditions)), [condition.name for condition in conditions])
    axes.set(ylim=(len(conditions) - 0.45, -0.55), xlim=(0, 1.0))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_title("By kind of probe")
    plain(axes)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0, labelsize=10.5, labelcolor=INK)
    explain_bars(axes, sorted(drawn))


def paler(colour: str, index: int) -> tuple[float, ...]:
    """The colour of a bar in place ``index``: mixed with white, so that no grid shines through."""
    share = SHADES[index]
    return tuple(share * channel + 1 - share for channel in to_rgb(colour))


def draw_bar(
    axes: Axes, place: float, height: float, value: float, colour: str, index: int
) -> None:
    """One bar with its number."""
    axes.barh(place, value, height * 0.9, color=paler(colour, index), linewidth=0)
    inside = value > 0.15
    shade = "white" if inside and index == 0 else INK
    axes.text(
        value + (-0.008 if inside else 0.008),
        place,
        f"{100 * value:.1f}",
        ha="right" if inside else "left",
        va="center_baseline",
        fontsize=8,
        color=shade,
    )


def bar_values(condition: Condition) -> tuple[float | None, float | None, float | None]:
    """The values of `BARS`."""
    named = condition.identification
    tar = condition.verification.tar_at_far.get(BAR_FAR)
    return (named.top1 if named else None, named.agreement if named else None, tar)


def explain_bars(axes: Axes, drawn: Sequence[int]) -> None:
    """A legend of the shades that there are, by their places in `BARS`, below the bars."""
    for index in drawn:
        axes.bar(0, 0, color=paler(CLEAN_COLOUR, index), label=BARS[index][1])
    if drawn:
        legend_below(axes, distance=0.06, columns=len(BARS), handlelength=1.2)


def plain(axes: Axes) -> None:
    """Quiet axes: light grid, no box, titles to the left."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=QUIET, labelsize=9, length=0)
    axes.title.set_color(INK)
    axes.xaxis.label.set_color(QUIET)
    axes.yaxis.label.set_color(QUIET)
    axes.title.set_fontsize(11)
