"""Where a rank is: its place among the others, its GPU, its cores, its copy of the data."""

from __future__ import annotations

import os
import re
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.config import Config
from distill.data.manifest import read_pack, shard_name
from distill.data.pack_writer import EncodedPair, write_pack
from distill.errors import UserError
from launcher.inside.binding import cores_of, gpu_of
from launcher.inside.rendezvous import first_host, place, port, way
from launcher.inside.staging import stage, staged

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


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    images = [EncodedPair(b"\xff\xd8a\xff\xd9", b"\xff\xd8b\xff\xd9", i % 2, 0) for i in range(8)]
    write_pack(tmp_path / "pack", iter(images), 8, identities=["a", "b"], kinds=("blur",))
    return tmp_path / "pack"


STAGE = """
import sys, time
from pathlib import Path
import launcher.inside.staging as staging
copy = staging._copy
def slow_and_told(*rest):
    print("copies", flush=True)
    time.sleep(0.3)
    copy(*rest)
staging._copy = slow_and_told
print(staging.stage(Path(sys.argv[1]), Path(sys.argv[2])))
"""


def test_one_copy_a_node(pack: Path, tmp_path: Path) -> None:
    """Four processes at the same time: one copies, all read the same."""
    argv = [sys.executable, "-c", STAGE, str(pack), str(tmp_path / "scratch")]
    ranks = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = [rank.communicate(timeout=600)[0].splitlines() for rank in ranks]
    assert sum(lines.count("copies") for lines in said) == 1
    (copy,) = {lines[-1] for lines in said}
    assert (Path(copy) / shard_name(0)).read_bytes() == (pack / shard_name(0)).read_bytes()


def test_settings_point_to_the_copy(pack: Path, tmp_path: Path) -> None:
    config = Config.model_validate({"data": {"train": str(pack)}})
    assert staged(config, "") is config
    moved = staged(config, str(tmp_path / "scratch"))
    assert Path(moved.data.train).parent.parent == tmp_path / "scratch"
    assert moved.data.evaluation == ""
    assert moved.model_copy(update={"data": config.data}) == config


def test_several_packs_are_copied_each(pack: Path, tmp_path: Path) -> None:
    config = Config.model_validate({"data": {"train": [str(pack), str(pack)]}})
    moved = staged(config, str(tmp_path / "scratch")).data.train
    assert len(moved) == 2 and {Path(p).parent.parent for p in moved} == {tmp_path / "scratch"}


def test_a_copy_that_differs_is_refused_and_removed(pack: Path, tmp_path: Path) -> None:
    beton = pack / shard_name(0)
    whole = beton.read_bytes()
    beton.write_bytes(whole.replace(b"\xff\xd8a", b"\xff\xd8c", 1))
    config = Config.model_validate({"data": {"train": str(pack)}})
    with pytest.raises(UserError, match=rf"^on {HOST}: .* copied to .* SHA-256 is not that"):
        staged(config, str(tmp_path / "scratch"))
    digest = read_pack(pack).manifest.digest
    (home,) = (tmp_path / "scratch").iterdir()
    assert {path.name for path in home.iterdir()} == {f"{digest}.lock"}


@pytest.mark.parametrize("name", ["manifest.json", shard_name(0)])
def test_a_copy_that_was_cleaned_away_in_part_is_made_again(
    pack: Path, tmp_path: Path, name: str
) -> None:
    copy = stage(pack, tmp_path / "scratch")
    before = copy.stat().st_ino
    assert stage(pack, tmp_path / "scratch").stat().st_ino == before
    (copy / name).unlink()
    assert stage(pack, tmp_path / "scratch") == copy
    assert (copy / name).read_bytes() == (pack / name).read_bytes()


def test_a_disk_that_is_too_small_is_named_and_left_as_it_was(pack: Path, tmp_path: Path) -> None:
    """The kernel refuses to write more than some bytes of a file, as it does where no room is."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(UserError, match=r"cannot be copied to .*File too large.*make room"):
            stage(pack, tmp_path / "scratch")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (home,) = (tmp_path / "scratch").iterdir()
    assert [path.suffix for path in home.iterdir()] == [".lock"]


def test_scratch_that_others_can_write_is_refused(pack: Path, tmp_path: Path) -> None:
    copy = stage(pack, tmp_path / "scratch")
    copy.parent.chmod(0o777)
    with pytest.raises(UserError, match="others may write there"):
        stage(pack, tmp_path / "scratch")
