"""Lists as text: fields between blanks, and mistakes that name file and line."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from distill.data.sources.paths import opened
from distill.errors import UserError

MAX_DIGITS = 18
"""Of a whole number, which then fits into 64 bits."""


class Line(NamedTuple):
    """A line that is not blank.

    Attributes:
        path: the file.
        number: from 1.
        fields: its words.
    """

    path: Path
    number: int
    fields: list[str]

    def wrong(self, what: str, fix: str = "get the file anew") -> UserError:
        """A mistake in this line."""
        return UserError(f"{self.path}:{self.number}: {what}", fix=fix)

    def need(self, count: int, form: str) -> None:
        """Raises `UserError` unless there are ``count`` fields, called ``form``."""
        if len(self.fields) != count:
            raise self.wrong(f"{len(self.fields)} fields where {form} has {count}")

    def whole(self, place: int) -> int:
        """The whole number, 0 or more, in field ``place``.

        Raises:
            UserError: there is another thing.
        """
        text = self.fields[place]
        if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
            raise self.wrong(f"{text[:40]!r} is no whole number")
        return int(text)

    def reals(self, start: int) -> list[float]:
        """The numbers from field ``start`` on, all finite.

        Raises:
            UserError: one is no number, or not finite.
        """
        return [self._real(text) for text in self.fields[start:]]

    def _real(self, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or "_" in text:
            raise self.wrong(f"{text[:40]!r} is no finite number")
        return value


def lines_of(path: Path) -> Iterator[Line]:
    """The lines of a file but for blank ones.

    Raises:
        UserError: it cannot be opened, or is no UTF-8 text.
    """
    with opened(path) as (file, _):
        yield from numbered(path, file, 1)


def numbered(path: Path, raw: Iterable[bytes], first: int) -> Iterator[Line]:
    """Lines of ``path`` from line ``first`` on, split into fields; blank ones are left out.

    Raises:
        UserError: one is no UTF-8 text.
    """
    for number, line in enumerate(raw, first):
        try:
            # What some editors mark a text with (BOM) is no letter of its first word.
            fields = line.decode("utf-8-sig" if number == 1 else "utf-8").split()
        except UnicodeDecodeError:
            raise Line(path, number, []).wrong("no UTF-8 text") from None
        if fields:
            yield Line(path, number, fields)
