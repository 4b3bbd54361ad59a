"""IJB-B and IJB-C as InsightFace lays them out: faces in templates, and pairs of templates.

FOLDER/
  loose_crop/1.jpg ...                   a face with its surroundings each
  meta/ijbc_name_5pts_score.txt          image, x and y of five points, score of the detector
  meta/ijbc_face_tid_mid.txt             image, template, media; the same images in the same order
  meta/ijbc_template_pair_label.txt      template, template, 1 for one person and 0 for two
  meta/ijbc_1N_*.csv                     searches (`ijb_search`), where they are there

Read from `recognition/arcface_torch/eval_ijbc.py` of deepinsight/insightface. There the feature of
an image is the embedding of the aligned face plus that of its mirror image, times the detector's
score; images of one media in a template are averaged, medias added, the sum made unit length. All
that is linear but for the end, so each image has a weight in its template, known beforehand: score
over the images of its media in the template. (Whitelam et al., "IARPA Janus Benchmark-B Face
Dataset", CVPRW 2017; Maze et al., "IARPA Janus Benchmark - C", ICB 2018.)
"""

from __future__ import annotations

import os
import warnings
from array import array
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from distill.arrays import Numbers
from distill.data.faces import TEMPLATE, similarity, warped
from distill.data.images import Pixels, Unusable, decode
from distill.data.protocols.ijb_search import Searches, check_known, read_searches
from distill.data.protocols.lines import Line, lines_of, numbered
from distill.data.sources.folder import read_file
from distill.data.sources.paths import Below, opened, refuse_unreadable
from distill.errors import UserError

META, CROPS = "meta", "loose_crop"
KINDS = ("ijbb", "ijbc")
BLOCK_LINES = 1 << 20
"""Lines of the list of pairs that are read at a time; IJB-C has 15.7 million."""
MIN_SPREAD, MAX_COORDINATE = 0.01, 1e5
"""Pixels: five points closer together than the first are one spot; none may be above the second."""

Names = list[str]


@dataclass(frozen=True)
class TemplateSet:
    """N images of T templates, and P pairs of templates.

    Attributes:
        path: the folder.
        name: ``ijbb`` or ``ijbc``.
        images: their names in `CROPS`.
        landmarks: (N, 5, 2) float32, pixels.
        weights: of each image in its template, (N,) float64.
        templates: number of the template of each image, (N,) int64 in [0, T).
        template_ids: what the lists call them, (T,) int64, rising.
        pairs: numbers of two templates each, (P, 2), of the smallest type that holds T.
        same: whether a pair is one person, (P,) bool.
        searches: None where the set comes without.
    """

    path: Path
    name: str
    images: Names
    landmarks: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float64]
    templates: Numbers
    template_ids: Numbers
    pairs: npt.NDArray[Any]
    same: npt.NDArray[np.bool_]
    searches: Searches | None
    min_side: ClassVar[int] = 1

    def __len__(self) -> int:
        return len(self.images)

    def face(self, number: int) -> tuple[Pixels, str]:
        """As `FaceSet.face`; warped without reducing large faces first, as the protocol has it."""
        try:
            rgb = decode(self.image(number), min_side=self.min_side)
            return warped(rgb, similarity(self.landmarks[number], TEMPLATE)), ""
        except Unusable as fault:
            raise UserError(
                f"{self.path}: {self.called(number)}: {fault.reason}", fix="get the image anew"
            ) from None

    def called(self, number: int) -> str:
        """As `FaceSet.called`."""
        return f"{CROPS}/{self.images[number]}"

    def image(self, number: int) -> bytes:
        """As `FaceSet.image`."""
        name = self.images[number]
        return read_file(crop(self._crops, name), follow="/" not in name)

    @cached_property
    def _crops(self) -> Below:
        return Below(os.path.realpath(self.path / CROPS))


def crop(crops: Below, name: str) -> str:
    """The file of an image; raises `Unusable` where a path of several parts leaves ``crops``."""
    return f"{crops.root}/{name}" if "/" not in name else crops(name)


def is_ijb(folder: Path) -> bool:
    """Whether a folder has lists of IJB-B or IJB-C."""
    return bool(kinds_in(folder))


def kinds_in(folder: Path) -> list[str]:
    """Those of `KINDS` that a folder has any list of.

    Raises:
        UserError: the folder of its lists cannot be read.
    """
    try:
        names = [path.name for path in (folder / META).iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as fault:
        refuse_unreadable(fault)
    return [kind for kind in KINDS if any(name.startswith(f"{kind}_") for name in names)]


def read_templates(folder: Path) -> TemplateSet:
    """The templates in a folder.

    Raises:
        UserError: a list is missing, damaged or cut short, lists do not fit together, or an image
            is not there; file and line are named.
    """
    kind = kind_of(folder)
    meta = folder / META
    points = meta / f"{kind}_name_5pts_score.txt"
    images, landmarks, scores = read_faces(points, folder / CROPS)
    ids, medias = read_media(meta / f"{kind}_face_tid_mid.txt", images, points)
    template_ids, templates = np.unique(ids, return_inverse=True)
    pairs, same = read_pairs(meta / f"{kind}_template_pair_label.txt", template_ids)
    return TemplateSet(
        path=folder,
        name=kind,
        images=images,
        landmarks=landmarks,
        weights=scores / of_one_media(templates, medias),
        templates=templates,
        template_ids=template_ids,
        pairs=pairs,
        same=same,
        searches=read_searches(meta, kind, template_ids),
    )


def kind_of(folder: Path) -> str:
    """The one of `KINDS` that a folder holds."""
    kinds = kinds_in(folder)
    if len(kinds) != 1:
        found = "no list" if not kinds else f"lists of {' and '.join(kinds)}"
        raise UserError(
            f"{folder / META}: {found} of {' or '.join(KINDS)}",
            fix=f"give a folder with {META} and {CROPS} of one of them",
        )
    return kinds[0]


def read_faces(
    path: Path, crops: Path
) -> tuple[Names, npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Names, landmarks (N, 5, 2) and scores (N,) of the images, each of which is in ``crops``."""
    names: Names = []
    numbers = array("d")
    present, below = files_in(crops), Below(os.path.realpath(crops))
    for line in lines_of(path):
        line.need(12, "a face (IMAGE, ten coordinates, SCORE)")
        name, found = line.fields[0], line.reals(1)
        check_there(line, name, below, present)
        check_points(line, found[:10])
        names.append(name)
        numbers.extend(found)
    if not names:
        raise UserError(f"{path}: no images in it", fix="get the file anew")
    table = np.array(numbers).reshape(len(names), 11)
    return names, table[:, :10].reshape(-1, 5, 2).astype(np.float32), table[:, 10]


def check_points(line: Line, points: list[float]) -> None:
    """Refuse five points, x and y in turns, that no face can be aligned by."""
    if max(max(axis) - min(axis) for axis in (points[::2], points[1::2])) < MIN_SPREAD:
        raise line.wrong("the five points are one spot")
    if max(map(abs, points)) > MAX_COORDINATE:
        raise line.wrong(f"a point {max(map(abs, points)):g} pixels away")


def files_in(folder: Path) -> set[str]:
    """Names of what is in a folder, looked up once: there are half a million."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries}
    except OSError as error:
        raise UserError(
            f"{folder}: {error.strerror}", fix=f"unpack the images to {folder}"
        ) from None


def check_there(line: Line, name: str, crops: Below, present: set[str]) -> None:
    """Refuse an image that is not there, or elsewhere."""
    if name in present:
        return
    try:
        there = Path(crop(crops, name)).is_file()
    except Unusable as fault:
        raise line.wrong(fault.reason) from None
    if not there:
        raise line.wrong(
            f"{name}: no such file in {crops.root}", fix="unpack all images of the set"
        )


def read_media(path: Path, images: Names, points: Path) -> tuple[Numbers, Numbers]:
    """Template and media of each image, (N,) and (N,); the list names the images of ``points``."""
    numbers = array("q")
    for count, line in enumerate(lines_of(path)):
        line.need(3, "an image's place (IMAGE TEMPLATE MEDIA)")
        expected = images[count] if count < len(images) else None
        if line.fields[0] != expected:
            raise line.wrong(
                f"{line.fields[0]!r} where {points.name} has {expected or 'no more images'!r}",
                fix="take both lists from one place: they name the same images in one order",
            )
        numbers.extend((line.whole(1), line.whole(2)))
    table = np.array(numbers, dtype=np.int64).reshape(-1, 2)
    if len(table) != len(images):
        raise UserError(
            f"{path}: {len(table)} images, and {len(images)} in {points.name}",
            fix="get the file anew: it is cut short",
        )
    return table[:, 0], table[:, 1]


def of_one_media(templates: Numbers, medias: Numbers) -> Numbers:
    """For each image how many of its template are of its media, itself with them; (N,)."""
    kinds, media = np.unique(medias, return_inverse=True)
    together = templates * len(kinds) + media
    _, group, counts = np.unique(together, return_inverse=True, return_counts=True)
    shares: Numbers = counts[group]
    return shares


def read_pairs(path: Path, ids: Numbers) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Numbers of the two templates of each pair (P, 2), and whether they are one person (P,)."""
    small = np.min_scalar_type(len(ids))
    parts = [np.zeros((0, 2), small)]
    labels = [np.zeros(0, np.bool_)]
    with opened(path) as (file, _):
        first = 1
        while raw := list(islice(file, BLOCK_LINES)):
            rows = quick_rows(raw, ids)
            if rows is None:
                rows = careful_rows(path, raw, first, ids)
            parts.append(np.searchsorted(ids, rows[:, :2]).astype(small))
            labels.append(rows[:, 2] == 1)
            first += len(raw)
    if sum(map(len, labels)) == 0:
        raise UserError(f"{path}: no pairs in it", fix="get the file anew")
    return np.concatenate(parts), np.concatenate(labels)


def quick_rows(raw: list[bytes], ids: Numbers) -> Numbers | None:
    """Rows of three numbers each, (n, 3); None where anything is not as it should be."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            rows = np.loadtxt(raw, dtype=np.int64, comments=None, ndmin=2)
    except (ValueError, OverflowError, DeprecationWarning, UserWarning):
        return None
    if rows.shape != (len(raw), 3) or not np.isin(rows[:, 2], (0, 1)).all():
        return None
    return rows if np.isin(rows[:, :2], ids).all() else None


def careful_rows(path: Path, raw: list[bytes], first: int, ids: Numbers) -> Numbers:
    """The same line by line, which finds the one that is wrong; blank lines are left out."""
    known, rows = set(ids.tolist()), array("q")
    for line in numbered(path, raw, first):
        line.need(3, "a pair (TEMPLATE TEMPLATE LABEL)")
        row = [line.whole(place) for place in range(3)]
        for template in row[:2]:
            check_known(line, template, known)
        if row[2] > 1:
            raise line.wrong(f"label {row[2]}, which should be 1 or 0")
        rows.extend(row)
    return np.array(rows, dtype=np.int64).reshape(-1, 3)
