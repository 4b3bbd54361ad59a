"""The picture of a report: what stands in it is explained, and nothing else."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from distill.evaluate.picture import draw_bars
from distill.evaluate.report import Condition, Identification, Verification


def condition(name: str, agreement: float | None, tar: float | None) -> Condition:
    named = Identification(10, 0.9, None, 0.8, agreement)
    return Condition(name, named, Verification(10, 10, 10, 10, tar_at_far={"0.01": tar}))


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
