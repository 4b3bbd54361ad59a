"""Ranks that are asked to stop while they copy packs, or wait for others that do, leave at once.

Real ranks of the launcher, each a process; a disk is made slow, and the signals come from outside.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from rank_processes import fork, parent
from waiting import until

from distill.data.manifest import shard_name
from distill.data.pack_writer import EncodedPair, write_pack
from distill.processes.notes import NOTES, read_note
from launcher.inside.staging import stage
from launcher.jobfile import JobFile

RANKS = 3
RANK = """
import os, shutil, sys, time
from pathlib import Path
from distill.processes.spawn import PARENT
from launcher.inside import rank

def copy_slowly(source, to):
    with source.open("rb") as content, to.open("wb") as file:
        while part := content.read(1 << 20):
            file.write(part)
            if source.name == slow:
                Path("copying").touch()
                time.sleep(20)

job, home, slow = sys.argv[1:]
shutil.copyfile = copy_slowly
os.makedirs(home, exist_ok=True)
os.chdir(home)  # the node's own disk
os.environ[PARENT] = str(os.getppid())
Path(os.environ["PID"]).write_text(str(os.getpid()))
rank.run_rank(Path(job))
print("not here")
"""


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """Of three shards or more."""
    images = [EncodedPair(b"\xff\xd8a\xff\xd9", b"\xff\xd8b\xff\xd9", i % 2, 0) for i in range(3)]
    write_pack(tmp_path / "pack", images, 3, identities=["a", "b"], kinds=("blur",), shard_bytes=30)
    return tmp_path / "pack"


class Ranks:
    """Three ranks under way: rank r on the node ``nodes[r]``."""

    def __init__(self, folder: Path, pack: Path, nodes: str, pool: ThreadPoolExecutor) -> None:
        config, job = folder / "run.toml", folder / "job.json"
        config.write_text(f'[run]\ndevice = "cpu"\n[data]\ntrain = "{pack}"\n')
        JobFile(str(folder / "run"), str(config), "", RANKS, scratch="scratch").write(job)
        with socket.create_server(("127.0.0.1", 0)) as door:
            place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(door.getsockname()[1])}
        place |= {"WORLD_SIZE": str(RANKS), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
        self.folder = folder
        programs = [
            {
                "arguments": ["-c", RANK, str(job), str(folder / node), shard_name(1)],
                "out": str(folder / f"{rank}.out"),
                "err": str(folder / f"{rank}.err"),
                "env": os.environ
                | place
                | {"RANK": str(rank), NOTES: str(folder), "PID": str(folder / f"{rank}.pid")},
            }
            for rank, node in enumerate(nodes)
        ]
        self.statuses: Future[list[int]] = pool.submit(fork, parent(), programs, 60)

    def signal(self, number: signal.Signals, *ranks: int) -> None:
        for rank in ranks:
            os.kill(self.pid(rank), number)

    def pid(self, rank: int) -> int:
        return int((self.folder / f"{rank}.pid").read_text())

    def waits_for_a_copy(self) -> bool:
        outputs = self.folder.glob("*.out")
        return any("waiting for another rank of this node" in out.read_text() for out in outputs)

    def meets(self, rank: int) -> bool:
        """Whether it has begun to: a thread connects it, then there is a connection."""
        process = psutil.Process(self.pid(rank))
        return process.num_threads() > 1 or bool(process.net_connections("tcp"))

    def noted(self, rank: int) -> str:
        """What a rank left for those who started it."""
        note = read_note(self.folder / f"rank{rank}.json")
        assert note is not None and not note.secondary
        return f"{note.status} {note.text}"


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def stopped(by: signal.Signals, doing: str) -> str:
    return f"{128 + by} error: stopped by {by.name} {doing}; the same command goes on"


COPYING, WAITING = "while packs were copied", "while it waited for all ranks to come"


def test_copies_and_those_that_wait_for_them_end_at_once(
    pack: Path, tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    """Two ranks of a node, of which one copies; the third would connect to the first."""
    stage(pack, tmp_path / "b" / "scratch")
    ranks = Ranks(tmp_path, pack, "aab", pool)
    until((tmp_path / "a" / "copying").exists, "a copy")
    until(ranks.waits_for_a_copy, "one that waits for it")
    until(lambda: ranks.meets(2), "one that meets the others")
    began = time.monotonic()
    ranks.signal(signal.SIGUSR2, 0, 1, 2)
    assert ranks.statuses.result() == [128 + signal.SIGUSR2] * RANKS
    assert time.monotonic() - began < 5
    for rank, doing in enumerate((COPYING, COPYING, WAITING)):
        assert ranks.noted(rank) == stopped(signal.SIGUSR2, doing)


def test_one_that_is_asked_while_it_waits_takes_the_others_with_it(
    pack: Path, tmp_path: Path, pool: ThreadPoolExecutor, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the next start goes on with the copy that was cut off."""
    stage(pack, tmp_path / "a" / "scratch")
    ranks = Ranks(tmp_path, pack, "aab", pool)
    until((tmp_path / "b" / "copying").exists, "a copy")
    until(lambda: ranks.meets(0) and ranks.meets(1), "two that meet")
    ranks.signal(signal.SIGTERM, 1)
    until((tmp_path / "rank0.json").exists, "the end of the one that keeps the store")
    ranks.signal(signal.SIGUSR2, 2)  # as whoever started them ends those that are left
    term, usr2 = 128 + signal.SIGTERM, 128 + signal.SIGUSR2
    assert ranks.statuses.result() == [term, term, usr2]
    for rank in (0, 1):
        assert ranks.noted(rank) == stopped(signal.SIGTERM, WAITING)
    capsys.readouterr()
    stage(pack, tmp_path / "b" / "scratch")
    assert re.search(r"; 1 of \d shards are there already", capsys.readouterr().out)
