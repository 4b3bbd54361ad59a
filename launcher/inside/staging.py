"""Packs on the node's own disk: one copy a node, verified by digest, shared by its ranks and runs.

    SCRATCH/pairdistill-UID/DIGEST/     the pack whose content has that SHA-256 (`Manifest.digest`)
    SCRATCH/pairdistill-UID/DIGEST.lock held while somebody copies or verifies

The first rank of a node that gets the lock copies and verifies; the others find the copy whole.
What a job that was killed or stopped left half-copied has no final name: the next one keeps the
shards that are there in full, copies the others, and verifies all.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distill.config import Config
from distill.data.manifest import read_pack
from distill.errors import UserError, told_of
from distill.files import disk_errors
from distill.locks import flocked
from launcher.guard import check_private

SLOWEST_MB_PER_S = 50.0
"""What a node is expected to copy and verify at least, of packs that all nodes copy at once."""


def minutes_to_stage(config: Config, scratch: str) -> float:
    """How long ranks of a node that has its copies may have to wait for those of one that has not.

    Args:
        config: settings whose packs are on ``scratch``.
        scratch: as for `staged`; empty for packs that are read where they are.

    Raises:
        UserError: one of the packs is damaged.
    """
    if not scratch:
        return 0.0
    packs = [*config.data.train_packs, *filter(None, [config.data.evaluation])]
    total_bytes = sum(read_pack(pack).manifest.total_bytes for pack in packs)
    return total_bytes / (SLOWEST_MB_PER_S * 1e6) / 60


def staged(config: Config, scratch: str) -> Config:
    """The settings with their packs on ``scratch``; as they are where it is empty.

    Raises:
        UserError: a pack cannot be read or copied, or the copy is not what the manifest says; the
            node is named.
    """
    if not scratch:
        return config
    with told_of(f"on {socket.gethostname()}"):
        return config.with_packs(lambda pack: str(stage(Path(pack), Path(scratch))))


def stage(pack: Path, scratch: Path) -> Path:
    """Where the copy of ``pack`` lies on this node; made if need be.

    Raises:
        UserError: see `staged`.
    """
    manifest = read_pack(pack).manifest
    home = scratch / f"pairdistill-{os.geteuid()}"
    with disk_errors(scratch):
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_private(home)
        target = home / manifest.digest
        with _locked(home / f"{target.name}.lock"):
            if not _is_whole(target):  # scratch disks are cleaned of old files, one by one
                shutil.rmtree(target, ignore_errors=True)
                _copy(pack, target)
    return target


def _is_whole(copy: Path) -> bool:
    """Whether all files of a copy are there."""
    try:
        read_pack(copy)
    except UserError:
        return False
    return True


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock among the processes of this node; the kernel drops it when the holder dies."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not flocked(handle):
            _say(f"waiting for another rank of this node, at work on the copy {path.stem}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _copy(pack: Path, target: Path) -> None:
    partial = target.with_name(f"{target.name}.partial")
    begun = partial.is_dir()
    try:
        try:
            _complete(pack, partial)
        except UserError:
            if not begun:
                raise
            # A node that failed while it wrote may leave files of the right size, without content.
            shutil.rmtree(partial)
            _complete(pack, partial)
        partial.rename(target)
    except UserError as error:
        shutil.rmtree(partial, ignore_errors=True)  # others need the room
        raise UserError(
            f"{str(pack)!r} copied to {str(target.parent)!r}: {error.what}",
            fix="check the disks, and the pack with `pairdistill verify`",
        ) from error
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise UserError(
            f"{str(pack)!r} cannot be copied to {str(target.parent)!r}: {error.strerror}",
            fix="make room there, or leave `scratch` out of the site profile",
        ) from error


def _complete(pack: Path, partial: Path) -> None:
    """Copy what is not there yet, verify all, and tell the log when it begins and how fast it was.

    A pack that a team shares may be writable for a group, or read-only; a copy is neither, or
    `check_private` would refuse it, and nobody could remove it.
    """
    sizes = {partial / shard.name: shard.bytes for shard in read_pack(pack).manifest.shards}
    there = {path for path, size in sizes.items() if path.exists() and path.stat().st_size == size}
    gb = sum(sizes[path] for path in sizes.keys() - there) / 1e9
    kept = f"; {len(there)} of {len(sizes)} shards are there already" if there else ""
    _say(f"copying {gb:.3g} GB from {pack} to {partial.parent} on {socket.gethostname()}{kept}")
    began = time.monotonic()
    partial.mkdir(mode=0o700, exist_ok=True)
    for source in sorted(pack.rglob("*")):
        copy = partial / source.relative_to(pack)
        if source.is_dir():
            copy.mkdir(mode=0o700, exist_ok=True)
        elif copy not in there:
            copy.unlink(missing_ok=True)
            shutil.copyfile(source, copy)
            copy.chmod(0o600)
    copied = time.monotonic()
    read_pack(partial, verify_digest=True)
    seconds, more = copied - began, time.monotonic() - copied
    speed = 1e3 * gb / max(seconds, 1e-3)
    _say(f"copied {gb:.3g} GB in {seconds:.0f} s ({speed:.0f} MB/s), verified in {more:.0f} s")


def _say(text: str) -> None:
    """A line of this rank's log, at once: it may be the last one for an hour."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
