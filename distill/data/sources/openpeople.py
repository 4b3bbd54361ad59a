"""The 26 faces of each of the ten people of the `openpeople` package (generated; no real person).

Each person comes as six pictures. Two are sheets of framed panels, whose places differ from
person to person and are read off the white frames; the other four are photographs, with a face in
a known part. A face is cut out with what is round it, roomy enough for a detector to find it, and
written as a JPEG. Of the four profiles of a person a detector may miss some; that is for the
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
BORDER = 64
"""Pixels by which the edge of a cut-out is repeated outwards: some panels end in the hair, and the
black edge of an aligned face would tell one person from another."""
INSET = 9
"""Thickness of a panel's white frame, in pixels."""


@dataclass(frozen=True)
class Panel:
    """A part of a picture with one face in it.

    Attributes:
        name: of the sample, after the person's.
        sheet: file name without its ending.
        cell: number of the framed panel, row by row in rows of four; None for a photograph.
        box: left, top, width and height in pixels, within the panel or the photograph.
        reduction: how many times smaller the cut-out is made.
    """

    name: str
    sheet: str
    cell: int | None
    box: tuple[int, int, int, int] = (0, 0, 4096, 4096)
    reduction: int = 1


def _panels() -> Iterator[Panel]:
    """16 expressions; head and body from three sides; portrait, selfie, two of the whole person."""
    for cell in range(16):
        yield Panel(f"emotions_{cell:02d}", "emotions_sheet", cell)
    for column, view in ((0, "front"), (1, "left"), (3, "right")):
        yield Panel(f"head_{view}", "character_sheet", column)
        # Of the body, the uppermost part: the head.
        yield Panel(f"body_{view}", "character_sheet", 4 + column, (0, 0, 4096, 240))
    yield Panel("portrait", "studio_portrait", None, reduction=4)
    yield Panel("selfie", "amateur_selfie", None, (290, 200, 1130, 1700), reduction=3)
    yield Panel("posture_studio", "studio_posture", None, (468, 60, 600, 720))
    yield Panel("posture_amateur", "amateur_posture", None, (500, 40, 700, 900))


PANELS: tuple[Panel, ...] = tuple(_panels())
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

    @property
    def expected(self) -> int:
        """How many samples there are."""
        return len(self)

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
    path = person / "assets" / f"{panel.sheet}.jpg"
    part = _sheet(path)
    if panel.cell is not None:
        part = _cut(part, _frames(path)[panel.cell])
    part = _cut(part, panel.box)
    size = (part.shape[1] // panel.reduction, part.shape[0] // panel.reduction)
    small = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    wide = cv2.copyMakeBorder(small, BORDER, BORDER, BORDER, BORDER, cv2.BORDER_REPLICATE)
    return encode_jpeg(np.asarray(wide, np.uint8), JPEG_QUALITY)


def _cut(picture: Pixels, box: tuple[int, int, int, int]) -> Pixels:
    left, top, width, height = box
    return picture[top : top + height, left : left + width]


@lru_cache(maxsize=1)
def _sheet(path: Path) -> Pixels:
    """A decoded picture; the last one is kept, since 16 faces in a row are cut from it."""
    return decode(path.read_bytes())


@lru_cache(maxsize=1)
def _frames(path: Path) -> list[tuple[int, int, int, int]]:
    """The insides of a sheet's panels, row by row, as left, top, width and height in pixels."""
    white = (_sheet(path).min(axis=2) > 215).astype(np.uint8)
    found = cv2.connectedComponentsWithStats(white)[2][1:, :4].astype(int)
    # Frames are the only white things of this size; letters and shirts are smaller.
    panels = [box for box in found if 380 < box[2] < 700 and box[3] > 250]
    if len(panels) % 4:
        raise UserError(f"{path}: unexpected layout", fix="pip install openpeople==0.1.2")
    panels.sort(key=lambda box: int(box[1]))
    rows = [
        sorted(panels[i : i + 4], key=lambda box: int(box[0])) for i in range(0, len(panels), 4)
    ]
    return [
        (int(x) + INSET, int(y) + INSET, int(w) - 2 * INSET, int(h) - 2 * INSET)
        for row in rows
        for x, y, w, h in row
    ]
