"""Pictures of pairs with what the network says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from distill.errors import one_line

if TYPE_CHECKING:
    from distill.data.batch import PairBatch
    from distill.objective import PairAnswers

CAPTION_PIXELS = 14
"""Height of a line of text."""
FONT_PIXELS = 11
_RIGHT, _WRONG, _PLAIN = (120, 220, 120), (255, 120, 120), (230, 230, 230)


@dataclass(frozen=True)
class Captioned:
    """One pair to draw.

    Attributes:
        first: sample image, (H, W, 3) uint8 RGB.
        second: processed image, (H, W, 3) uint8 RGB.
        person: name of the person.
        kind: name of the processing.
        said_first: (name, probability) predicted for the first image.
        said_second: (name, probability) predicted for the second image.
    """

    first: NDArray[np.uint8]
    second: NDArray[np.uint8]
    person: str
    kind: str
    said_first: tuple[str, float]
    said_second: tuple[str, float]


def captioned(
    batch: PairBatch,
    answers: PairAnswers,
    people: Sequence[str],
    kinds: Sequence[str],
) -> list[Captioned]:
    """The pairs of ``batch`` that ``answers`` is about, with names in place of numbers."""
    first, second = (images.cpu().permute(0, 2, 3, 1).numpy() for images in batch.both)
    classes, probabilities = answers.classes.tolist(), answers.probabilities.tolist()
    return [
        Captioned(
            first[i],
            second[i],
            people[int(batch.labels[i])],
            kinds[int(batch.kinds[i])],
            (people[classes[0][i]], probabilities[0][i]),
            (people[classes[1][i]], probabilities[1][i]),
        )
        for i in range(answers.classes.shape[1])
    ]


def pair_grid(pairs: Sequence[Captioned], columns: int = 4) -> NDArray[np.uint8]:
    """A labelled grid of pairs, (height, width, 3) uint8 RGB; at least one pair."""
    tiles = [_tile(pair) for pair in pairs]
    blank = np.zeros_like(tiles[0])
    tiles += [blank] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    return np.vstack(rows)


def _tile(pair: Captioned) -> NDArray[np.uint8]:
    height, width = pair.first.shape[:2]
    canvas = Image.new("RGB", (2 * width + 4, height + 2 * CAPTION_PIXELS + 4))
    canvas.paste(Image.fromarray(pair.first), (0, CAPTION_PIXELS))
    canvas.paste(Image.fromarray(pair.second), (width, CAPTION_PIXELS))
    draw = ImageDraw.Draw(canvas)
    _write(draw, (2, 0), f"{pair.person} | {pair.kind}", 2 * width, _PLAIN)
    said = ((pair.said_first, 0), (pair.said_second, width))
    for (name, probability), left in said:
        colour = _RIGHT if name == pair.person else _WRONG
        place = (left + 2, height + CAPTION_PIXELS)
        _write(draw, place, f"{probability:.0%} {name}", width - 4, colour)
    return np.asarray(canvas)


def _write(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    width: int,
    colour: tuple[int, int, int],
) -> None:
    """A line of text, cut to ``width`` pixels."""
    font, words = _font(), one_line(text)[:width]
    while draw.textlength(words, font) > width:
        words = words.removesuffix("…")[:-1] + "…"
    draw.text(place, words, fill=colour, font=font)


@lru_cache
def _font() -> ImageFont.FreeTypeFont:
    """The font of matplotlib, which has the letters of European names; Pillow's has ASCII alone."""
    from matplotlib import get_data_path

    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", FONT_PIXELS)
