"""A node's own copy of the data: one for all ranks and runs there, whole, and nobody else's."""

from __future__ import annotations

import re
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from distill.config import Config
from distill.data.manifest import read_pack, shard_name
from distill.data.pack_writer import EncodedPair, write_pack
from distill.errors import UserError
from launcher.inside.staging import minutes_to_stage, stage, staged

HOST = re.escape(socket.gethostname())


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
    (home,) = (tmp_path / "scratch").iterdir()
    assert home.stat().st_mode & 0o777 == 0o700
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


def test_a_pack_that_a_group_may_write_is_copied_for_this_user_alone(
    pack: Path, tmp_path: Path
) -> None:
    """As a team's shared data have it; the copy may not keep the next start from its work."""
    (pack / "extra").mkdir()
    for path in (pack, *pack.rglob("*")):
        path.chmod(0o775)
    copy = stage(pack, tmp_path / "scratch")
    assert {path.stat().st_mode & 0o022 for path in (copy, *copy.rglob("*"))} == {0}
    assert stage(pack, tmp_path / "scratch") == copy


def test_a_pack_that_is_read_only_is_copied_so_that_it_can_be_removed(
    pack: Path, tmp_path: Path
) -> None:
    for path in (*pack.rglob("*"), pack):
        path.chmod(0o555 if path.is_dir() else 0o444)
    copy = stage(pack, tmp_path / "scratch")
    for path in (copy, *copy.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
import launcher.inside.staging as staging
copy = shutil.copyfile
def killed_in_the_second_shard(source, to):
    if source.name == sys.argv[3]:
        to.write_bytes(source.read_bytes()[:-1])
        os.kill(os.getpid(), signal.SIGKILL)
    copy(source, to)
shutil.copyfile = killed_in_the_second_shard
staging.stage(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    images = [EncodedPair(b"\xff\xd8a\xff\xd9", b"\xff\xd8b\xff\xd9", i % 2, 0) for i in range(3)]
    folder = tmp_path / "sharded"
    pack = write_pack(folder, images, 3, identities=["a", "b"], kinds=("blur",), shard_bytes=30)
    assert len(pack.manifest.shards) > 2
    return folder


@pytest.mark.parametrize("damaged", [False, True], ids=["whole", "damaged"])
def test_the_next_start_keeps_the_shards_of_a_copy_that_was_killed(
    sharded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damaged: bool
) -> None:
    """Where a failing node left a file's size without its bytes, all is copied again."""
    scratch, names = tmp_path / "scratch", (shard_name(0), shard_name(1))
    argv = [sys.executable, "-c", KILLED, str(sharded), str(scratch), names[1]]
    assert subprocess.run(argv, check=False).returncode == -signal.SIGKILL
    (partial,) = scratch.glob("*/*.partial")
    if damaged:
        size = (partial / names[0]).stat().st_size
        (partial / names[0]).write_bytes(bytes(size))
    before = (partial / names[0]).stat().st_mtime_ns
    copy = stage(sharded, scratch)
    assert ((copy / names[0]).stat().st_mtime_ns == before) != damaged
    read_pack(copy, verify_digest=True)
    total = len(list(sharded.glob("*.beton")))
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("copying ") and first.endswith(
        f"; 1 of {total} shards are there already"
    )
    assert re.fullmatch(r"copied .* GB in \d+ s \(\d+ MB/s\), verified in \d+ s", last)
    assert stage(sharded, scratch) == copy
    assert capsys.readouterr().out == "", "nothing to copy"


def test_the_time_to_wait_for_other_nodes_grows_with_the_packs(pack: Path) -> None:
    config = Config.model_validate({"data": {"train": [str(pack)] * 2, "evaluation": str(pack)}})
    seconds = 3 * read_pack(pack).manifest.total_bytes / 50e6
    assert minutes_to_stage(config, "/scratch") == pytest.approx(seconds / 60)
    assert minutes_to_stage(config, "") == 0.0
