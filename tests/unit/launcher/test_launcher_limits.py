"""What a partition cannot give is refused, and nothing else."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import UserError
from launcher.limits import MIN_WORKING_SECONDS, check_nodes, check_time
from launcher.resources import Resources
from launcher.site import Site
from launcher.slurm import NodeKind

SMALL = st.integers(1, 4)
TIME = st.sampled_from([None, 60, 120])
WANTED = st.builds(
    Resources,
    nodes=SMALL,
    ranks_per_node=SMALL,
    gpus_per_node=st.integers(0, 4),
    cpus_per_rank=SMALL,
    mem_gb=st.integers(0, 4),
    time_min=st.sampled_from([60, 61, 120]),
)


@given(
    WANTED,
    TIME,
    st.lists(st.tuples(SMALL, st.integers(1, 16), SMALL, st.integers(0, 4)), min_size=1),
)
def test_what_one_kind_of_node_has_passes_and_what_none_has_is_named(
    wanted: Resources, limit: int | None, rows: list[tuple[int, int, int, int]]
) -> None:
    kinds = [NodeKind(*row, limit) for row in rows]
    lacking = {
        "gpus-per-node": wanted.gpus_per_node > max(k.gpus for k in kinds),
        "ranks-per-node x --cpus": wanted.cpus_per_node > max(k.cpus for k in kinds),
        "mem-gb": wanted.mem_gb > max(k.mem_gb for k in kinds),
        "time (minutes)": limit is not None and wanted.time_min > limit,
        "nodes": wanted.nodes > sum(k.count for k in kinds),
    }
    enough = any(
        k.gpus >= wanted.gpus_per_node
        and k.cpus >= wanted.cpus_per_node
        and k.mem_gb >= wanted.mem_gb
        and k.count >= wanted.nodes
        for k in kinds
    )
    if enough and not lacking["time (minutes)"]:
        check_nodes(wanted, "test", kinds)
    if any(lacking.values()):
        with pytest.raises(UserError, match=r"partition 'test' has \d+ at most; ask for less"):
            check_nodes(wanted, "test", kinds)
    if sum(lacking.values()) == 1 and len(kinds) == 1:
        (option,) = (option for option, is_lacking in lacking.items() if is_lacking)
        with pytest.raises(UserError, match=f"^--{re.escape(option)} = "):
            check_nodes(wanted, "test", kinds)


@given(st.integers(10, 3600), st.integers(1, 100))
def test_a_start_has_time_to_work_before_it_is_told_to_leave(signal: int, time_min: int) -> None:
    """The fix names the shortest limit that passes."""
    site = Site(signal_seconds=signal)
    if time_min * 60 - signal >= MIN_WORKING_SECONDS:
        check_time(Resources(time_min=time_min), site)
        return
    with pytest.raises(UserError) as error:
        check_time(Resources(time_min=time_min), site)
    (least,) = map(int, re.findall(r"ask for at least (\d+)m", error.value.fix))
    check_time(Resources(time_min=least), site)
    with pytest.raises(UserError):
        check_time(Resources(time_min=least - 1), site)
