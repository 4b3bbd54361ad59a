"""What is drawn of a sweep, as it reaches matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

from hypothesis import given
from hypothesis import strategies as st

from launcher.status import RunStatus
from launcher.sweep import Result
from launcher.sweep_picture import _panel

STATUS = RunStatus("runs/000", "1", "COMPLETED", "", "", 4, 4, 1.0, {}, None, None, [4], 1)


class Panel(MagicMock):
    """Axes that remember what was plotted: (label, marker or "line", places, values)."""

    def plot(
        self, places: Sequence[Any], values: Sequence[float], *marker: str, **more: Any
    ) -> Any:
        self.plotted(more.get("label"), *(marker or ("line",)), list(places), list(values))
        return [SimpleNamespace(get_color=lambda: "red")]


@given(
    st.lists(
        st.tuples(st.sampled_from([8, 1, 3]), st.sampled_from(["kl", "ce"]), st.floats(0, 9)),
        min_size=1,
        max_size=9,
    )
)
def test_each_run_is_a_dot_of_its_own_colour_and_lines_go_through_means(
    runs: list[tuple[int, str, float]],
) -> None:
    panel = Panel()
    shown = [Result({"x": x, "kind": kind}, STATUS, value) for x, kind, value in runs]
    _panel(panel, "x", "kind", shown)
    drawn = [call.args for call in panel.plotted.call_args_list]
    dots = {label: list(zip(xs, ys, strict=True)) for label, kind, xs, ys in drawn if kind == "o"}
    assert dots == {
        kind: [(x, value) for x, other, value in runs if other == kind] for _, kind, _ in runs
    }
    lines = [(xs, ys) for _, kind, xs, ys in drawn if kind == "line"]
    assert len(lines) == (len(dots) if len({x for x, _, _ in runs}) < len(runs) else 0)
    for (xs, ys), own in zip(lines, dots.values(), strict=False):
        assert xs == sorted({x for x, _ in own})
        for x, mean in zip(xs, ys, strict=True):
            there = [value for place, value in own if place == x]
            assert abs(mean - sum(there) / len(there)) < 1e-9
