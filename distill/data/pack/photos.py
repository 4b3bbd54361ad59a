"""The first round of packing: which photographs can be used, whose they are, why not the rest."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from distill.data.pack.enough import check_enough
from distill.data.pack.journal import Journal, Record
from distill.data.pack.options import PackOptions
from distill.data.pack.source_digest import SourceDigest
from distill.data.pack.spool import rows_in
from distill.data.pack.tables import as_text
from distill.data.pack.work import look
from distill.data.pairs import Photos
from distill.data.people import people_taken, person_name, reason_against, spellings
from distill.data.sources import Sample, Source
from distill.data.sources.folder import FolderSource
from distill.data.workers import Team

_NONE = -1
LEFT_OUT = "person is left out by --without"
NOBODY = "nobody is called that, whom --without names"
"""Reasons in rejected.csv: against a photograph, and against a name."""


class Rejected(NamedTuple):
    """A photograph, or a folder, that was left out.

    Attributes:
        path: its name within the source.
        reason: why, in one line.
    """

    path: str
    reason: str


def names_of_nobody(names: Iterable[str], people: Container[str]) -> list[str]:
    """Those of ``names``, each once, that none of millions of ``people`` has in any spelling."""
    # `isdisjoint` of a set would walk through all people, once a name.
    asked = dict.fromkeys(names)
    return [name for name in asked if not any(n in people for n in spellings([name]))]


class Found:
    """What is kept in memory of photographs that were looked at: 21 bytes each.

    Attributes:
        people: numbers of the people, in the order in which they came.
        unread: photographs beyond those, lost together with one of them.
    """

    def __init__(self) -> None:
        self.people: dict[str, int] = {}
        self.unread = 0
        self._persons, self._faces, self._contents = array("i"), array("b"), array("Q")
        self._digest = SourceDigest()

    def add(self, sample: Sample, face: bool, sha256: bytes) -> None:
        """Takes in the next photograph of the source."""
        identity = sample.identity
        self._digest.add(sample.origin, identity, sha256)
        self.unread += sample.photographs - 1
        self._persons.append(self.people.setdefault(person_name(identity), len(self.people)))
        self._faces.append(face)
        self._contents.append(int.from_bytes(sha256[:8], "little"))

    def __len__(self) -> int:
        return len(self._persons)

    @property
    def digest(self) -> str:
        """SHA-256 over all of them."""
        return self._digest.hexdigest()

    @property
    def persons(self) -> npt.NDArray[np.int32]:
        """The person of each, (N,)."""
        return np.frombuffer(self._persons, np.int32)

    @property
    def faces(self) -> npt.NDArray[np.bool_]:
        """Whether each has a face, (N,)."""
        return np.frombuffer(self._faces, np.bool_)

    def same_as(
        self, sha256_of: Callable[[int], bytes], before: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.int32]:
        """Of each the first one with a face and the same content, (N,); -1 where it is that itself.

        Args:
            sha256_of: of one, to compare those of which the first 64 bits agree.
            before: those that count as before all others, (N,).
        """
        same = np.full(len(self), _NONE, np.int32)
        contents, rows = np.frombuffer(self._contents, np.uint64), np.flatnonzero(self.faces)
        order = rows[np.lexsort((~before[rows], contents[rows]))]  # stable
        alike = np.flatnonzero(contents[order[1:]] == contents[order[:-1]])
        firsts: dict[bytes, int] = {}
        for place in alike.tolist():
            for row in order[place : place + 2].tolist():
                first = firsts.setdefault(sha256_of(row), row)
                if first != row:
                    same[row] = first
        return same


class Survey:
    """What came of the first round.

    Args:
        source: of the photographs.
        found: them, in the order of the source.
        journal: what is known of each.
        options: of the pack.

    Attributes:
        seen: photographs looked at, and those that could not be.
        photos: what can be used, by person and then in the order of the source.
        names: people, sorted; labels are indices into this.
        digest: SHA-256 over all photographs looked at.
        left_out: photographs of people who are left out, and copies under names of others.
        usable: photographs that could be used before people were left out.
        nobody: names of people to leave out that nobody has, each once.
    """

    def __init__(
        self, source: Source, found: Found, journal: Journal, options: PackOptions
    ) -> None:
        self._source, self._found, self._journal, self._options = source, found, journal, options
        self.seen, self.digest = len(found) + found.unread, found.digest
        unwanted = spellings(options.without)
        self.nobody = names_of_nobody(options.without, found.people)
        self._left_out = np.array([name in unwanted for name in found.people], np.bool_)
        # Of equal photographs one of somebody who is left out comes first: all of them stay away.
        before = self._left_out[found.persons]
        self._same = found.same_as(lambda row: journal.record(row).sha256, before)
        self.left_out = int(self._away().sum())
        good = found.faces & (self._same == _NONE)
        self.usable = int(good.sum())
        self._counts = np.bincount(found.persons[good], minlength=len(found.people))
        counted = zip(found.people, self._counts.tolist(), strict=True)
        wanted = {name: count for name, count in counted if name not in unwanted}
        self.names = people_taken(wanted, options.min_images, options.max_images)
        label_of = np.full(len(found.people), _NONE, np.int32)
        label_of[[found.people[name] for name in self.names]] = np.arange(len(self.names))
        labels = label_of[found.persons]
        taken = good & (labels != _NONE)
        rows = np.flatnonzero(taken).astype(np.uint32)
        self.photos = Photos(rows, labels[taken], self._told, self._origins)

    def _told(self, rows: npt.NDArray[np.uint32]) -> Iterator[tuple[str, str]]:
        return ((as_text(one.origin), one.note) for one in self._journal.records(rows))

    def _origins(self, rows: npt.NDArray[np.uint32]) -> Iterator[str]:
        return map(as_text, self._journal.origins(rows))

    def rejected(self) -> Iterator[Rejected]:
        """What was left out, and why: by the source itself, in its order, names of nobody."""
        yield from _left_out_by(self._source)
        yield from self._told_of(~self._taken())
        for name in self.nobody:
            yield Rejected(name, NOBODY)

    def lost(self) -> Iterator[Rejected]:
        """The same but for what --without alone keeps away."""
        yield from _left_out_by(self._source)
        yield from self._told_of(~(self._taken() | self._away()))

    def _taken(self) -> npt.NDArray[np.bool_]:
        taken = np.zeros(len(self._found), np.bool_)
        taken[self.photos.rows] = True
        return taken

    def _away(self) -> npt.NDArray[np.bool_]:
        """Whether each is of somebody who is left out, or a copy of such a one, (N,)."""
        of_them = self._left_out[self._found.persons]
        copies: npt.NDArray[np.bool_] = (self._same != _NONE) & of_them[self._same]
        return of_them | copies

    def _told_of(self, which: npt.NDArray[np.bool_]) -> Iterator[Rejected]:
        for row in np.flatnonzero(which).tolist():
            record = self._journal.record(row)
            yield Rejected(record.origin, self._reason_against(row, record))

    def _reason_against(self, row: int, record: Record) -> str:
        if self._left_out[self._found.persons[row]]:
            return LEFT_OUT
        if not record.face:
            return record.note
        if (same := int(self._same[row])) != _NONE:
            first = self._journal.record(same)
            another = "" if first.identity == record.identity else ", which is of another person"
            return f"same content as {as_text(first.origin)}{another}"
        count = int(self._counts[self._found.persons[row]])
        return reason_against(count, self._options.min_images, self._options.max_images)


def survey(
    source: Source,
    options: PackOptions,
    journal: Journal,
    spool: Path,
    team: Team,
    advance: Callable[[int], None],
) -> Survey:
    """Prepares every photograph of a source, but for those an earlier packer has prepared.

    Args:
        source: of photographs.
        options: of the pack.
        journal: takes what is found.
        spool: file of the aligned faces, which is there; its rows are numbers of the journal.
        team: does the work.
        advance: told of photographs that are done.

    Raises:
        UserError: nothing usable, more rejected than allowed, or nobody has any of the names of
            those to leave out.
    """
    found, samples = _resumed(source, journal, rows_in(spool))
    journal.begin()
    advance(len(found))
    numbered = enumerate(samples, len(found))
    shared = options.landmarks_from(), str(spool), journal.named
    for some, looked in team.do_many(look, numbered, *shared, name=lambda task: task[1].origin):
        for (_, sample), (_, face, sha256) in zip(some, looked, strict=True):
            found.add(sample, face, sha256)
        journal.add(one.line for one in looked)
        advance(len(some))
    journal.flush()
    result = Survey(source, found, journal, options)
    check_enough(source, result, options)
    return result


def _resumed(source: Source, journal: Journal, faces: int) -> tuple[Found, Iterator[Sample]]:
    """What an earlier packer found, and the photographs that are left to be looked at."""
    found, samples = Found(), iter(source)
    for record in journal.resume(faces):
        sample = next(samples, None)
        if sample is None or (sample.origin, sample.identity) != record[:2]:
            journal.forget()
            return Found(), iter(source)  # other photographs than then
        found.add(sample, record.face, record.sha256)
    return found, samples


def _left_out_by(source: Source) -> Iterator[Rejected]:
    """What the source itself left out."""
    if isinstance(source, FolderSource):
        for name in source.empty:
            yield Rejected(name, "folder of a person without images")
        for path in source.stray:
            yield Rejected(path.name, "image outside the folder of any person")
