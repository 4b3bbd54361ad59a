"""Writing files so that they are whole or not there, and errors of the disk in one line."""

from __future__ import annotations

import errno
import glob
import os
import platform
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from distill.errors import UserError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns what the operating system says about writing ``path`` into a `UserError`."""
    try:
        yield
    except OSError as error:
        raise disk_error(path, error) from error


def disk_error(path: Path, error: OSError) -> UserError:
    """The one-line form of ``error``, met while writing ``path``."""
    if error.errno in _FULL:
        return UserError(
            f"{path}: disk full ({error.strerror})", fix="free some space, or write elsewhere"
        )
    if error.errno in _REFUSED:
        return UserError(
            f"{path}: not writable ({error.strerror})", fix="choose a folder you may write to"
        )
    # Of a tree of files each that failed is listed, as (from, to, why): the first one will do.
    first = error.args[0][0][2] if isinstance(error, shutil.Error) else str(error)
    reason = error.strerror or first
    return UserError(
        f"{path}: cannot be written ({reason})", fix="check the path, or write elsewhere"
    )


def make_folder(folder: Path) -> None:
    """Creates ``folder`` where it is missing, for files that will be written into it.

    Raises:
        UserError: it cannot be created or written to.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise UserError(f"{folder}: not writable", fix="choose a folder you may write to")


def check_room_for(out: Path, needed_bytes: int = 0) -> None:
    """Refuse what cannot be written, before the work for it is done.

    Args:
        out: a file to write.
        needed_bytes: on its disk.

    Raises:
        UserError: it is a folder, has no folder to write to, or its disk has less room.
    """
    if out.is_dir():
        raise UserError(f"{out}: a folder", fix="name a file")
    if not os.access(out.parent, os.W_OK):
        raise UserError(f"{out}: its folder is missing or not writable", fix="choose another place")
    check_space(out.parent, needed_bytes, str(out), fix="free some space, or write elsewhere")


def check_space(folder: Path, needed_bytes: int, what: str, *, fix: str) -> None:
    """Refuse what does not fit on the disk of ``folder``.

    Args:
        folder: on the disk, there.
        needed_bytes: on it.
        what: is to be written, for the error.
        fix: what to do about it, likewise.

    Raises:
        UserError: its disk has less room.
    """
    total, _, free = shutil.disk_usage(folder)
    if total and needed_bytes > free:  # some file systems tell nothing: all zeros
        raise UserError(
            f"{what}: {needed_bytes / 1e9:.3g} GB are needed, and {free / 1e9:.3g} GB are free",
            fix=fix,
        )


def check_free(path: Path, *, overwrite: bool) -> None:
    """Refuse a file that is there, unless it may be replaced; a folder never may.

    Raises:
        UserError: it is there.
    """
    if path.is_dir() or (path.exists() and not overwrite):
        raise UserError(
            f"{path}: is there already",
            fix="choose another name, or replace a file with --overwrite",
        )


def sync_folder(folder: Path) -> None:
    """Makes the names in ``folder`` durable (a rename alone may be lost with the power)."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path: Path, data: bytes, *, named: Path | None = None, alone: bool = False) -> None:
    """Writes ``data`` under a temporary name, syncs it and renames it to ``path``.

    Args:
        path: the file to make.
        data: its content.
        named: what errors speak of instead of ``path``.
        alone: nobody else makes this file; the folder, of many files perhaps, is not looked through
            then for what killed processes have left of it.

    Raises:
        UserError: the disk is full or the folder not writable; nothing is left behind.
    """
    with whole_file(path, named=named, alone=alone) as partial:
        _write_synced(partial, [data])


def write_as_it_comes(path: Path, pieces: Iterable[bytes]) -> None:
    """As `write_whole`, of ``pieces`` that are made meanwhile."""
    with whole_file(path) as partial:
        _write_synced(partial, pieces)


def write_together(files: Mapping[Path, bytes]) -> None:
    """As `write_whole`, several files by their paths: the disk holds all of them, or none is new.

    Raises:
        UserError: the disk is full or the folder not writable; all is as it was.
    """
    with ExitStack() as stack:
        for path, data in files.items():
            _write_synced(stack.enter_context(whole_file(path)), [data])


@contextmanager
def whole_file(path: Path, *, named: Path | None = None, alone: bool = False) -> Iterator[Path]:
    """A temporary name for the block to write and sync, which becomes ``path`` when it ends well.

    Args:
        path: the file to make.
        named: what errors speak of instead of ``path``.
        alone: nobody else makes this file: what a killed process has left of it is replaced.

    Raises:
        UserError: the disk is full or the folder not writable; nothing is left behind.
    """
    owner = "" if alone else f".{_here()}-{os.getpid()}"
    partial = path.with_name(f".{path.name}{owner}.partial")
    with disk_errors(named or path):
        try:
            if not alone:
                _clear_left(path)
            partial.unlink(missing_ok=True)
            yield partial
            partial.replace(path)
            sync_folder(path.parent)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def whole_files(*paths: Path) -> Iterator[Path]:
    """A temporary folder for the block to write files of these names, which become ``paths``.

    When it ends well, those that it has written are synced and take their places in the order
    given, all in one folder: so one that points to others is best named last.

    Raises:
        UserError: the disk is full or the folder not writable; nothing is left behind.
    """
    last = paths[-1]
    folder = last.with_name(f".{last.name}.{_here()}-{os.getpid()}.partial")
    with disk_errors(last):
        try:
            _clear_left(last)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            yield folder
            written = [(folder / path.name, path) for path in paths]
            written = [(partial, path) for partial, path in written if partial.exists()]
            for partial, _ in written:
                _sync(partial)
            for partial, path in written:
                partial.replace(path)
            sync_folder(last.parent)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _clear_left(path: Path) -> None:
    """Remove what processes of this machine left that were killed while they made ``path``."""
    for partial in path.parent.glob(f".{glob.escape(path.name)}.{_here()}-*.partial"):
        process = partial.suffixes[-2].rpartition("-")[2]
        if not process.isdecimal() or _runs(int(process)):
            continue
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    """Whether a process is there, somebody else's too."""
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def _here() -> str:
    """This machine's name: on a file system that several share, only here is it known who lives."""
    return "".join(filter(str.isalnum, platform.node()))[:32]


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _write_synced(path: Path, pieces: Iterable[bytes]) -> None:
    with path.open("wb") as file:
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())
