"""What a partition cannot give is refused, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm
from hypothesis import given
from hypothesis import strategies as st
from submitting import run_of, submit

from distill.errors import UserError
from distill.run_dir import RunDir
from launcher import slurm
from launcher.commands.cancel import cancel
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


def test_an_accounting_that_is_silent_is_no_reason_not_to_ask_sbatch(
    config: Path, fake: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who names no account needs no list of them."""
    fake.cluster()
    fake.answers("sacctmgr", errors="Slurm accounting storage is disabled\n", status=1)
    submit(config)
    assert "warning" not in capsys.readouterr().err
    submit(config, f"run.dir={config.parent}/runs/b", account="face")
    assert "storage is disabled. Whether you may charge" in " ".join(
        capsys.readouterr().err.split()
    )
    (job,) = RunDir(config.parent / "runs" / "b").jobs()
    assert "#SBATCH --account=face\n" in job.script.read_text()


def test_accounts_are_compared_as_slurm_does(config: Path, fake: FakeSlurm) -> None:
    """It has their names in small letters."""
    fake.cluster()
    submit(config, account="FACE")
    with pytest.raises(
        UserError, match="--account 'Body': not one that you may charge; use one of"
    ):
        submit(config, account="Body")


def test_partitions_that_are_hidden_are_asked_for(config: Path, fake: FakeSlurm) -> None:
    """As sinfo and squeue show them, and the jobs there, to who says -a."""
    fake.cluster()
    fake.answers("scancel")
    for client in ("sinfo", "squeue"):
        fake.hides(client)
    submit(config, partition="high")
    with pytest.raises(
        UserError, match="--partition 'low': no such partition; use one of test, hi"
    ):
        submit(config, partition="low")
    fake.queue("12|RUNNING|None|node1")
    fake.hides("squeue")
    assert slurm.state_now("12") == "12|RUNNING|None|node1", "the script's answer to all questions"
    assert cancel(run_of(config), save=False).endswith("job 12 cancelled")
