"""The picture of a sweep: the metric over each setting that was varied."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from distill.files import write_whole
from launcher.sweep import Result

_MOST_COLOURS = 8


def draw(results: Sequence[Result], metric: str, path: Path) -> bool:
    """Write a PNG with a panel for each setting; False where there is nothing to show yet.

    Settings that are alike in all runs are left out. Colours tell the runs apart by another setting
    that has few values; where values come again, as in a grid, a line goes through the means.

    Raises:
        UserError: it cannot be written; one that was there before stays.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = [result for result in results if result.value is not None]
    if not shown:
        return False
    keys = varied(shown) or list(shown[0].point)
    figure, panels = plt.subplots(
        1, len(keys), figsize=(1 + 3.6 * len(keys), 3.6), squeeze=False, layout="constrained"
    )
    for panel, key in zip(panels[0], keys, strict=True):
        _panel(panel, key, told_apart_by(keys, key, shown), shown)
        panel.set_ylabel(metric)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=120)
    plt.close(figure)
    write_whole(path, png.getvalue())
    return True


def values_of(key: str, results: Sequence[Result]) -> list[Any]:
    """What a setting was, each value once, in order."""
    return list({repr(result.point[key]): result.point[key] for result in results}.values())


def varied(results: Sequence[Result]) -> list[str]:
    """Settings that are not alike in all runs."""
    return [key for key in results[0].point if len(values_of(key, results)) > 1]


def told_apart_by(keys: Sequence[str], panel: str, results: Sequence[Result]) -> str:
    """The setting that gives the colours of a panel: another one, with the fewest values.

    Empty where all have many.
    """
    counts = {key: len(values_of(key, results)) for key in keys if key != panel}
    few = [key for key, count in counts.items() if 1 < count <= _MOST_COLOURS]
    return min(few, key=counts.__getitem__, default="")


def _panel(panel: Any, key: str, colour: str, shown: Sequence[Result]) -> None:
    settings = values_of(key, shown)
    numeric = all(isinstance(s, int | float) and not isinstance(s, bool) for s in settings)
    for value in values_of(colour, shown) if colour else [None]:
        runs = [result for result in shown if not colour or result.point[colour] == value]
        places = [run.point[key] if numeric else str(run.point[key]) for run in runs]
        dots = panel.plot(places, [run.value for run in runs], "o", alpha=0.6, label=str(value))
        if len(settings) < len(shown):
            _means(panel, places, runs, dots[0].get_color())
    _axis(panel, settings if numeric else [])
    panel.set_xlabel(key)
    panel.grid(alpha=0.3)
    if colour:
        panel.legend(title=colour, fontsize="small", title_fontsize="small", framealpha=0.5)


def _means(panel: Any, places: Sequence[Any], runs: Sequence[Result], colour: str) -> None:
    at: dict[Any, list[float]] = {}
    for place, run in zip(places, runs, strict=True):
        assert run.value is not None
        at.setdefault(place, []).append(run.value)
    numbers = not any(isinstance(place, str) for place in at)
    order = sorted(at) if numbers else list(at)
    panel.plot(order, [fmean(at[place]) for place in order], color=colour, linewidth=1)


def _axis(panel: Any, numbers: Sequence[float]) -> None:
    """Room beside words; a logarithmic axis, with plain numbers, where a range is wide."""
    from matplotlib.ticker import LogLocator, NullLocator

    if not numbers:
        panel.margins(x=0.3)
    elif min(numbers) > 0 and max(numbers) / min(numbers) >= 10:
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
