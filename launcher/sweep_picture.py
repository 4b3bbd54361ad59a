"""The picture of a sweep: the metric over each setting that was varied."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launcher.sweep import Result


def draw(results: Sequence[Result], metric: str, path: Path) -> bool:
    """Write a PNG with a panel for each setting; False where there is nothing to show yet."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = [result for result in results if result.value is not None]
    if not shown:
        return False
    keys = list(shown[0].point)
    figure, panels = plt.subplots(
        1, len(keys), figsize=(1 + 3.2 * len(keys), 3.2), squeeze=False, layout="constrained"
    )
    for panel, key in zip(panels[0], keys, strict=True):
        _panel(panel, key, shown, metric)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return True


def _panel(panel: Any, key: str, shown: Sequence[Result], metric: str) -> None:
    settings = [result.point[key] for result in shown]
    numeric = all(isinstance(s, int | float) and not isinstance(s, bool) for s in settings)
    places = settings if numeric else [str(setting) for setting in settings]
    panel.plot(places, [result.value for result in shown], "o", color="#2b6cb0")
    if numeric and min(settings) > 0 and max(settings) / min(settings) >= 10:
        panel.set_xscale("log")
    panel.set_xlabel(key)
    panel.set_ylabel(metric)
    panel.grid(alpha=0.3)
