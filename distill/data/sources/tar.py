"""The members of a tar file in order, with what to do where it is damaged. Nothing is extracted.

Headers are taken apart by `tarfile` of the standard library, block by block. Long names and
extended headers are read here: `tarfile` reads them whole, whatever their size, and takes the first
damaged header for the end of the file.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

BLOCK = tarfile.BLOCKSIZE
MAX_EXTENDED_BYTES = 1 << 20
"""Extended headers (long names and the like) larger than this are not read."""

_LONG_NAMES = {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
_EXTENDED = {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE}
_EMPTY = {tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE}
_EMPTY |= {tarfile.FIFOTYPE}
"""Types without content, whatever size their headers tell."""
_KINDS = {
    tarfile.LNKTYPE: "a link",
    tarfile.SYMTYPE: "a link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a file with holes",
}


class Member(NamedTuple):
    """One file in a tar file, or what cannot be read as one.

    Attributes:
        name: its path; empty for damage.
        header: offset of its header, or of the damage, in bytes.
        offset: of its content, in bytes.
        size: of its content, in bytes.
        fault: why it cannot be used; empty if it can.
    """

    name: str
    header: int
    offset: int
    size: int
    fault: str


class Extended(NamedTuple):
    """What headers before a member's own say of it.

    Attributes:
        name: its path, where it does not fit into its own header.
        size: its size, where that does not fit.
        fault: why it cannot be used.
    """

    name: str | None = None
    size: int | None = None
    fault: str = ""


class DamagedTar(Exception):
    """No header where one should be."""


def members(file: BinaryIO, size: int) -> Iterator[Member]:
    """Everything in a tar file but folders, in order.

    Args:
        file: readable and seekable.
        size: its length in bytes.
    """
    place, extended, ended = 0, Extended(), False
    while place + BLOCK <= size:
        try:
            info = _header(file, place)
            if info is None:  # a block of zeros: the end, or what is between two ends
                ended, place = True, place + BLOCK
                continue
            after = place + BLOCK + info.size + -info.size % BLOCK
            if info.type in _LONG_NAMES | _EXTENDED:
                extended, place = _extended(file, place, info, extended), after
                continue
        except DamagedTar as fault:
            end = _next_header(file, place + BLOCK, size)
            yield Member("", place, place, 0, f"{fault}; {end - place} bytes left out")
            place, extended = end, Extended()
            continue
        member = _member(info, extended, place, size)
        ended = False
        if not info.isdir():
            yield member
        place = place + BLOCK + member.size + -member.size % BLOCK
        extended = Extended()
    if not ended:
        yield Member("", size, size, 0, "the file ends without its end mark: cut off?")


def _member(info: tarfile.TarInfo, extended: Extended, place: int, size: int) -> Member:
    """The member whose own header stands at ``place``."""
    length = info.size if extended.size is None else extended.size
    length = 0 if info.type in _EMPTY else length
    name = info.name if extended.name is None else extended.name
    fault = extended.fault or _KINDS.get(info.type, "")
    if place + BLOCK + length > size:
        fault = f"cut off: {length} bytes, the file ends after {size - place - BLOCK} of them"
    return Member(name, place, place + BLOCK, length, fault or _fault_of(name))


def _fault_of(name: str) -> str:
    """Why a name is not taken: it means a place outside of the data."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\0" in name:
        return f"name leads out of the data: {name[:200]!r}"
    return ""


def _header(file: BinaryIO, place: int) -> tarfile.TarInfo | None:
    """The header at ``place``; None for a block of zeros.

    Raises:
        DamagedTar: neither of the two.
    """
    try:
        block = _read(file, place, BLOCK)
        if block.count(0) == BLOCK:
            return None
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError) as fault:
        raise DamagedTar(f"no tar header at byte {place} ({fault})") from None
    if info.size < 0:
        raise DamagedTar(f"header at byte {place} tells of {info.size} bytes")
    return info


def _read(file: BinaryIO, place: int, count: int) -> bytes:
    """So many bytes from ``place`` on, fewer where the file ends.

    Raises:
        DamagedTar: the disk does not give them.
    """
    try:
        file.seek(place)
        return file.read(count)
    except OSError as fault:
        raise DamagedTar(f"byte {place} cannot be read ({fault.strerror or fault})") from None


def _extended(file: BinaryIO, place: int, info: tarfile.TarInfo, before: Extended) -> Extended:
    """What an extended header says of the member after it, added to what came before.

    Raises:
        DamagedTar: it cannot be read.
    """
    if info.size > MAX_EXTENDED_BYTES:
        return before._replace(fault=f"extended header of {info.size} bytes")
    content = _read(file, place + BLOCK, info.size)
    if info.type == tarfile.GNUTYPE_LONGNAME:
        return before._replace(name=_text(content.rstrip(b"\0")))
    if info.type not in _EXTENDED or info.type == tarfile.XGLTYPE:
        return before
    told = dict(_pax(content))
    if b"" in told or any(key.startswith(b"GNU.sparse.") for key in told):
        return before._replace(fault="extended header damaged, or of a file with holes")
    name, size = told.get(b"path"), told.get(b"size")
    if name is not None:
        before = before._replace(name=_text(name))
    if size is not None and not (size.isdigit() and len(size) < 20):
        return before._replace(fault=f"size of {size[:20]!r} bytes")
    return before if size is None else before._replace(size=int(size))


def _pax(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Pairs of an extended header, ``LENGTH KEY=VALUE\\n`` each (pax); damage has no key."""
    while content:
        digits, space, _ = content.partition(b" ")
        length = int(digits) if space and digits.isdigit() and len(digits) < 9 else 0
        record = content[len(digits) + 1 : length]
        key, equals, value = record.removesuffix(b"\n").partition(b"=")
        if not record.endswith(b"\n") or not equals:
            yield b"", b""
            return
        yield key, value
        content = content[length:]


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _next_header(file: BinaryIO, place: int, size: int) -> int:
    """The next block that is a header; ``size`` if there is none."""
    while place + BLOCK <= size:
        try:
            if _header(file, place) is not None:
                return place
        except DamagedTar:
            pass
        place += BLOCK
    return size
