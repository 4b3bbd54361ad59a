"""What ranks say to each other, over three gloo processes, which are started once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rank_processes import on_ranks

RANKS = 3


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each rank found."""
    out = tmp_path_factory.mktemp("ranks")
    script = Path(__file__).with_name("collectives_rank_script.py")
    done = on_ranks(script, out, ranks=RANKS)
    assert done.returncode == 0, done.stderr
    return [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(RANKS)]


def test_two_and_two_ranks_merge_rows(told: list[dict]) -> None:
    """As all of them at once; none sees more rows than those of two ranks."""
    expected = sorted([10, 0, 20, 12, 2, 18], reverse=True)[:3]
    assert [one["largest"] for one in told] == [expected, None, None]
    assert [one["seen"] for one in told] == [[3, 6], [], []]


def test_every_rank_has_what_all_said_in_their_order(told: list[dict]) -> None:
    """Also rows of which each rank has another number, and one has none."""
    for one in told:
        assert one["stacked"] == [[[float(rank)] * 3] * 2 for rank in range(RANKS)]
        assert one["numbers"] == [rank for rank in range(RANKS) for _ in range(rank)]
        assert one["rows"] == [[rank] * 2 for rank in range(RANKS) for _ in range(rank)]
        assert one["first"] == [0, "é" * 9]
        assert one["nothing"] == [0, 2]
        assert one["scalars"] == [rank > 0 for rank in range(RANKS)]
        assert one["objects"] == [{"rank": rank} for rank in range(RANKS)]


def test_all_ranks_fail_alike_whatever_happened_to_each(told: list[dict]) -> None:
    """A run asked to stop while one rank meets a corrupt image: else ranks save, or not, alone."""
    stop, corrupt = "asked to stop", "pair 7 is corrupt; mend it"
    assert [one["failures"] for one in told] == [
        [
            [],
            ["UserError", corrupt, False],
            ["TrainingStopped", stop, False],
            ["UserError", "one", False],
        ],
        [
            [],
            ["UserError", corrupt, True],
            ["TrainingStopped", stop, True],
            ["UserError", "one", True],
        ],
        [
            [],
            ["UserError", corrupt, False],
            ["TrainingStopped", stop, True],
            ["UserError", "one", False],
        ],
    ]
