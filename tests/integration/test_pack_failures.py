"""Packing cut short: killed workers, full disks, Ctrl-C. An error in one line, and nothing left."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from waiting import alive, until

from distill.data.pack import PackOptions, open_source, pack
from distill.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def people(tmp_path_factory):
    """112x112 "faces" of three people."""
    root = tmp_path_factory.mktemp("photographs") / "people"
    rng = np.random.default_rng(0)
    for name in ("ann", "bob", "cem"):
        (root / name).mkdir(parents=True)
        for i in range(7):
            small = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
            cv2.imwrite(str(root / name / f"{i}.png"), cv2.resize(small, (112, 112)))
    return root


def options(**changes) -> PackOptions:
    return PackOptions(**{"aligned": True, "workers": 1, **changes})


SCRIPT = """
import resource, sys
from pathlib import Path
from distill.data.pack import PackOptions, open_source, pack
from distill.errors import UserError
if __name__ == "__main__":
    if sys.argv[3] != "-":
        limit = int(sys.argv[3])
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    options = PackOptions(
        aligned=True,
        workers=int(sys.argv[4]),
        second_per_image=int(sys.argv[5]),
        shard_bytes=1 << 20,
        kinds={"blur": 1.0},
    )
    try:
        pack(open_source(sys.argv[1]), Path(sys.argv[2]), options)
    except UserError as error:
        print(error)
        sys.exit(2)
"""


def start(tmp_path, *words) -> subprocess.Popen[str]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, str(script), *map(str, words)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.parametrize("limit", [100_000, 3_000_000])
def test_a_full_disk_is_said_and_leaves_nothing(people, tmp_path, limit):
    """The kernel refuses to let any file grow: first the spool of faces, then the pack itself."""
    (tmp_path / "to").mkdir()
    process = start(tmp_path, people, tmp_path / "to" / "out", limit, 1, 1)
    said, trouble = process.communicate(timeout=600)
    assert process.returncode == 2, trouble
    assert said.startswith(f"{tmp_path}/to/out: disk full") and "free some space" in said
    assert list((tmp_path / "to").iterdir()) == []


def mounted(folder: Path, what: str) -> bool:
    """Whether a tmpfs could be mounted (needs root)."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", what, "tmpfs", str(folder)]
    return shutil.which("mount") is not None and (
        subprocess.run(command, check=False, capture_output=True).returncode == 0
    )


@pytest.mark.parametrize("size", ["1m", "2m", "3m"])
def test_a_really_full_disk(people, tmp_path, size):
    """Full while faces are spooled, pairs stored, or the pack is finished; no file stays open."""
    disk = tmp_path / "disk"
    if not mounted(disk, f"size={size}"):
        pytest.skip("a small file system needs root to mount it")
    try:
        with pytest.raises(UserError, match=r"disk/out: disk full \(No space left on device\)"):
            pack(open_source(str(people)), disk / "out", options())
        assert list(disk.iterdir()) == []
        assert not [name for name in open_files() if name.startswith(str(disk))]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def open_files():
    """Names of the files that this process holds, removed ones too."""
    names = []
    for handle in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            names.append(str(handle.readlink()))
    return names


def test_an_output_folder_that_is_not_writable(people, tmp_path):
    locked = tmp_path / "locked"
    root = os.geteuid() == 0
    if root and not mounted(locked, "ro"):
        pytest.skip("root can write anywhere, and no read-only file system could be mounted")
    if not root:
        locked.mkdir(mode=0o500)
    try:
        with pytest.raises(UserError, match=r"locked/out: not writable.*choose a folder"):
            pack(open_source(str(people)), locked / "out", options())
        with pytest.raises(UserError, match="cannot be written"):
            (tmp_path / "file").write_text("")
            pack(open_source(str(people)), tmp_path / "file" / "out", options())
    finally:
        if root:
            subprocess.run(["umount", str(locked)], check=True)


def begun(tmp_path, people):
    """A packer with two workers that has finished two shards of more, and its output folder."""
    to = tmp_path / "to"
    to.mkdir()
    process = start(tmp_path, people, to / "out", "-", 2, 60)
    at_work = psutil.Process(process.pid)

    def is_begun():
        shards = list(to.glob(".out.partial/.facts-*"))
        return len(shards) >= 2 and len(at_work.children(recursive=True)) >= 2

    until(lambda: process.poll() is not None or is_begun(), "two shards and two workers")
    assert process.poll() is None, process.communicate()
    return process, to


def ended(process, how):
    """Stops a packer as ``how`` does; no process of it is left."""
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    pids = [process.pid, *(c.pid for c in children)] if how == signal.SIGINT else [process.pid]
    for pid in pids:  # a terminal sends Ctrl-C to every process of the group
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, how)
    _, trouble = process.communicate(timeout=600)
    assert process.returncode == (1 if how == signal.SIGINT else -9) or process.returncode == -2
    assert trouble.count("Traceback") <= 1  # the script's own; no worker speaks
    until(lambda: not any(map(alive, children)), "the end of the workers")


def content(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


@pytest.fixture(scope="session")
def uninterrupted(people, tmp_path_factory):
    """The files that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    process = start(folder, people, folder / "out", "-", 2, 60)
    said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    assert len(list((folder / "out").glob("*.beton"))) >= 5
    return content(folder / "out")


@pytest.fixture(scope="session")
def killed(people, tmp_path_factory):
    """What a packer left that was killed after two shards, and what a second was told before."""
    process, to = begun(tmp_path_factory.mktemp("killed"), people)
    process.send_signal(signal.SIGSTOP)  # or it might be done before it is killed
    try:
        with pytest.raises(UserError) as refusal:
            pack(open_source(str(people)), to / "out", options())
    finally:
        ended(process, signal.SIGKILL)
    return to, str(refusal.value)


@pytest.fixture
def left_by_killed(killed, tmp_path):
    """A copy of what the killed packer left."""
    return shutil.copytree(killed[0], tmp_path / "to")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill -9"])
def test_a_stopped_packer_goes_on_to_the_same_bytes(people, tmp_path, how, uninterrupted, request):
    """Stopped after some shards: they are kept as they are, and the rest follows."""
    if how == signal.SIGKILL:
        to = request.getfixturevalue("left_by_killed")
    else:
        process, to = begun(tmp_path, people)
        ended(process, how)
    left = {".out.partial", *([".out.lock"] if how == signal.SIGKILL else [])}
    assert {p.name for p in to.iterdir()} == left
    first = to / ".out.partial" / "pairs-00000.beton"
    kept = first.stat().st_ino, first.stat().st_mtime_ns
    process = start(tmp_path, people, to / "out", "-", 2, 60)
    assert process.wait(timeout=600) == 0
    assert [p.name for p in to.iterdir()] == ["out"]
    assert content(to / "out") == uninterrupted
    first = to / "out" / "pairs-00000.beton"
    assert (first.stat().st_ino, first.stat().st_mtime_ns) == kept


def test_a_damaged_finished_shard_is_made_anew(people, tmp_path, left_by_killed, uninterrupted):
    to = left_by_killed
    with (to / ".out.partial" / "pairs-00001.beton").open("r+b") as file:
        file.seek(2_500_000)
        file.write(b"x")
    process = start(tmp_path, people, to / "out", "-", 2, 60)
    assert process.wait(timeout=600) == 0
    assert content(to / "out") == uninterrupted


def test_an_unfinished_pack_of_another_request_is_begun_anew(people, left_by_killed):
    to = left_by_killed
    result = pack(open_source(str(people)), to / "out", options())
    assert [p.name for p in to.iterdir()] == ["out"]
    assert result.train.manifest.pairs == 21


class Stops:
    """A bar of which the evaluation pack's stops the packer, as Ctrl-C does, after some pairs."""

    def __init__(self, after):
        self.left = after

    @contextlib.contextmanager
    def __call__(self, title, _total):
        self.stops = "evaluation" in title
        yield self

    def advance(self, by=1):
        self.left -= by * self.stops
        if self.left < 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("after", [0, 8])
def test_a_whole_training_pack_is_kept_while_the_evaluation_pack_is_made(people, tmp_path, after):
    wanted = options(holdout=0.3, shard_bytes=1 << 16, kinds={"blur": 1.0, "light": 1.0})
    source = open_source(str(people))
    pack(source, tmp_path / "whole", wanted)
    with pytest.raises(KeyboardInterrupt):
        pack(source, tmp_path / "out", wanted, Stops(after))
    states = {p.name: p.stat() for p in (tmp_path / ".out.partial" / "train").glob("*.beton")}
    assert len(states) >= 2
    made = pack(source, tmp_path / "out", wanted)
    for name, state in states.items():
        now = (made.train.path / name).stat()
        assert (now.st_ino, now.st_mtime_ns) == (state.st_ino, state.st_mtime_ns)
    for part in ("train", "evaluation"):
        assert content(tmp_path / "out" / part) == content(tmp_path / "whole" / part)


def test_two_packers_of_one_folder(killed):
    assert "another process is packing to it" in killed[1]
