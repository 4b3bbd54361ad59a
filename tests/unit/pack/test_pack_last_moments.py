"""Packers that are killed when all is made: nothing is made again, and nothing is lost."""

import errno
import fcntl
import os
import shutil
import subprocess
from contextlib import contextmanager

import pytest
from cut_off import killed_at, removes, renames, stopped_at
from single_packs import encoded

from distill.data.forget import forget
from distill.data.pack import PackOptions, open_source, pack
from distill.errors import UserError


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Drawn images of three people, four each."""
    root = tmp_path_factory.mktemp("photographs") / "people"
    for number in range(12):
        photograph = root / ("ann", "bob", "cem")[number % 3] / f"{number // 3}.jpg"
        photograph.parent.mkdir(parents=True, exist_ok=True)
        photograph.write_bytes(encoded(number))
    return root


class Parts:
    """Bars of which only the titles are kept."""

    def __init__(self):
        self.titles = []

    @contextmanager
    def __call__(self, title, _total):
        self.titles.append(title)
        yield self

    def advance(self, by=1):
        pass


def packed(people, out, *, seed=0, parts=None, **changes):
    wanted = {"aligned": True, "workers": 1, "kinds": {"blur": 1.0}, "shard_bytes": 1 << 16}
    options = PackOptions(**wanted, seed=seed, **changes)
    return pack(open_source(str(people)), out, options, parts or Parts())


def content(folder):
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def whole(people, tmp_path_factory):
    """What nobody cut off, by seed."""
    to = tmp_path_factory.mktemp("whole")
    made = {seed: content(packed(people, to / str(seed), seed=seed).train.path) for seed in (0, 1)}
    assert made[0] != made[1] and len([name for name in made[0] if ".beton" in name]) >= 2
    return made


POINTS = {
    "first line of a resume": removes("-00000.json"),
    "spool": removes("faces.spool"),
    "journal": removes("journal.jsonl"),
    "request": removes("request.json"),
    "old one goes aside": renames(ending=".old"),
    "new one takes its place": renames(ending="/out"),
    "old one is removed": removes(".old"),
}


@pytest.mark.parametrize("at", POINTS.values(), ids=list(POINTS))
def test_a_whole_pack_is_put_in_place_by_the_next_start(people, whole, tmp_path, at):
    out, parts = tmp_path / "out", Parts()
    packed(people, out, seed=1)
    killed_at(lambda: packed(people, out, overwrite=True), at)
    shards = {path.stat().st_ino for path in tmp_path.rglob("pairs*.beton")}
    packed(people, out, overwrite=True, parts=parts)
    assert content(out) == whole[0]
    assert parts.titles == ["comparing photographs"]
    assert {path.stat().st_ino for path in out.glob("pairs*.beton")} <= shards
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_was_being_replaced_returns_where_nothing_may_be_replaced(people, whole, tmp_path):
    out = tmp_path / "out"
    packed(people, out, seed=1)
    killed_at(lambda: packed(people, out, overwrite=True), renames(ending="/out"))
    assert not out.exists()
    with pytest.raises(UserError, match="holds a pack with other settings"):
        packed(people, out)
    assert content(out) == whole[1]
    packed(people, out, overwrite=True)
    assert content(out) == whole[0]


def test_whole_parts_are_put_in_place(people, tmp_path):
    split, parts = {"holdout": 0.5}, Parts()
    packed(people, tmp_path / "whole", **split)
    killed_at(lambda: packed(people, tmp_path / "out", **split), renames(ending="/out"))
    packed(people, tmp_path / "out", parts=parts, **split)
    assert parts.titles == ["comparing photographs"]
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_whole_pack_of_other_photographs_is_made_anew(people, tmp_path):
    mine = tmp_path / "people"
    shutil.copytree(people, mine)
    killed_at(lambda: packed(mine, tmp_path / "out"), renames(ending="/out"))
    (mine / "ann" / "3.jpg").write_bytes((people / "bob" / "3.jpg").read_bytes()[:-1])
    packed(mine, tmp_path / "out")
    packed(mine, tmp_path / "whole")
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_finished_shards_of_photographs_under_other_names_do_not_count(people, tmp_path):
    """As many as before, so the request looks the same; the shards hold the earlier people."""
    mine = tmp_path / "people"
    shutil.copytree(people, mine)
    killed_at(lambda: packed(mine, tmp_path / "out"), renames(ending="/manifest.json"))
    (mine / "ann").rename(mine / "zoe")
    packed(mine, tmp_path / "out")
    packed(mine, tmp_path / "whole")
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_link_stays_and_the_pack_grows_where_it_points(people, whole, tmp_path):
    home, big = tmp_path / "home", tmp_path / "big"
    home.mkdir()
    big.mkdir()
    (home / "out").symlink_to(big / "mine")  # nothing there yet
    with stopped_at(lambda: packed(people, home / "out"), renames(ending="/manifest.json")):
        assert [path.name for path in home.iterdir()] == ["out"]
        assert {path.name for path in big.iterdir()} == {".mine.partial", ".mine.lock"}
        with pytest.raises(UserError, match="home/out: another process is packing to it"):
            packed(people, home / "out")
    assert content(big / "mine") == whole[0]
    packed(people, home / "out", seed=1, overwrite=True)
    assert (home / "out").readlink() == big / "mine" and content(big / "mine") == whole[1]
    assert [path.name for path in (*home.iterdir(), *big.iterdir())] == ["out", "mine"]


def test_a_mount_point_is_refused_before_any_work(people, tmp_path):
    out, parts = tmp_path / "out", Parts()
    out.mkdir()
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(out)]
    if not shutil.which("mount") or subprocess.run(mount, check=False).returncode:
        pytest.skip("a mount needs root")
    try:
        with pytest.raises(UserError, match=r"out: a mount point.*name a folder below it"):
            packed(people, out, parts=parts)
        assert parts.titles == []
        packed(people, out / "mine")
    finally:
        subprocess.run(["umount", str(out)], check=True)


@pytest.mark.parametrize("answer", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_named_as_such(people, tmp_path, answer, monkeypatch):
    """The answer of the kernel is made up: no such file system can be counted on."""

    def flock(*_):
        raise OSError(answer, os.strerror(answer))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(UserError, match=r"out: this file system has no locks.*-o flock"):
        packed(people, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part", ["", "train"])
def test_nobody_is_forgotten_in_a_pack_that_is_being_replaced(people, tmp_path, part):
    """Of a new one with two parts, both go."""
    out = tmp_path / "out"
    options = {"holdout": 0.5} if part else {}
    packed(people, out, seed=1, **options)
    at = renames(ending=".old")
    with stopped_at(lambda: packed(people, out, overwrite=True, **options), at):
        before = content(out)
        with pytest.raises(UserError, match=r"out.*: another process is packing to it; wait for"):
            forget(["ann"], out / part)
        assert content(out) == before
    forget(["ann"], out / part)


@pytest.mark.parametrize("part", ["", "train"])
def test_no_pack_is_replaced_while_somebody_is_removed_from_it(people, tmp_path, part):
    out = tmp_path / "out"
    options = {"holdout": 0.5} if part else {}
    packed(people, out, seed=1, **options)
    with stopped_at(lambda: forget(["ann"], out / part), renames(ending="/manifest.json")):
        with pytest.raises(UserError, match="out: another process is removing somebody from it; w"):
            packed(people, out, overwrite=True, **options)
        with pytest.raises(UserError, match=r"out.*: another process is removing somebody from it"):
            forget(["bob"], out / part)
    assert b"ann" not in (out / part / "manifest.json").read_bytes()
    packed(people, out, overwrite=True, **options)
    assert [path.name for path in tmp_path.glob(".*")] == []
