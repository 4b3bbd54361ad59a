"""A ``pairs.txt`` as LFW has it, beside a folder of photographs.

Format, after the README of Labeled Faces in the Wild, parts 3a and 3c: the first line says how many
sets there are and how many pairs of one person each has, N; without the first number it is one set.
A set is N lines ``NAME n1 n2``, of one person, then N lines ``NAME1 n1 NAME2 n2``, of two. Image n
of a person is ``NAME/NAME_nnnn.jpg``, four digits.

A photograph of 112x112 pixels is an aligned face. In another one the most prominent face is
searched for, as in packing. Where none is found, the middle is taken: LFW's photographs are the box
of a face detector enlarged by 2.2 (part 1), so that the box is known.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from distill.arrays import Numbers
from distill.data.faces import FACE_SIZE, resized
from distill.data.images import MIN_SIDE, Pixels, Unusable, decode
from distill.data.locate import find_face
from distill.data.protocols.lines import Line, lines_of
from distill.data.sources.folder import read_file
from distill.data.sources.paths import Below
from distill.errors import UserError

ENDING, USUAL_NAME = ".txt", "pairs.txt"
PHOTOGRAPH_ENDINGS = (".jpg", ".png")
ENLARGED = 2.2
"""Side of LFW's photographs in sides of the box in their middle."""

Named = tuple[str, int]
"""A person, and the number of an image."""


@dataclass(frozen=True)
class PhotographPairs:
    """Pairs of photographs named by a list.

    Attributes:
        path: the list.
        photographs: files, each once.
        pairs: numbers of two of them each, (P, 2) int64.
        same: of each pair, whether it is one person.
        folds: sets that the pairs are in, of equal size and one after the other.
    """

    path: Path
    photographs: list[Path]
    pairs: Numbers
    same: list[bool]
    folds: int
    min_side: ClassVar[int] = MIN_SIDE

    @cached_property
    def name(self) -> str:
        """Of the folder and the list: ``lfw_pairs``, which is not what ``lfw.bin`` is called."""
        return f"{self.path.absolute().parent.name}_{self.path.stem}"

    def __len__(self) -> int:
        return len(self.photographs)

    def face(self, number: int) -> tuple[Pixels, str]:
        """As `FaceSet.face`."""
        try:
            return face_of(decode(self.image(number)))
        except Unusable as fault:
            raise UserError(
                f"{self.path}: {self.called(number)}: {fault.reason}", fix="get the photograph anew"
            ) from None

    def called(self, number: int) -> str:
        """As `FaceSet.called`."""
        return str(self.photographs[number])

    def image(self, number: int) -> bytes:
        """As `FaceSet.image`."""
        return read_file(self.photographs[number], follow=False)


def face_of(rgb: Pixels) -> tuple[Pixels, str]:
    """The face of a photograph, and a note where none was found and its middle taken."""
    if rgb.shape[:2] == (FACE_SIZE, FACE_SIZE):
        return rgb, ""
    try:
        return find_face(rgb)[0].rgb, ""
    except Unusable:
        return middle(rgb), "no face found, the middle taken"


def middle(rgb: Pixels) -> Pixels:
    """Where LFW's photographs have the box of their face, at 112x112."""
    side = round(min(rgb.shape[:2]) / ENLARGED)
    top, left = ((length - side) // 2 for length in rgb.shape[:2])
    return resized(rgb[top : top + side, left : left + side])


def read_pairs_txt(path: Path) -> PhotographPairs:
    """The pairs of a list.

    Raises:
        UserError: it is missing, damaged or cut short, or a photograph is not there; file and line
            are named.
    """
    lines = list_of_pairs(path)
    folds, half = header(lines[0])
    named = list(pairs_of(lines[1:], half))
    wanted = 2 * folds * half
    if len(named) != wanted:
        raise lines[0].wrong(
            f"{wanted} pairs are announced and {len(named)} are there",
            fix="get the file anew, or mend its first line: SETS and PAIRS OF ONE PERSON IN EACH",
        )
    photographs = find_photographs(root_of(path, named[0][1][0]), named)
    place = {each: number for number, each in enumerate(photographs)}
    numbers = [[place[first], place[second]] for _, first, second in named]
    same = [first[0] == second[0] for _, first, second in named]
    return PhotographPairs(path, list(photographs.values()), np.array(numbers), same, folds)


def list_of_pairs(path: Path) -> list[Line]:
    """The lines of a list, at least one.

    Raises:
        UserError: it has none, or cannot be read.
    """
    lines = list(lines_of(path))
    if not lines:
        raise UserError(f"{path}: no pairs in it", fix="get the file anew")
    return lines


def header(line: Line) -> tuple[int, int]:
    """How many sets there are, and pairs of one person in each."""
    if len(line.fields) > 2:
        raise line.wrong(
            "the first line should say how many sets there are, and pairs of one person in each",
            fix="give a list in the format of LFW's pairs.txt",
        )
    folds, half = [1, line.whole(0)] if len(line.fields) == 1 else [line.whole(0), line.whole(1)]
    if not folds or not half:
        raise line.wrong("no pairs")
    return folds, half


def pairs_of(lines: list[Line], half: int) -> Iterator[tuple[Line, Named, Named]]:
    """The two images of each line, whose form follows from its place."""
    for count, line in enumerate(lines):
        if count % (2 * half) < half:
            line.need(3, "a pair of one person (NAME N1 N2)")
            first, second = (line.fields[0], line.whole(1)), (line.fields[0], line.whole(2))
        else:
            line.need(4, "a pair of two people (NAME1 N1 NAME2 N2)")
            first, second = (line.fields[0], line.whole(1)), (line.fields[2], line.whole(3))
            if first[0] == second[0]:
                raise line.wrong(f"{first[0]!r} twice, where two people should be")
        yield line, first, second


def root_of(path: Path, inside: str) -> Path:
    """The folder of photographs, which has ``inside`` in it: that of the list, or one there.

    Raises:
        UserError: none has, or several have.
    """
    here = path.absolute().parent
    places = [here, *sorted(child for child in here.iterdir() if child.is_dir())]
    found = [place for place in places if (place / inside).exists()]
    if len(found) == 1:
        return found[0]
    if not found:
        raise UserError(
            f"{path}: no {inside!r} beside it, nor in a folder beside it",
            fix=f"put the list beside the photographs, {here.name}/{inside}",
        )
    names = " and ".join(str(place) for place in found[:2])
    raise UserError(
        f"{path}: photographs in {names}",
        fix="leave one of them beside the list, or put the list into one",
    )


def find_photographs(root: Path, named: list[tuple[Line, Named, Named]]) -> dict[Named, Path]:
    """The file of each image, in the order of the list.

    Raises:
        UserError: one is not there, or leads out of ``root``.
    """
    found: dict[Named, Path] = {}
    below = Below(os.path.realpath(root))
    for line, *pair in named:
        for each in pair:
            if each not in found:
                found[each] = photograph(below, line, *file_names(*each))
    return found


def file_names(person: str, number: int) -> list[str]:
    """What the file of an image may be called."""
    return [f"{person}/{person}_{number:04d}{ending}" for ending in PHOTOGRAPH_ENDINGS]


def photograph(below: Below, line: Line, *names: str) -> Path:
    """The first file there is of the ``names`` that a line gives a photograph.

    Raises:
        UserError: none is there, or one leads out of the folder.
    """
    for name in names:
        try:
            path = Path(below(name))
        except Unusable as fault:
            raise line.wrong(fault.reason) from None
        if path.is_file():
            return path
    raise line.wrong(
        f"{names[0]}: no such file in {below.root}",
        fix="unpack the photographs of this list there, all of them",
    )
