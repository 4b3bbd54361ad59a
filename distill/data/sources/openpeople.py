"""The 26 faces of each of the ten people of the `openpeople` package (generated; no real person).

Each person comes as six sheets of one layout. A face is cut out with its panel, roomy enough for
a detector to find it, and written as a JPEG: the places below were read off the sheets and hold
for all ten people. Of the four profiles a person has, a detector may miss some; that is for the
packer to find out and to report.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

from distill.data.images import Pixels, decode, encode_jpeg
from distill.data.sources import Sample
from distill.errors import UserError

JPEG_QUALITY = 95
"""Quality of the cut-outs, on libjpeg's scale."""
BORDER = 96
"""Pixels by which the edge of a panel is repeated outwards: some panels end right above the hair,
and the black edge of an aligned face would tell one person from another."""


@dataclass(frozen=True)
class Panel:
    """A rectangle of a sheet with one face in it, in pixels of the sheet.

    Attributes:
        name: of the sample, after the person's.
        sheet: file name without its ending.
        left, top, width, height: the rectangle.
        reduction: how many times smaller the cut-out is made.
    """

    name: str
    sheet: str
    left: int
    top: int
    width: int
    height: int
    reduction: int = 1


def _emotions() -> Iterator[Panel]:
    """4x4 expressions, counted row by row."""
    for row, y in enumerate((120, 541, 964, 1388)):
        for column, x in enumerate((104, 664, 1226, 1790)):
            yield Panel(f"emotions_{4 * row + column:02d}", "emotions_sheet", x, y, 508, 322)


def _views() -> Iterator[Panel]:
    """Three views of the head and three of the body (of which only the head); no back views."""
    for view, x in (("front", 76), ("left", 671), ("right", 1868)):
        yield Panel(f"head_{view}", "character_sheet", x, 144, 448, 490)
    for view, x in (("front", 76), ("left", 671), ("right", 1868)):
        yield Panel(f"body_{view}", "character_sheet", x, 890, 448, 240)


def _photographs() -> Iterator[Panel]:
    """Two portraits, and the upper parts of two shots of the whole person."""
    yield Panel("portrait", "studio_portrait", 0, 0, 2048, 2048, reduction=4)
    yield Panel("selfie", "amateur_selfie", 290, 200, 1130, 1700, reduction=3)
    yield Panel("posture_studio", "studio_posture", 468, 60, 600, 720)
    yield Panel("posture_amateur", "amateur_posture", 500, 40, 700, 900)


PANELS: tuple[Panel, ...] = (*_emotions(), *_views(), *_photographs())
"""The 26 faces of a person, in the order of the samples."""


@dataclass(frozen=True)
class OpenPeopleSource:
    """All people of the installed `openpeople` package, 26 samples each.

    Attributes:
        people: how many of the ten people to take, from the first.
    """

    people: int = 10

    @property
    def name(self) -> str:
        """What the manifest says."""
        return f"openpeople:{self.people}"

    def __iter__(self) -> Iterator[Sample]:
        for folder in _folders()[: self.people]:
            for panel in PANELS:
                read = partial(_read, folder, panel)
                yield Sample(f"{folder.name}/{panel.name}.jpg", folder.name, read)

    def __len__(self) -> int:
        return len(_folders()[: self.people]) * len(PANELS)


def _folders() -> list[Path]:
    """The people's folders, found without importing the package (which would import pydantic)."""
    spec = find_spec("openpeople")
    if spec is None or spec.origin is None:
        raise UserError("openpeople is not installed", fix="pip install openpeople==0.1.2")
    return sorted((Path(spec.origin).parent / "data" / "curated").glob("P[0-9]*"))


def _read(person: Path, panel: Panel) -> bytes:
    """The JPEG of one panel."""
    sheet = _sheet(person / "assets" / f"{panel.sheet}.jpg")
    part = sheet[panel.top : panel.top + panel.height, panel.left : panel.left + panel.width]
    if panel.reduction > 1:
        size = (panel.width // panel.reduction, panel.height // panel.reduction)
        part = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
    part = np.pad(part, ((BORDER, BORDER), (BORDER, BORDER), (0, 0)), mode="edge")
    return encode_jpeg(part, JPEG_QUALITY)


@lru_cache(maxsize=1)
def _sheet(path: Path) -> Pixels:
    """A decoded sheet; the last one is kept, since 16 faces in a row are cut from it."""
    return decode(path.read_bytes())
