"""Second images made while training: fresh in every epoch, by the functions that packing uses.

What is drawn for a pair is a pure function of (seed, epoch, its place in the pack): the number of
ranks, threads and batches changes nothing. The distribution is that of packed second images: the
same chances of kinds, the same options, the same compiled functions; another photo of the person is
chosen anew in every epoch. Glasses are looked for once, when packing (`face_row`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from distill.arrays import Numbers
from distill.data.faces import AlignedFace
from distill.data.gaps import NO_GAPS, Gaps
from distill.data.second import KINDS
from distill.data.second.frame_finder import worn_of
from distill.data.second.options import SecondOptions
from distill.data.second.pixels import kinds as compiled

Images = npt.NDArray[np.uint8]

FACE_ROW = np.dtype([("points", "<f4", (5, 2)), ("worn", "<i8")])
"""What a pack keeps of a face besides its picture: its points in pixels, and what the finder says
of glasses (see `pixels.glasses.FOUND`); 48 bytes."""
_PARTNER_STREAM = 1 << 20
"""Which stream of a pair's key chooses another photo; the kinds have those from 0 on."""


def face_row(face: AlignedFace) -> bytes:
    """The `FACE_ROW` of a face."""
    row = np.zeros((), FACE_ROW)
    row["points"], row["worn"] = face.points, worn_of(face)
    return row.tobytes()


def face_rows(data: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Rows from their bytes, in whatever numbers they were kept; (B,) of `FACE_ROW`."""
    return np.ascontiguousarray(data).view(np.uint8).reshape(-1).view(FACE_ROW)


def ways(chances: Mapping[str, float]) -> list[str]:
    """Names of all ways in which a second image may be made: single kinds, then ``pose+blur``."""
    named = [kind for kind in KINDS if kind in chances]
    several = []
    for taken in product((0, 1), repeat=len(named)):
        chosen = [kind for kind, yes in zip(named, taken, strict=True) if yes]
        certain = all(kind in chosen for kind in named if chances[kind] >= 1.0)
        if len(chosen) > 1 and certain:
            several.append("+".join(chosen))
    return named + several


def way_bits(way: str) -> int:
    """The kinds of a way as bits."""
    return sum(1 << KINDS.index(kind) for kind in way.split("+"))


class Partners:
    """Other photos of the same person, where photos of a person lie side by side in runs.

    Args:
        counts: photos of each run, in the order in which they lie, (R,); some may be 0.
        people: whose each run is, (R,) in [0, R); a person has one in each pack. By default run r
            is of person r.
        gaps: photos that are left out; they are nobody's other photo.
    """

    def __init__(
        self, counts: Numbers, people: Numbers | None = None, gaps: Gaps = NO_GAPS
    ) -> None:
        counts = np.asarray(counts, np.int64)
        self._people = np.arange(len(counts)) if people is None else people
        self._starts = np.concatenate(([0], np.cumsum(counts)))
        self._gaps = gaps
        counts = counts - np.bincount(self._run_of(gaps.left_out), minlength=len(counts))
        self._left_starts = np.concatenate(([0], np.cumsum(counts)))
        # Turns: the places of photos if all runs of a person lay side by side.
        self._runs = np.argsort(self._people, kind="stable")
        self._turns = np.cumsum(counts[self._runs]) - counts[self._runs]
        self._turn_of_run = np.empty_like(self._turns)
        self._turn_of_run[self._runs] = self._turns
        of_person = np.bincount(self._people, counts).astype(np.int64)
        self._of_person = np.concatenate(([0], np.cumsum(of_person)))

    def _run_of(self, ids: Numbers) -> Numbers:
        return np.searchsorted(self._starts, ids, side="right") - 1

    def label_of(self, ids: Numbers) -> Numbers:
        """Whose photo lies at each place, (B,)."""
        return self._people[self._run_of(ids)]

    def of(self, seed: int, epoch: Numbers, ids: Numbers) -> Numbers:
        """One other photo for each sample, any as likely as the others; -1 where there is none.

        No sample may be one that is left out.
        """
        run = self._run_of(ids)
        first = self._of_person[self._people[run]]
        others = self._of_person[self._people[run] + 1] - first - 1
        step = np.empty(len(ids), np.int64)
        compiled.uniform_batch(_keys(seed, epoch, ids), _PARTNER_STREAM, others, step)
        own = self._turn_of_run[run] + self._gaps.numbers(ids) - self._left_starts[run]
        turn = first + (own - first + 1 + step) % (others + 1)
        place = np.searchsorted(self._turns, turn, side="right") - 1
        partner = self._left_starts[self._runs[place]] + turn - self._turns[place]
        return np.where(others > 0, self._gaps.pairs(partner), -1)


@dataclass(frozen=True)
class SecondMaker:
    """Makes second images of a run.

    Attributes:
        seed: of the run.
        chances: of the kinds, as of `parse_kinds`.
        options: ranges and choices.
    """

    seed: int
    chances: Mapping[str, float]
    options: SecondOptions = field(default_factory=SecondOptions)

    def warm_up(self) -> None:
        """Compiles what will be called, or loads it from the cache; before any thread calls it."""
        none = np.zeros(0, np.int64)
        faces, images = np.zeros(0, FACE_ROW), np.zeros((0, 16, 16, 3), np.uint8)
        self.make(none, none, self.draw(none, none), images, faces, none, images, faces, images)

    def draw(self, epoch: Numbers, ids: Numbers) -> Numbers:
        """The kinds of each pair's second image as bits, (B,).

        Args:
            epoch: of each pair, (B,).
            ids: its place in the pack, (B,).
        """
        chances = np.array([self.chances.get(kind, 0.0) for kind in KINDS])
        drawn = np.empty(len(ids), np.int64)
        compiled.draw_batch(chances, _keys(self.seed, epoch, ids), drawn)
        return drawn

    def make(
        self,
        epoch: Numbers,
        ids: Numbers,
        drawn: Numbers,
        first: Images,
        faces: npt.NDArray[Any],
        partners: Numbers,
        others: Images,
        other_faces: npt.NDArray[Any],
        out: Images,
    ) -> None:
        """Fills ``out`` with second images, without Python's lock: threads run side by side.

        Args:
            epoch: of each pair, (B,).
            ids: its place in the pack, (B,).
            drawn: from `draw`.
            first: the samples as they were packed, (B, S, S, 3).
            faces: their rows, (B,) of `FACE_ROW`.
            partners: from `Partners.of`; below 0 where there is none.
            others: pictures of the partners where `needs_partner`, else anything, (B, S, S, 3).
            other_faces: their rows, (B,).
            out: (B, S, S, 3).
        """
        points, other_points = (
            np.ascontiguousarray(rows["points"], np.float32) for rows in (faces, other_faces)
        )
        worn, other_worn = (
            np.ascontiguousarray(rows["worn"], np.int64) for rows in (faces, other_faces)
        )
        known = sum(1 << KINDS.index(kind) for kind in self.chances)
        compiled.combine_batch(
            compiled.pointers(known), drawn, first, points, others, other_points, partners >= 0,
            worn, other_worn, self.options.numbers(), _keys(self.seed, epoch, ids), out,
        )  # fmt: skip


def needs_partner(drawn: Numbers) -> npt.NDArray[np.bool_]:
    """Which pairs take another photo of the person."""
    return np.asarray((drawn & compiled.NEED_OTHER) != 0)


def _keys(seed: int, epoch: Numbers, ids: Numbers) -> npt.NDArray[np.uint64]:
    """The key of each pair's random streams, (B,)."""
    keys = np.empty(len(ids), np.uint64)
    compiled.key_batch(np.uint64(seed % 2**64), epoch, ids, keys)
    return keys
