"""A picture of pairs by kind, to look at before training on them."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from distill.data.second import KINDS

FACE, GAP, COLUMN_GAP, MARGIN = 140, 4, 28, 32
"""Side of a face on the sheet, space between the two of a pair, between columns, at the edge."""
TITLE, CAPTION = 64, 24
"""Height of the line of kinds and of the words under a pair, in pixels."""
PAPER, INK, FAINT = (250, 250, 248), (28, 30, 34), (112, 116, 122)
"""Colours of the background, of titles and of captions."""
EMPTY = (236, 236, 233)
"""Colour where a kind has fewer pairs than another."""


class SheetPair(NamedTuple):
    """A pair for the sheet.

    Attributes:
        kind: heads the column.
        first: the sample, encoded as any image that Pillow reads.
        second: the processed image, likewise.
        how: a few words under the pair; may be empty.
    """

    kind: str
    first: bytes
    second: bytes
    how: str = ""


def contact_sheet(pairs: Iterable[SheetPair], path: Path) -> None:
    """Writes a PNG with a column for each kind and in it, one under another, sample and second.

    Args:
        pairs: in any order of kinds; within a kind they keep their order.
        path: the PNG to write; nothing is written where there is no pair.

    Raises:
        OSError: the file cannot be written.
    """
    columns = _columns(pairs)
    if not columns:
        return
    rows = max(map(len, columns.values()))
    width = 2 * MARGIN + len(columns) * _column_width() + (len(columns) - 1) * COLUMN_GAP
    height = 2 * MARGIN + TITLE + rows * (FACE + CAPTION)
    sheet = Image.new("RGB", (width, height), PAPER)
    for place, (kind, column) in enumerate(columns.items()):
        left = MARGIN + place * (_column_width() + COLUMN_GAP)
        _draw_column(sheet, left, kind, column, rows)
    sheet.save(path, format="PNG", optimize=True)


def _columns(pairs: Iterable[SheetPair]) -> dict[str, list[SheetPair]]:
    """Pairs by kind, known kinds in their own order and others after them by name."""
    columns: dict[str, list[SheetPair]] = {}
    for pair in pairs:
        columns.setdefault(pair.kind, []).append(pair)
    order = {kind: place for place, kind in enumerate(KINDS)}
    return dict(sorted(columns.items(), key=lambda c: (order.get(c[0], len(order)), c[0])))


def _column_width() -> int:
    return 2 * FACE + GAP


def _draw_column(
    sheet: Image.Image, left: int, kind: str, pairs: Sequence[SheetPair], rows: int
) -> None:
    """One kind: its name, what the two halves are, and its pairs."""
    pen = ImageDraw.Draw(sheet)
    pen.text((left, MARGIN), kind, INK, font=_font(26))
    half = FACE + GAP
    for x, word in ((left, "sample"), (left + half, "second")):
        pen.text((x, MARGIN + TITLE - 24), word, FAINT, font=_font(14))
    for row in range(rows):
        top = MARGIN + TITLE + row * (FACE + CAPTION)
        if row >= len(pairs):
            pen.rectangle((left, top, left + half + FACE - 1, top + FACE - 1), EMPTY)
            continue
        for x, encoded in ((left, pairs[row].first), (left + half, pairs[row].second)):
            sheet.paste(_face(encoded), (x, top))
        words = _fitting(pairs[row].how.removeprefix(f"{kind}: "), pen)
        pen.text((left, top + FACE + 3), words, FAINT, font=_font(13))


def _face(encoded: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    return image.resize((FACE, FACE), Image.Resampling.LANCZOS)


def _fitting(words: str, pen: ImageDraw.ImageDraw) -> str:
    """``words``, cut to the width of a column."""
    while words and pen.textlength(words, font=_font(13)) > _column_width():
        words = words[:-2].rstrip(" .…") + "…"
    return words


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font inside Pillow: the same on every machine."""
    return ImageFont.load_default(size)
