"""Start-up checks on three real ranks, each a node of its own by name: who is blamed for what."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from distill.errors import UserError
from distill.ranks import Ranks
from launcher.inside import checks
from launcher.inside.checks import judge
from launcher.jobfile import JobFile

LAUNCH = """
import sys
from distill.processes.spawn import spawn_local
sys.exit(spawn_local(sys.argv[2:], 3, program=[sys.executable, "-c", sys.argv[1]]))
"""
RANK = """
import json, sys, time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import torch
from distill.config import load_config
from distill.errors import UserError
from distill.ranks import from_environment, init_process_group, leave_process_group
from distill.run_dir import RunDir
from distill.processes.spawn import spawned_rank
from launcher.inside import checks
from launcher.jobfile import JobFile

REAL_SUM, REAL_ECHO = checks.all_reduce_sum, checks.echo
BEHIND = SimpleNamespace(time=lambda: time.time() - 60, perf_counter=time.perf_counter)
FULL = SimpleNamespace(disk_usage=lambda _: SimpleNamespace(free=10))
REAL_CLEAR = checks.clear_leftovers

def slow_clear(folder):  # as of a large file; nobody may look at the disk before
    time.sleep(0.3)
    return REAL_CLEAR(folder)

def just_room(root):  # a disk with room for what is to come, if what a killed save left is gone
    used = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    return SimpleNamespace(free=needed + 5 - used)

def off(values):
    total = REAL_SUM(values)
    total[7] += 1
    return total

def slow(values, *between):  # far slower than the other link on a busy machine
    time.sleep(1.0 if ranks.rank in between else 0.0)
    REAL_ECHO(values, *between)

def reading(_):  # a minute later the sources are read
    later = SimpleNamespace(time=lambda: time.time() + 60, perf_counter=time.perf_counter)
    checks.time = later  # for good: the last of the faults
    return digest

FAULTS = {  # what goes wrong, on the rank that is named
    "none": (None, None, None),
    "sources": (1, "code_digest", lambda _: "f" * 64),
    "settings": (2, "dump_toml", lambda _: "other"),
    "GPUs": (1, "_gpus", lambda: 0),
    "sum": (2, "all_reduce_sum", off),
    "clock": (2, "time", BEHIND),
    "space": (1, "shutil", FULL),
    "slow": (2, "echo", slow),
    "leftovers": (0, "clear_leftovers", slow_clear),
    "reading": (1, "code_digest", reading),
}

with spawned_rank():
    config = load_config(None, ["run.device=cpu"])
    ranks = from_environment(config)
    init_process_group(config, ranks)
    engine = SimpleNamespace(
        ranks=ranks, buffers={}, moments=("exp_avg",), shapes={"weight": (4, 5)}, class_bounds={}
    )
    plan = SimpleNamespace(run=RunDir(Path(sys.argv[1], "run")), total_steps=9)
    left = plan.run.checkpoints / ".partial-step-00000004"
    plan.run.checkpoints.mkdir(parents=True, exist_ok=True)
    needed = checks.bytes_to_come(plan.run.checkpoints, engine, config.checkpoint, 9)
    digest = checks.code_digest(Path(checks.distill.__file__).resolve().parents[1])
    found = {}
    for name, (rank, attribute, fake) in FAULTS.items():
        least = 1e6 if name == "slow" else 0.0
        job = JobFile("", "", digest, 3, gpus_per_node=2, min_allreduce_gb_per_s=least)
        with ExitStack() as patches:
            patches.enter_context(
                patch.object(checks.socket, "gethostname", lambda: f"node{ranks.rank}")
            )
            patches.enter_context(patch.object(checks, "_gpus", lambda: 2))
            # On one machine only the first rank would look at the sources.
            alone = SimpleNamespace(**vars(ranks) | {"local_rank": 0, "is_first": ranks.is_first})
            engine.ranks = alone
            if name == "leftovers":
                if ranks.rank == 0:
                    left.mkdir(exist_ok=True)
                    (left / "shard").write_bytes(bytes(100))
                checks.barrier()
                disk = SimpleNamespace(disk_usage=just_room)
                patches.enter_context(patch.object(checks, "shutil", disk))
            if rank == ranks.rank:
                patches.enter_context(patch.object(checks, attribute, fake))
            try:
                found[name] = checks.check_all(job, config, engine, plan)
            except UserError as error:
                found[name], found[f"{name} fix"] = error.what, error.fix
    Path(sys.argv[1], f"{ranks.rank}.json").write_text(json.dumps(found))
    leave_process_group()
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What was said of each fault, by its name; alike on all ranks."""
    folder = tmp_path_factory.mktemp("checks")
    done = subprocess.run(
        [sys.executable, "-c", LAUNCH, RANK, str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, *others = (json.loads((folder / f"{rank}.json").read_text()) for rank in range(3))
    assert others == [first, first]
    return dict(first)


def test_nothing_is_said_where_nothing_is_wrong(found: dict[str, dict[str, object]]) -> None:
    passed = found["none"]
    assert passed["hosts"] == ["node0", "node1", "node2"]
    assert passed["world_size"] == 3
    assert isinstance(passed["all_reduce_gb_per_s"], float)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("sources", "other sources on node1 (rank 1): ffffffffffff, not "),
        ("settings", "other settings on node2 (rank 2) than on node0"),
        ("GPUs", "0 GPU(s) on node1 (rank 1), not 2"),
        ("sum", "all-reduce gives a wrong sum on node2 (rank 2)"),
        ("clock", "the clock on node2 (rank 2) is -"),
        ("space", "and 0.00 MB are free on node1 (rank 1)"),
    ],
)
def test_a_fault_is_told_once_with_its_node(found: dict[str, str], fault: str, words: str) -> None:
    assert found[fault].startswith("start-up checks: ")
    assert words in found[fault]
    assert ";" not in found[fault], "one fault"


def test_how_far_a_clock_is_off(found: dict[str, str]) -> None:
    seconds = found["clock"].partition(" is ")[2].removesuffix(" s off")
    assert float(seconds) == pytest.approx(-60.0, abs=4.0)  # as late as ranks read it under load


def test_reading_the_sources_is_no_clock_that_is_off(found: dict[str, object]) -> None:
    assert isinstance(found["reading"], dict), found["reading"]


def test_room_is_looked_for_once_what_a_killed_save_left_is_gone(found: dict[str, object]) -> None:
    assert isinstance(found["leftovers"], dict), found["leftovers"]


def test_the_remedy_is_that_of_the_fault(found: dict[str, str]) -> None:
    for fault in ("sources", "sum", "clock"):
        assert found[f"{fault} fix"] == "mend the node, or leave it out with --exclude HOST"
    assert "lower checkpoint.keep_last" in found["space fix"]
    assert "node" not in found["space fix"]


def test_where_the_network_is_slow_its_slowest_link_comes_first(found: dict[str, str]) -> None:
    what, _, links = found["slow"].partition(", less than 1000000.00: ")
    assert what.startswith("start-up checks: all-reduce at ")
    slowest, other = links.split(", ")
    assert slowest.endswith(" GB/s between node0 and node2")
    assert other.endswith(" GB/s between node0 and node1")
    assert float(slowest.split()[0]) < float(other.split()[0])


def report(rank: int, **other: object) -> dict[str, object]:
    usual = {"rank": rank, "host": f"node{rank}", "code": "abc", "config": "x", "gpus": 2}
    rest = {"clock": 100.0, "free_bytes": 100, "needed_bytes": 50, "sum_is_wrong": False}
    rest |= {"unremoved": []}
    return usual | rest | other


CHECKED = JobFile("", "", "abc", 3, gpus_per_node=2)


def test_the_figure_of_an_all_reduce_is_that_of_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three of 16 MiB each in two seconds, by a clock of ours; one rank contributes 1."""
    monkeypatch.setattr(checks.time, "perf_counter", iter((5.0, 7.0)).__next__)
    speed, wrong = checks.all_reduce(Ranks(0, 1, 0, 1, torch.device("cpu")))
    assert speed == pytest.approx(3 * 16 * 1024**2 / 2 / 1e9)
    assert not wrong


def test_nodes_that_agree_pass() -> None:
    assert list(judge(CHECKED, [report(rank) for rank in range(3)])) == []


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"code": "def"}, "other sources on node1"),
        ({"config": "y"}, "other settings on node1"),
        ({"gpus": 1}, "1 GPU(s) on node1 (rank 1), not 2"),
        ({"sum_is_wrong": True}, "a wrong sum on node1"),
        ({"clock": 107.0}, "the clock on node1 (rank 1) is +7.0 s off"),
    ],
)
def test_each_fault_names_its_node(fault: dict[str, object], words: str) -> None:
    (found,) = judge(CHECKED, [report(0), report(1, **fault), report(2)])
    assert words in found


MANY = [report(rank, host=f"node{rank // 8:03d}") for rank in range(1000)]


@pytest.mark.parametrize(
    "fault",
    [{"code": "def"}, {"config": "y"}, {"gpus": 1}, {"sum_is_wrong": True}, {"clock": 130.0}],
)
def test_what_is_wrong_on_all_nodes_of_a_large_job_is_a_few_words(fault: dict[str, object]) -> None:
    """Half of the 125 nodes and a rank more, so that most clocks agree."""
    reports = [one | fault if one["rank"] >= 503 else one for one in MANY]
    first, *_, last = found = list(judge(CHECKED, reports))
    assert "on node062 (rank 503)" in first
    assert "on node063 (rank 504 and 7 more)" in found[1]
    assert last == "so on 58 more nodes" and len(found) == 6


def test_a_full_disk_is_told_once_by_the_rank_that_sees_least() -> None:
    reports = [one | {"free_bytes": 49 if one["rank"] == 9 else 50} for one in MANY]
    with pytest.raises(UserError) as error:
        checks.judge_room(Path("/runs/a/checkpoints"), reports)
    assert error.value.what == (
        "'/runs/a/checkpoints': checkpoints and weights need 0.00 MB, and 0.00 MB are free"
        " on node001 (rank 9)"
    )
    checks.judge_room(Path("/runs/a/checkpoints"), MANY)


def test_of_many_links_the_slowest_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_link_gb_per_s", lambda _ranks, _first, other: other / 8)
    monkeypatch.setattr(checks, "gather_objects", lambda mine: [mine])
    told = checks.links(Ranks(0, 1000, 0, 8, torch.device("cpu")), MANY).split(", ")
    assert told[0] == "1.00 GB/s between node000 and node001"
    assert told[5:] == ["119 more are faster"]
