"""Every kind of second image on several people, side by side: one picture and one page."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from distill.data.faces import AlignedFace
from distill.data.images import Pixels, Unusable, decode, encode_jpeg
from distill.data.keyed import keyed_rng
from distill.data.locate import LandmarkChoice, locate
from distill.data.second import KINDS, SecondOptions, process
from distill.data.second.options import CHOICES
from distill.data.second.pixels.frontal import MAX_TURN_DEGREES, pose_of
from distill.data.sources import Source
from distill.errors import UserError
from distill.files import disk_errors

PICTURE_NAME, PAGE_NAME = "gallery.png", "index.html"
FACE, GAP, LABEL, TITLE, MARGIN = 112, 3, 112, 40, 24
"""Side of a face in the picture, space between faces, widths of labels, height of titles, edge."""
PAPER, INK, FAINT = (250, 250, 248), (28, 30, 34), (112, 116, 122)
FIRST_WARP = CHOICES["pose_styles"][0]
COLUMNS = 2
"""Columns of kinds in the picture."""
PHOTOS = 32
"""Photographs of a person that are looked at."""
QUALITY = 88
"""JPEG quality of the faces inside the page."""


class Variant(NamedTuple):
    """A row of the gallery.

    Attributes:
        kind: of second image.
        name: of the row.
        options: fields of `SecondOptions`.
        other: whether another photo of the person is given.
        wearing: whether frames are drawn on the face before.
    """

    kind: str
    name: str
    options: dict[str, Any]
    other: bool = True
    wearing: bool = False


@dataclass(frozen=True)
class Person:
    """Two photos of one person; ``other`` is the same where there is only one.

    Attributes:
        name: of the person.
        face: the sample.
        other: another photo.
        turned: of the other photos, the one on which the head is turned most and still shows its
            front, for `pose`.
    """

    name: str
    face: AlignedFace
    other: AlignedFace
    turned: AlignedFace


class Made(NamedTuple):
    """A second image and how it was made."""

    rgb: Pixels
    how: str


Rows = list[tuple[Variant, list[Made]]]


def variants() -> list[Variant]:
    """All rows: every style of every kind, in the order of `KINDS`."""
    styled = {"pose": "pose_styles", "mask": "mask_styles", "forehead": "forehead_styles"}
    styled |= {"light": "light_styles", "crop": "crop_styles", "blur": "blur_styles"}
    rows = {
        kind: [Variant(kind, name, {field: (name,)}) for name in CHOICES[field]]
        for kind, field in styled.items()
    }
    rows["pose"].append(Variant("pose", "random affine", {}, other=False))
    rows["eyes"] = [
        Variant("eyes", "other photo", {}),
        Variant("eyes", "own, jittered", {}, other=False),
    ]
    rows["glasses"] = [
        Variant("glasses", "frames", {"glasses": "draw", "sunglasses": 0.0}),
        Variant("glasses", "sunglasses", {"glasses": "draw", "sunglasses": 1.0}),
        Variant("glasses", "removed", {"glasses": "remove"}, wearing=True),
    ]
    return [row for kind in KINDS for row in rows[kind]]


def people_of(source: Source, count: int, choice: LandmarkChoice) -> list[Person]:
    """The first people of a source whose photos can be used.

    Raises:
        UserError: none.
    """
    found: dict[str, list[AlignedFace]] = {}
    for sample in source:
        faces = found.setdefault(sample.identity, [])
        if len(faces) == PHOTOS:
            continue
        if len(found) > count:
            found.popitem()
            break
        try:
            faces.append(locate(decode(sample.read()), choice, sample.landmarks)[0])
        except Unusable:
            continue
    people = [_person(name, faces) for name, faces in found.items() if faces]
    if not people:
        raise UserError(f"{source.name}: no usable photograph", fix="give photographs of faces")
    return people


def _person(name: str, faces: Sequence[AlignedFace]) -> Person:
    others = faces[1:] or faces
    turns = [abs(np.rad2deg(pose_of(face.points)[0])) for face in others]
    shown = [turn if turn <= MAX_TURN_DEGREES else -1 for turn in turns]
    return Person(name, faces[0], others[0], others[int(np.argmax(shown))])


def make_rows(people: Sequence[Person], seed: int) -> Rows:
    """Every variant of every person, and what some are made from: other photos, worn frames."""
    rows: Rows = []
    for row in variants():
        shown = people
        if row.wearing:
            shown = [replace(person, face=_wearing(person, seed)) for person in people]
            worn = Variant(row.kind, "to be removed", {})
            rows.append((worn, [Made(person.face.rgb, "before") for person in shown]))
        if row.kind == "pose" and row.name == FIRST_WARP:
            shown_from = Variant(row.kind, "other photo", {})
            rows.append((shown_from, [Made(person.turned.rgb, "before") for person in people]))
        rows.append((row, [_made(row, person, seed) for person in shown]))
    return rows


def _wearing(person: Person, seed: int) -> AlignedFace:
    """The face with frames drawn on."""
    options = SecondOptions(glasses="draw", sunglasses=0.0)
    rng = _rng(person, seed, "wears")
    return process(["glasses"], person.face, lambda _: rng, options=options)[0]


def _made(row: Variant, person: Person, seed: int) -> Made:
    donor = person.turned if row.kind == "pose" else person.other
    other = donor if row.other else None
    rng = _rng(person, seed, row.kind, row.name)
    options = SecondOptions(**row.options)
    made, how = process([row.kind], person.face, lambda _: rng, other=other, options=options)
    return Made(made.rgb, how.removeprefix(f"{row.kind}: "))


def _rng(person: Person, seed: int, *key: str) -> np.random.Generator:
    return keyed_rng(seed, person.name, "gallery", *key)


def write_gallery(people: Sequence[Person], rows: Rows, out: Path) -> None:
    """Writes `PICTURE_NAME` and `PAGE_NAME` below ``out``.

    Raises:
        UserError: the disk is full or not writable.
    """
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        picture(people, rows).save(out / PICTURE_NAME, optimize=True)
        (out / PAGE_NAME).write_text(page(people, rows), encoding="utf-8")


def picture(people: Sequence[Person], rows: Rows) -> Image.Image:
    """All kinds as one picture: a block a kind, a row a variant, people across."""
    blocks = [[row for row in rows if row[0].kind == kind] for kind in KINDS]
    heights = [TITLE + len(block) * (FACE + GAP) for block in blocks]
    columns = _balanced(heights)
    wide = LABEL + len(people) * (FACE + GAP)
    width = 2 * MARGIN + COLUMNS * wide + (COLUMNS - 1) * MARGIN
    top = MARGIN + FACE + 2 * GAP
    height = top + MARGIN + max(sum(heights[i] for i in column) for column in columns)
    sheet = Image.new("RGB", (width, height), PAPER)
    for place, column in enumerate(columns):
        left, y = MARGIN + place * (wide + MARGIN), top
        _draw_row(sheet, left, MARGIN, "samples", [person.face.rgb for person in people])
        for number in column:
            pen = ImageDraw.Draw(sheet)
            pen.text((left, y + 8), KINDS[number], INK, font=_font(22))
            y += TITLE
            for variant, made in blocks[number]:
                _draw_row(sheet, left, y, variant.name, [image.rgb for image in made])
                y += FACE + GAP
    return sheet


def _balanced(heights: Sequence[int]) -> list[list[int]]:
    """Blocks in their order, cut into columns of about the same height."""
    columns: list[list[int]] = [[]]
    share = sum(heights) / COLUMNS
    for number, height in enumerate(heights):
        done = sum(heights[i] for i in columns[-1])
        if columns[-1] and len(columns) < COLUMNS and done + height / 2 > share:
            columns.append([])
        columns[-1].append(number)
    return columns


def _draw_row(sheet: Image.Image, left: int, top: int, name: str, faces: Iterable[Pixels]) -> None:
    pen = ImageDraw.Draw(sheet)
    pen.text((left, top + FACE // 2 - 8), name, FAINT, font=_font(14))
    for place, rgb in enumerate(faces):
        image = Image.fromarray(rgb).resize((FACE, FACE), Image.Resampling.LANCZOS)
        sheet.paste(image, (left + LABEL + place * (FACE + GAP), top))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font inside Pillow: the same on every machine."""
    return ImageFont.load_default(size)


def page(people: Sequence[Person], rows: Rows) -> str:
    """All kinds as one page of HTML with the images inside; it loads nothing from elsewhere."""
    parts = [_HEAD, "<h2>samples</h2>", _row_of("", [Made(p.face.rgb, p.name) for p in people])]
    for kind in KINDS:
        parts.append(f'<h2 id="{kind}">{kind}</h2>')
        parts += [_row_of(v.name, made) for v, made in rows if v.kind == kind]
    return "\n".join(parts) + "\n</html>\n"


def _row_of(name: str, made: Sequence[Made]) -> str:
    figures = "".join(
        f'<figure><img src="data:image/jpeg;base64,{_base64(image.rgb)}" alt="{_safe(image.how)}">'
        f"<figcaption>{_safe(image.how)}</figcaption></figure>"
        for image in made
    )
    return f'<div class="row"><b>{_safe(name)}</b>{figures}</div>'


def _safe(text: str) -> str:
    """Text that names of people and folders cannot turn into markup."""
    return html.escape(text.encode("utf-8", "replace").decode("utf-8"))


def _base64(rgb: Pixels) -> str:
    return base64.b64encode(encode_jpeg(np.ascontiguousarray(rgb), QUALITY)).decode("ascii")


_HEAD = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Second images</title>
<style>
body { font: 14px system-ui, sans-serif; margin: 2em; background: #fafaf8; color: #1c1e22 }
.row { display: flex; flex-wrap: wrap; gap: 6px; margin: 4px 0 }
.row b { width: 8em; line-height: 112px; font-weight: 400; color: #70747a }
figure { margin: 0 } img { height: 112px; display: block }
figcaption { font-size: 11px; color: #70747a; max-width: 112px }
</style>
<h1>Second images</h1>
<p>A row is a variant of a kind, a column a person. Below each: how it was made.</p>"""
