"""The test cluster itself: nothing of it stays, even where the tests are killed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from waiting import until

HERE = Path(__file__).parent
JOB = str(HERE / "test_slurm_jobs.py::test_a_job_leaves_all_that_made_it")


def processes_below(folder: Path, words: bytes = b"") -> Iterator[Path]:
    """Living processes, in /proc, started with ``folder`` in their variables, ``words`` in argv."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            variables = (process / "environ").read_bytes()
            command = (process / "cmdline").read_bytes()
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:  # it has just ended
            continue
        if str(folder).encode() in variables and words in command and state != "Z":
            yield process


def namespaces_of(processes: Iterable[Path]) -> set[str]:
    """Namespaces that processes live in, and this one does not."""
    kinds = ("net", "mnt", "pid", "uts")
    ours = {str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in kinds}
    found = set()
    for process in processes:
        try:
            found |= {str((process / "ns" / kind).readlink()) for kind in kinds}
        except OSError:  # it has just ended
            continue
    return found - ours


def ranks(folder: Path) -> list[Path]:
    return list(processes_below(folder, b"submitit.core._submit"))


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a short path: Slurm's sockets lie below it, whose names have 108 characters at most."""
    with tempfile.TemporaryDirectory(prefix="pd-killed-") as folder:
        yield Path(folder)


def test_killed_tests_leave_no_process_namespace_network_or_mount(folder: Path) -> None:
    """These very tests, in another pytest, killed while a job trains on both nodes."""
    links = sorted(path.name for path in Path("/sys/class/net").iterdir())
    mounts = Path("/proc/mounts").read_text()
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", JOB]
    with (folder / "log").open("w") as log:
        child = subprocess.Popen(
            argv,
            cwd=HERE.parents[1],
            env={**os.environ, "TMPDIR": str(folder)},
            stdout=log,
            stderr=log,
        )
    try:
        # srun has the name as well
        until(lambda: len(ranks(folder)) > 2, "two ranks", told=(folder / "log").read_text)
        namespaces = namespaces_of(processes_below(folder))
        assert len(namespaces) >= 3 + 2 * 4, "those of the cluster, and of two nodes in it"
        everything = list(Path("/proc").glob("[0-9]*"))  # later ones may get their numbers
    finally:
        child.kill()
        child.wait()
    until(
        lambda: not list(processes_below(folder)),
        "the end of all processes",
        told=lambda: list(processes_below(folder)),
    )
    assert not namespaces & namespaces_of(everything)
    assert sorted(path.name for path in Path("/sys/class/net").iterdir()) == links
    assert Path("/proc/mounts").read_text() == mounts
