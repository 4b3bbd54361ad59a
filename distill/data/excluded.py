"""Lists of photographs that a run trains without: one CSV line each, as `pairdistill audit` writes.

A line names the pack by its digest, so a list never speaks of other pairs than it was made for; the
photograph's first pair; and in ``also`` all others to leave out with it: the further pairs of the
photograph, and those of others whose second image was made from it. Nothing else of a pack has to
be read to know what remains. ``all`` in place of a pair is about all photographs of the identity.
"""

from __future__ import annotations

import csv
import hashlib
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distill.arrays import Numbers
from distill.data.gaps import NO_GAPS, Gaps
from distill.data.manifest import CHECKED_PAIRS, Pack
from distill.errors import UserError

NEEDED = ("pack", "pair", "also", "identity")
"""Columns that decide what is left out; a list may have any others."""
ALSO_SEPARATOR = " "
ALL = "all"
"""In place of a pair: those of all photographs of the identity."""
_DIGEST_DIGITS = 16
_NUMBER_DIGITS = 18
"""More digits than any pair's number, and no more than 64 bits hold."""


class Excluded(NamedTuple):
    """Pairs of several packs that are left out.

    Attributes:
        gaps: their numbers, where all packs are numbered through.
        runs: label of each, where the labels of all packs are numbered through, (E,).
    """

    gaps: Gaps
    runs: Numbers

    @property
    def digest(self) -> str:
        """SHA-256 of the numbers: lists that say the same in another way have the same."""
        return hashlib.sha256(self.gaps.left_out.astype("<i8").tobytes()).hexdigest()


NONE_EXCLUDED = Excluded(NO_GAPS, np.zeros(0, np.int64))


class _Numbering(NamedTuple):
    """Where the pairs and labels of a pack begin among those of all."""

    pack: Pack
    first_pair: int
    runs: dict[str, int]
    ends: Numbers
    """Of each label, the end of its pairs within the pack, where they lie in order."""


def pack_key(pack: Pack) -> str:
    """What lines about a pack name it by."""
    return pack.manifest.digest[:_DIGEST_DIGITS]


def read_excluded(paths: Sequence[Path], packs: Sequence[Pack]) -> Excluded:
    """What the lists at ``paths`` leave out of ``packs``: all that any of them names.

    Raises:
        UserError: a list that cannot be read, or says what is not so; file and line are named.
    """
    numberings = _numberings(packs)
    pairs, runs = array("q"), array("q")
    for path in paths:
        own = array("q")
        for line, row in _lines(path):
            found = _pairs_of(row, numberings, path, line)
            pairs.extend(found)
            runs.extend([_run_of(row, numberings, path, line)] * len(found))
            own.extend(found[:1] if row["pair"] != ALL else [])
        _check_once(np.array(own, np.int64), path)
    left_out, first = np.unique(np.array(pairs, np.int64), return_index=True)
    excluded = Excluded(Gaps(left_out), np.array(runs, np.int64)[first])
    _check_people(excluded, numberings, paths)
    return excluded


def _numberings(packs: Sequence[Pack]) -> dict[str, _Numbering]:
    found, first_pair, first_run = {}, 0, 0
    for pack in packs:
        names = pack.manifest.identities
        runs = {name: first_run + label for label, name in enumerate(names)}
        ends = np.cumsum(pack.manifest.pairs_per_identity)
        found[pack_key(pack)] = _Numbering(pack, first_pair, runs, ends)
        first_pair, first_run = first_pair + pack.manifest.pairs, first_run + len(names)
    return found


def _lines(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The needed cells of each row, with the number of its line."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # as Excel saves it
            rows = csv.reader(file, strict=True)
            header = next(rows, [])
            missing = [name for name in NEEDED if name not in header]
            if missing:
                what = f"has no column {missing[0]!r}" if header else "is empty"
                raise _wrong(path, what)
            places = [(name, header.index(name)) for name in NEEDED]
            for row in rows:
                if len(row) != len(header):
                    what = f"line {rows.line_num}: {len(row)} cells under {len(header)} columns"
                    raise _wrong(path, what)
                yield rows.line_num, {name: row[place] for name, place in places}
    except OSError as error:
        raise _wrong(path, str(error.strerror)) from error
    except UnicodeDecodeError as error:
        raise _wrong(path, "is no text in UTF-8") from error
    except csv.Error as error:
        raise _wrong(path, f"line {rows.line_num}: {error}") from error


def _wrong(path: Path, what: str) -> UserError:
    return UserError(
        f"data.exclude: {path}: {what}",
        fix="give a list that `pairdistill audit` wrote about a pack of data.train as it is now",
    )


def _pairs_of(
    row: dict[str, str], numberings: dict[str, _Numbering], path: Path, line: int
) -> list[int]:
    """The pairs that a line leaves out, the photograph's own first."""
    known = numberings.get(row["pack"])
    if known is None:
        raise _wrong(path, f"line {line}: pack {row['pack']!r} is none of data.train")
    words = [row["pair"], *row["also"].split(ALSO_SEPARATOR)] if row["also"] else [row["pair"]]
    pairs = known.pack.manifest.pairs
    if words == [ALL]:
        return _all_of(row, known, path, line)
    for word in words:
        is_number = word.isascii() and word.isdigit() and len(word) <= _NUMBER_DIGITS
        if not (is_number and int(word) < pairs):
            raise _wrong(path, f"line {line}: {word!r} is none of the {pairs} pairs of its pack")
    return [known.first_pair + int(word) for word in words]


def _all_of(row: dict[str, str], known: _Numbering, path: Path, line: int) -> list[int]:
    """All pairs of the identity of a line, which lie together as `pack` writes them."""
    label = _run_of(row, {row["pack"]: known}, path, line) - next(iter(known.runs.values()))
    count = known.pack.manifest.pairs_per_identity[label]
    pairs = np.arange(known.ends[label] - count, known.ends[label])
    places, shards = known.pack.index.locate(pairs), known.pack.index.shards
    if any(shards[shard].samples["label"][at] != label for shard, at in places.tolist()):
        raise _wrong(path, f"line {line}: the pairs of its identity do not lie together")
    return [known.first_pair + pair for pair in pairs.tolist()]


def _run_of(row: dict[str, str], numberings: dict[str, _Numbering], path: Path, line: int) -> int:
    run = numberings[row["pack"]].runs.get(row["identity"])
    if run is None:
        raise _wrong(path, f"line {line}: nobody in its pack is called {row['identity']!r}")
    return run


def _check_once(own: Numbers, path: Path) -> None:
    """Refuses a list that has a photograph twice: some of its lines are of something else."""
    pairs, times = np.unique(own, return_counts=True)
    if (times > 1).any():
        twice = int(pairs[times > 1][0])
        raise UserError(
            f"data.exclude: {path}: {int((times > 1).sum())} photographs are listed twice, the"
            f" first of them with pair {twice} (all packs numbered through)",
            fix="keep one line of each",
        )


def _check_people(
    excluded: Excluded, numberings: dict[str, _Numbering], paths: Sequence[Path]
) -> None:
    """Compares names with the labels in small packs; large ones are not read for that."""
    left_out = excluded.gaps.left_out
    if sum(known.pack.manifest.pairs for known in numberings.values()) > CHECKED_PAIRS:
        return
    for known in numberings.values():
        index, first_run = known.pack.index, next(iter(known.runs.values()))
        here = (left_out >= known.first_pair) & (left_out < known.first_pair + len(index))
        ids = left_out[here] - known.first_pair
        labels = np.concatenate([shard.samples["label"] for shard in index.shards])[ids]
        wrong = np.flatnonzero(labels + first_run != excluded.runs[here])
        if wrong.size:
            pair, name = int(ids[wrong[0]]), known.pack.manifest.identities[int(labels[wrong[0]])]
            where = ", ".join(map(str, paths))
            raise UserError(
                f"data.exclude: {where}: pair {pair} of {known.pack.path} is of {name!r}, and"
                " listed as of somebody else",
                fix="look at that line, or write the list anew with `pairdistill audit`",
            )
