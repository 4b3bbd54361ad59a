"""Where a rank is: its place among the others, its GPU, its cores."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import UserError
from launcher.inside.binding import cores_of, gpu_of
from launcher.inside.rendezvous import first_host, place, port, way

HOST = re.escape(socket.gethostname())
SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_NTASKS": "8",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
}
TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "here",
    "MASTER_PORT": "29500",
}


def test_three_ways() -> None:
    found = place(SLURM)
    assert (way(SLURM), way(TORCHRUN), way({})) == ("slurm", "torchrun", "single")
    assert found.pop("MASTER_PORT") == str(port(SLURM))
    assert found == {
        "RANK": "5",
        "WORLD_SIZE": "8",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "4",
        "MASTER_ADDR": "gpu07",
    }
    assert place(TORCHRUN | SLURM) == TORCHRUN
    assert place({}) == {}


def test_a_batch_script_alone_is_a_single_process() -> None:
    """There Slurm sets a rank and a number of tasks, though nobody else was started."""
    assert place({"SLURM_JOB_ID": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}) == {}


@pytest.mark.parametrize("name", sorted(set(SLURM) - {"SLURM_STEP_ID"}))
def test_a_partial_environment_of_slurm_is_an_error(name: str) -> None:
    with pytest.raises(UserError, match=f"^{name} is missing"):
        place({key: value for key, value in SLURM.items() if key != name})


@pytest.mark.parametrize("name", sorted(TORCHRUN))
def test_a_partial_environment_of_torchrun_is_an_error(name: str) -> None:
    with pytest.raises(UserError, match=f"^{name} is missing"):
        place({key: value for key, value in TORCHRUN.items() if key != name})


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node1", "node1"),
        ("node[1-2]", "node1"),
        ("gpu[007-009,012],cpu1", "gpu007"),
        ("a,b[1-2]", "a"),
        ("rack[2,4]n", "rack2n"),
        ("r[1-2]n[03-04],r3n1", "r1n03"),
        ("a[1,3]b[2],c", "a1b2"),
    ],
)
def test_the_first_node_of_a_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.data())
def test_ranks_of_a_node_from_slurms_short_form(counts: list[int], data: st.DataObject) -> None:
    """Slurm writes runs of equal counts as N(xK)."""
    node = data.draw(st.integers(0, len(counts) - 1))
    runs: list[list[int]] = []
    for count in counts:
        if runs and runs[-1][0] == count:
            runs[-1][1] += 1
        else:
            runs.append([count, 1])
    text = ",".join(f"{count}(x{times})" if times > 1 else f"{count}" for count, times in runs)
    found = place(SLURM | {"SLURM_STEP_TASKS_PER_NODE": text, "SLURM_NODEID": str(node)})
    assert found["LOCAL_WORLD_SIZE"] == str(counts[node])


@given(st.integers(1, 10**8), st.integers(0, 50))
def test_a_requeued_job_meets_elsewhere(job: int, restart: int) -> None:
    before = SLURM | {"SLURM_JOB_ID": str(job), "SLURM_RESTART_COUNT": str(restart)}
    after = before | {"SLURM_RESTART_COUNT": str(restart + 1)}
    assert port(before) != port(after)
    assert 20_000 <= port(before) < 32_000


def test_each_rank_sees_its_own_gpu() -> None:
    shown = {"CUDA_VISIBLE_DEVICES": "4,5,7"}
    assert [gpu_of(shown, rank, 3) for rank in range(3)] == ["4", "5", "7"]
    assert gpu_of({}, 0, 2) is None
    assert gpu_of({"CUDA_VISIBLE_DEVICES": "1"}, 0, 1) is None
    bound = {"SLURM_GPUS_ON_NODE": "2", "CUDA_VISIBLE_DEVICES": "1"}
    assert gpu_of(bound, 1, 2) is None, "srun --gpu-bind=single:1 shows each its own"
    with pytest.raises(UserError, match=rf"1 GPU\(s\) \(1\) for 3 ranks on {HOST}"):
        gpu_of(bound, 1, 3)
    for nothing in ("", "NoDevFiles", "-1"):
        assert gpu_of({"CUDA_VISIBLE_DEVICES": nothing}, 1, 2) is None
    with pytest.raises(UserError, match=rf"3 GPU\(s\) \(4,5,7\) for 4 ranks on {HOST}"):
        gpu_of(shown, 3, 4)


def test_ranks_share_the_cores_that_their_job_was_given() -> None:
    job = {"SLURM_CPUS_ON_NODE": "6", "SLURM_CPUS_PER_TASK": "3"}
    shares = [cores_of(job, [8, 9, 10, 11, 12, 13], rank, 2) for rank in range(2)]
    assert shares == [[8, 9, 10], [11, 12, 13]]
    assert cores_of(job, list(range(64)), 0, 2) is None, "nothing is confined: hands off"
    assert cores_of(job, [8, 9, 10], 0, 2) is None, "each task is confined already"
    assert cores_of(job, [8], 0, 2) is None


BIND = """
import os, sys
from launcher.inside.binding import bind
bind(int(sys.argv[1]), 2)
print(*sorted(os.sched_getaffinity(0)), os.environ["CUDA_VISIBLE_DEVICES"])
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_a_process_keeps_to_its_cores_and_its_gpu() -> None:
    """Two ranks of a job that was given two cores and two GPUs of this machine."""
    first, second, *_ = sorted(os.sched_getaffinity(0))
    job = {"SLURM_CPUS_ON_NODE": "2", "SLURM_CPUS_PER_TASK": "1", "CUDA_VISIBLE_DEVICES": "4,7"}
    said = [
        subprocess.run(
            ["taskset", "-c", f"{first},{second}", sys.executable, "-c", BIND, rank],
            env={**os.environ, **job},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for rank in ("0", "1")
    ]
    assert said == [f"{first} 4\n", f"{second} 7\n"]
