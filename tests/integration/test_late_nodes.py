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
from distill.processes.notes import lost_peer
from distill.processes.stop import StopRequests
from distill.ranks import init_process_group, leave_process_group
from launcher.inside import rank, staging
from launcher.inside.staging import stage

job, pack, home, late, mb_per_s, seconds = sys.argv[1:]
os.mkdir(home)
os.chdir(home)  # the node's own disk
if os.environ["RANK"] != late:
    stage(Path(pack), Path("scratch"))  # an earlier run was here
staging.SLOWEST_MB_PER_S = float(mb_per_s)
copy = staging._copy

def slow_copy(*rest):
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end and len(list(Path("..").glob("*/over"))) < 2:
        time.sleep(0.05)
    print("begins late")
    copy(*rest)

def meet(config, ranks, *, stops, **_):
    time.sleep(ranks.rank)  # so that the first is also the first to wait no more
    init_process_group(config, ranks, stops)
    print("met", flush=True)
    leave_process_group()

staging._copy = slow_copy
distill.train.train = meet
try:
    with StopRequests() as stops:
        rank._train(Path(job), stops)
except Exception as error:
    print("a consequence:", lost_peer(error))
    raise
finally:
    Path("over").touch()
"""
"""A rank of a node, up to where it has met the others, or waits for them no more."""


@pytest.fixture
def job(tmp_path: Path) -> list[str]:
    """The files of a job whose collectives wait for 3 s: job.json and its pack."""
    images = [EncodedPair(b"\xff\xd8a\xff\xd9", b"\xff\xd8b\xff\xd9", 0, 0)] * 8
    write_pack(tmp_path / "pack", images, 8, identities=["a"], kinds=("blur",))
    config, file = tmp_path / "run.toml", tmp_path / "job.json"
    settings = f'[run]\ndevice = "cpu"\n[data]\ntrain = "{tmp_path / "pack"}"\n'
    config.write_text(f"{settings}[train]\ncollective_timeout_min = 0.05\n")
    JobFile(str(tmp_path), str(config), "", 3, scratch="scratch").write(file)
    return [str(file), str(tmp_path / "pack")]


def meet(
    job: list[str], folder: Path, *, late: int, mb_per_s: float, seconds: float
) -> list[tuple[int, str]]:
    """Status and words of three ranks, each on a node.

    The pack of one comes so many seconds later, or when the other ranks are over.
    """
    place = {"WORLD_SIZE": "3", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    outputs = [folder / f"{rank}.out" for rank in range(3)]
    how = [str(word) for word in (late, mb_per_s, seconds)]
    door = socket.socket()  # nobody else is given its port while the first rank may take it
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    door.bind(("127.0.0.1", 0))
    place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(door.getsockname()[1])}
    programs = [
        {
            "arguments": ["-c", NODE, *job, str(folder / str(rank)), *how],
            "out": str(output),
            "err": str(output.with_suffix(".err")),
            "env": os.environ | place | {"RANK": str(rank)},
        }
        for rank, output in enumerate(outputs)
    ]
    with door:
        statuses = fork(parent(), programs, 400)
    told = [output.read_text() + output.with_suffix(".err").read_text() for output in outputs]
    return list(zip(statuses, told, strict=True))


@pytest.mark.parametrize("late", [0, 2])
def test_all_nodes_meet_where_one_copies(job: list[str], tmp_path: Path, late: int) -> None:
    """Though a collective waits for 3 s: at 0.1 MB/s the 4 MB of the pack take 42 s."""
    met = meet(job, tmp_path, late=late, mb_per_s=0.1, seconds=4)
    for rank, (status, words) in enumerate(met):
        assert status == 0, words
        assert words.splitlines()[-1] == "met"
        assert ("begins late" in words) == (rank == late)


@pytest.mark.parametrize("late", [0, 2])
def test_a_node_that_never_comes_is_not_awaited_for_ever(
    job: list[str], tmp_path: Path, late: int
) -> None:
    """At 50 MB/s it should have come 0.1 s after the others.

    The first rank keeps the place where all meet: the second may see it gone, a consequence.
    """
    ended = meet(job, tmp_path, late=late, mb_per_s=50, seconds=300)
    first, second = (end for rank, end in enumerate(ended) if rank != late)
    for status, words in (first, second):
        assert status == 1
        assert "a consequence: True" in words, words
    told = r"timed out waiting 0\.05\d* minutes for the other ranks \(.*\): see the logs of those"
    assert re.search(told, first[1]), first[1]
