"""Packs on the node's own disk: one copy a node, verified by digest, shared by its ranks and runs.

    SCRATCH/pairdistill-UID/DIGEST/     the pack whose content has that SHA-256 (`Manifest.digest`)
    SCRATCH/pairdistill-UID/DIGEST.lock held while somebody copies or verifies

The first rank of a node that gets the lock copies and verifies; the others find the copy whole.
What a killed job left half-copied has no final name and is removed by the next.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distill.config import Config
from distill.errors import UserError, told_of
from distill.files import disk_errors
from launcher.guard import check_private


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
    from distill.data.manifest import read_pack

    manifest = read_pack(pack).manifest
    home = scratch / f"pairdistill-{os.geteuid()}"
    with disk_errors(scratch):
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_private(home)
        target = home / manifest.digest
        with _locked(home / f"{target.name}.lock"):
            if not _is_whole(target):
                shutil.rmtree(target, ignore_errors=True)
                _copy(pack, target)
    return target


def _is_whole(copy: Path) -> bool:
    """Whether all files of a copy are still there: scratch disks are cleaned of old ones."""
    from distill.data.manifest import read_pack

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
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _copy(pack: Path, target: Path) -> None:
    from distill.data.manifest import read_pack

    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        # A pack that a team shares may be writable for a group, or read-only (`check_private`).
        shutil.copytree(pack, partial, copy_function=shutil.copyfile)
        for path in (partial, *partial.rglob("*")):
            path.chmod(0o700 if path.is_dir() else 0o600)
        read_pack(partial, verify_digest=True)
    except UserError as error:
        raise UserError(
            f"{str(pack)!r} copied to {str(target.parent)!r}: {error.what}",
            fix="check the disks, and the pack with `pairdistill verify`",
        ) from error
    except shutil.Error as error:  # a list of (from, to, why)
        raise UserError(
            f"{str(pack)!r} cannot be copied to {str(target.parent)!r}: {error.args[0][0][2]}",
            fix="make room there, or leave `scratch` out of the site profile",
        ) from error
    else:
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # others need the room
