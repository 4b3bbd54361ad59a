"""The picture of a report: what stands in it is explained, and nothing else."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from distill.evaluate.picture import draw_bars, draw_curves
from distill.evaluate.report import Condition, Identification, Verification


def condition(name: str, agreement: float | None, tar: float | None) -> Condition:
    named = Identification(10, 0.9, None, 0.8, agreement)
    return Condition(name, named, Verification(10, 10, 10, 10, tar_at_far={"0.01": tar}))


def with_curve(name: str, impostor: int, curve: list[tuple[float, float]]) -> Condition:
    points = [list(point) for point in curve]
    return Condition(name, None, Verification(10, impostor, 10, impostor, 0.9, 0.1, curve=points))


@pytest.mark.parametrize(
    ("conditions", "explained", "numbers"),
    [
        (
            [condition("clean", None, 0.7), condition("blur", 0.5, None)],
            ["right person", "same answer as clean", "TAR at FAR 1%"],
            ["90.0", "70.0", "90.0", "50.0"],
        ),
        ([condition("clean", None, None)], ["right person"], ["90.0"]),
        ([Condition("clean", None, Verification(0, 0, 0, 0))], None, []),
    ],
    ids=["all", "names alone", "nothing"],
)
def test_shades_are_explained_where_they_are_drawn(conditions, explained, numbers) -> None:
    axes = Figure().subplots()
    draw_bars(axes, conditions)
    legend = axes.get_legend()
    assert (legend and [text.get_text() for text in legend.get_texts()]) == explained
    assert [text.get_text() for text in axes.texts] == numbers


def test_a_curve_is_dotted_where_its_own_pairs_are_too_few() -> None:
    """Beside IJB-C's 15 million impostor pairs, the 3000 of LFW say nothing of 0.1%."""
    axes = Figure().subplots()
    curve = [(0.0001, 0.2), (0.001, 0.4), (0.01, 0.6), (0.1, 0.8), (1.0, 1.0)]
    draw_curves(axes, [with_curve("lfw", 150, curve), with_curve("ijbc", 100_000, curve)])
    drawn = {}
    for line in axes.lines:
        drawn.setdefault(line.get_color(), {})[line.get_linestyle()] = list(line.get_xdata())
    assert list(drawn.values()) == [
        {"-": [0.1, 1.0], ":": [0.0001, 0.001, 0.01, 0.1]},
        {"-": [0.0001, 0.001, 0.01, 0.1, 1.0], ":": [0.0001]},
    ]
    assert len(axes.get_legend().get_texts()) == 2
