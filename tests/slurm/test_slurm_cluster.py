"""The test cluster itself: nothing of it stays, even where the tests are killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

START = """
import sys, time
sys.path.insert(0, sys.argv[1])
from cluster import Cluster
cluster = Cluster()
cluster.output("sbatch", "-N2", "--output=/dev/null", "--wrap", "srun sleep 999")
print(cluster.base, flush=True)
time.sleep(999)
"""


def processes_of(base: str) -> list[str]:
    """Processes that were started with the cluster's configuration, or below its folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if base.encode() in text and state != "Z" and int(process.name) != os.getpid():
            found.append(process.name)
    return found


def test_killed_tests_leave_no_process_network_or_mount() -> None:
    links, mounts = (
        sorted(path.name for path in Path("/sys/class/net").iterdir()),
        Path("/proc/mounts").read_text(),
    )
    argv = [sys.executable, "-c", START, str(Path(__file__).parent)]
    child = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    base = child.stdout.readline().strip()
    assert base
    assert len(processes_of(base)) > 5
    child.send_signal(signal.SIGKILL)
    child.wait()
    end = time.monotonic() + 20
    while processes_of(base):
        assert time.monotonic() < end, processes_of(base)
        time.sleep(0.1)
    assert sorted(path.name for path in Path("/sys/class/net").iterdir()) == links
    assert Path("/proc/mounts").read_text() == mounts
    shutil.rmtree(base)  # files are all that is left
