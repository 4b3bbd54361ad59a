"""Verification sets as InsightFace ships them (``lfw.bin``): images, and who is the same.

Such a file is a pickle of ``(images, same)``: a list of 2 N byte strings and one of N truth values.
A pickle is a program, and running one that somebody else wrote can do anything. So this does not
run it: it walks over its instructions, knows the few that build lists of bytes and truth values,
and refuses the file at the first other one. Images stay in the file; their places are kept.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from distill.arrays import Numbers
from distill.data.faces import resized
from distill.data.images import MIN_SIDE, Pixels, Unusable, decode
from distill.data.sources.folder import MAX_FILE_BYTES
from distill.data.sources.paths import opened
from distill.data.sources.spans import Span
from distill.errors import UserError

ENDING = ".bin"
MAX_PAIRS = 10_000_000
"""Pairs that a file may have; the places of their images take about 200 bytes each."""
_MAX_INSTRUCTIONS = 8 * MAX_PAIRS

_MARK = object()
_IMAGES = {"BINBYTES": 5, "SHORT_BINBYTES": 2, "BINBYTES8": 9, "BINSTRING": 5, "SHORT_BINSTRING": 2}
"""Instructions that hold bytes, and how many bytes stand before these."""
_SMALL = {"NEWTRUE": True, "NEWFALSE": False}
_NUMBERS = {"BININT", "BININT1", "BININT2", "INT"}


@dataclass(frozen=True)
class VerificationSet:
    """Pairs of images, and which of them show one person.

    Attributes:
        path: the file.
        images: where each image stands in it; pair i has images 2 i and 2 i + 1.
        same: of each pair, whether it is one person.
    """

    path: Path
    images: list[Span]
    same: list[bool]
    folds: ClassVar[int] = 10
    min_side: ClassVar[int] = MIN_SIDE

    @property
    def name(self) -> str:
        """Of the file, without its ending."""
        return self.path.stem

    @property
    def pairs(self) -> Numbers:
        """Numbers of the two images of each pair, (P, 2)."""
        return np.arange(len(self.images)).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.images)

    def face(self, number: int) -> tuple[Pixels, str]:
        """As `FaceSet.face`."""
        try:
            return resized(decode(self.image(number))), ""
        except Unusable as fault:
            raise UserError(
                f"{self.path}: {self.called(number)}: {fault.reason}",
                fix="get the file anew; `pairdistill inspect` lists all that is damaged",
            ) from None

    def called(self, number: int) -> str:
        """As `FaceSet.called`."""
        return f"image {number} (pair {number // 2})"

    def image(self, number: int) -> bytes:
        """As `FaceSet.image`."""
        return self.images[number].read(self.path)


def read_verification_set(path: Path) -> VerificationSet:
    """The verification set in a ``.bin`` file, without running anything that it holds.

    Raises:
        UserError: no such file, damaged, or a pickle of anything else; the instruction and the byte
            are named.
    """
    with opened(path) as (file, size):
        machine = Machine()
        try:
            if not size:
                raise Unusable("the file is empty")
            value = machine.run(_Bounded(file, size))
            images, same = _checked(value)
        except Unusable as fault:
            raise UserError(
                f"{path}: no verification set: {fault.reason}",
                fix="give a .bin of (images, same) as InsightFace ships them",
            ) from None
    return VerificationSet(path, images, same)


class Machine:
    """Walks over the instructions of a pickle; knows lists of bytes and truth values, no more."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._images = 0

    def run(self, file: _Bounded) -> Any:
        """The value that the pickle stands for.

        Raises:
            Unusable: an instruction that is not known, too many of them, or damage.
        """
        try:
            for count, (code, argument, place) in enumerate(pickletools.genops(file)):  # type: ignore[arg-type]
                if count > _MAX_INSTRUCTIONS:
                    raise Unusable(f"more than {_MAX_INSTRUCTIONS} instructions")
                if code.name == "STOP":
                    return self._pop()
                self._step(code.name, argument, place or 0)
        except (ValueError, IndexError, KeyError, OverflowError) as fault:
            raise Unusable(f"damaged: {str(fault)[:120]}") from None
        raise Unusable("it has no end")

    def _step(self, name: str, argument: Any, place: int) -> None:
        """One instruction."""
        if name in _IMAGES:
            if len(argument) > MAX_FILE_BYTES:
                raise Unusable(f"image of {len(argument)} bytes at byte {place}")
            self._stack.append(Span(place + _IMAGES[name], len(argument)))
        elif name in _SMALL:
            self._stack.append(_SMALL[name])
        elif name in _NUMBERS:
            self._stack.append(_truth(argument))
        elif name in _STRUCTURE:
            _STRUCTURE[name](self, argument)
        else:
            raise Unusable(f"instruction {name} at byte {place}, which such a set does not need")

    def _pop(self) -> Any:
        return self._stack.pop()

    def _marked(self) -> list[Any]:
        """What lies above the last mark, which goes."""
        at = len(self._stack) - 1
        while self._stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise Unusable("damaged: no mark")
        above = self._stack[at + 1 :]
        del self._stack[at:]
        return above

    def _append(self, items: list[Any]) -> None:
        """Adds to the list on top."""
        top = self._stack[-1]
        if not isinstance(top, list) or any(type(item) in (list, tuple) for item in items):
            raise Unusable("damaged: lists of other than bytes and truth values")
        top += items
        if len(top) > 2 * MAX_PAIRS:
            raise Unusable(f"more than {MAX_PAIRS} pairs")

    def _remember(self, number: int | None) -> None:
        if len(self._memo) > 4 * MAX_PAIRS:
            raise Unusable("too much remembered")
        self._memo[len(self._memo) if number is None else number] = self._stack[-1]

    def _pair(self, count: int) -> None:
        items = [self._pop() for _ in range(count)]
        self._stack.append(tuple(reversed(items)))


_STRUCTURE: dict[str, Callable[[Machine, Any], None]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "EMPTY_LIST": lambda machine, _: machine._stack.append([]),
    "MARK": lambda machine, _: machine._stack.append(_MARK),
    "LIST": lambda machine, _: machine._stack.append(machine._marked()),
    "APPEND": lambda machine, _: machine._append([machine._pop()]),
    "APPENDS": lambda machine, _: machine._append(machine._marked()),
    "TUPLE": lambda machine, _: machine._stack.append(tuple(machine._marked())),
    "TUPLE2": lambda machine, _: machine._pair(2),
    "MEMOIZE": lambda machine, _: machine._remember(None),
    "BINPUT": lambda machine, number: machine._remember(number),
    "LONG_BINPUT": lambda machine, number: machine._remember(number),
    "BINGET": lambda machine, number: machine._stack.append(machine._memo[number]),
    "LONG_BINGET": lambda machine, number: machine._stack.append(machine._memo[number]),
}


class _Bounded:
    """A file that is never asked for more than it has, as damaged lengths would."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size

    def read(self, count: int) -> bytes:
        if not 0 <= count <= self._size - self._file.tell():
            raise ValueError(f"{count} bytes at byte {self._file.tell()}, which are not there")
        return self._file.read(count)

    def readline(self) -> bytes:
        return self._file.readline(1 << 10)

    def tell(self) -> int:
        return self._file.tell()


def _truth(number: object) -> bool:
    if number not in (0, 1):
        raise Unusable(f"{number!r} where a truth value should be")
    return bool(number)


def _checked(value: object) -> tuple[list[Span], list[bool]]:
    """The two lists, if these they are."""
    if type(value) is not tuple or len(value) != 2:
        raise Unusable("not two lists")
    images, same = value
    if not isinstance(images, list) or not all(isinstance(image, Span) for image in images):
        raise Unusable("the first part is no list of bytes")
    if not isinstance(same, list) or not all(isinstance(each, bool) for each in same):
        raise Unusable("the second part is no list of truth values")
    if not same or len(images) != 2 * len(same):
        raise Unusable(f"{len(images)} images for {len(same)} pairs")
    return images, same
