"""Nodes that copy packs meet those that have their copies, however short collectives may wait."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest
from rank_processes import fork, parent

from distill.data.pack_writer import EncodedPair, write_pack
from launcher.jobfile import JobFile

NODE = """
import os, sys, time
from pathlib import Path
import distill.train
from distill.processes.stop import StopRequests
from distill.ranks import init_process_group, leave_process_group
from launcher.inside import rank, staging
from launcher.inside.staging import stage

job, pack, home, late, mb_per_s = sys.argv[1:]
os.mkdir(home)
os.chdir(home)  # the node's own disk
if os.environ["RANK"] != late:
    stage(Path(pack), Path("scratch"))  # an earlier run was here
staging.SLOWEST_MB_PER_S = float(mb_per_s)
copy = staging._copy

def slow_copy(*rest):
    time.sleep(4)
    print("begins late")
    copy(*rest)

def meet(config, ranks, *, stops, **_):
    init_process_group(config, ranks, stops)
    print("met", flush=True)
    leave_process_group()

staging._copy = slow_copy
distill.train.train = meet
with StopRequests() as stops:
    rank._train(Path(job), stops)
"""
"""A rank of a node, up to where it has met the others."""


@pytest.fixture
def job(tmp_path: Path) -> list[str]:
    """The files of a job whose collectives wait for 1.2 s: job.json and its pack."""
    images = [EncodedPair(b"\xff\xd8a\xff\xd9", b"\xff\xd8b\xff\xd9", 0, 0)] * 8
    write_pack(tmp_path / "pack", images, 8, identities=["a"], kinds=("blur",))
    config, file = tmp_path / "run.toml", tmp_path / "job.json"
    settings = f'[run]\ndevice = "cpu"\n[data]\ntrain = "{tmp_path / "pack"}"\n'
    config.write_text(f"{settings}[train]\ncollective_timeout_min = 0.02\n")
    JobFile(str(tmp_path), str(config), "", 3, scratch="scratch").write(file)
    return [str(file), str(tmp_path / "pack")]


def meet(job: list[str], folder: Path, *, late: int, mb_per_s: float) -> list[tuple[int, str]]:
    """Status and words of three ranks, each on a node; the pack of one comes 4 s later."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(door.getsockname()[1])}
    place |= {"WORLD_SIZE": "3", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    outputs = [folder / f"{rank}.out" for rank in range(3)]
    programs = [
        {
            "arguments": ["-c", NODE, *job, str(folder / str(rank)), str(late), str(mb_per_s)],
            "out": str(output),
            "err": str(output.with_suffix(".err")),
            "env": os.environ | place | {"RANK": str(rank)},
        }
        for rank, output in enumerate(outputs)
    ]
    statuses = fork(parent(), programs, 100)
    told = [output.read_text() + output.with_suffix(".err").read_text() for output in outputs]
    return list(zip(statuses, told, strict=True))


@pytest.mark.parametrize("late", [0, 2])
def test_all_nodes_meet_where_one_copies(job: list[str], tmp_path: Path, late: int) -> None:
    """Though a collective waits for 1.2 s: at 0.1 MB/s the 4 MB of the pack take 42 s."""
    for rank, (status, words) in enumerate(meet(job, tmp_path, late=late, mb_per_s=0.1)):
        assert status == 0, words
        assert words.splitlines()[-1] == "met"
        assert ("begins late" in words) == (rank == late)


def test_a_node_that_never_comes_is_not_awaited_for_ever(job: list[str], tmp_path: Path) -> None:
    """At 50 MB/s it should have come 0.1 s after the others."""
    first, second, _ = meet(job, tmp_path, late=2, mb_per_s=50)
    for status, words in (first, second):
        assert status == 1
        assert re.search(r"timed out waiting 0\.02\d* minutes for the other ranks", words), words
