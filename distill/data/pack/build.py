"""From photographs to a pack: the whole story, in reading order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from distill.data.manifest import EVALUATION_NAME, TRAIN_NAME
from distill.data.pack.enough import in_vain
from distill.data.pack.journal import JOURNAL_NAME, Journal
from distill.data.pack.options import PackOptions, PackResult, request_digest, versions
from distill.data.pack.parts import Part, PartWriter
from distill.data.pack.photos import Rejected, Survey, survey
from distill.data.pack.scratch import (
    begin,
    keep_shards_of,
    new_folder,
    place_of,
    restore_replaced,
)
from distill.data.pack.sides import alike_groups, split_survey, with_own_labels
from distill.data.pack.source_digest import source_digest
from distill.data.pack.spool import SPOOL_NAME, check_room
from distill.data.pack.standing import REJECTED_NAME, is_asked_for, left_whole, opened, reusable
from distill.data.pack.tables import Table
from distill.data.pack.work import Recipe
from distill.data.pairs import Photos, evaluation_pairs, single_photos, training_pairs
from distill.data.second import warm_up
from distill.data.sources import Source
from distill.data.splits import Split
from distill.data.workers import Team, team
from distill.files import disk_errors

log = logging.getLogger(__name__)


class Advances(Protocol):
    """A progress bar, or anything that counts."""

    def advance(self, by: int = 1) -> None:
        """So many more are done."""


Progress = Callable[[str, int | None], AbstractContextManager[Advances]]
"""Makes a bar from its title and its length (None where that is not known)."""


class _Silent:
    def advance(self, by: int = 1) -> None:
        """Counts for nobody."""


@contextmanager
def silent(_title: str, _total: int | None) -> Iterator[Advances]:
    """No progress bar."""
    yield _Silent()


def pack(
    source: Source,
    out: Path,
    options: PackOptions | None = None,
    progress: Progress = silent,
    warn: Callable[[str], None] = log.warning,
) -> PackResult:
    """Makes pairs of a source's photographs and packs them; or finds that it has been done.

    First every photograph is read, its face found and aligned; then every planned pair is made and
    stored. The same request gives the same bytes whatever the number of workers. All grows in a
    folder beside ``out`` that is renamed when it is whole: a failure, a kill or Ctrl-C leaves
    ``out`` as it was. After a kill the same request goes on from there: with the next photograph,
    and then with the first shard that is not whole.

    Args:
        source: of photographs.
        out: folder of the pack; with `PackOptions.holdout`, of the packs `train` and `evaluation`.
        options: what to make.
        progress: makes a bar for each long part.
        warn: told at once of names in `PackOptions.without` that nobody has.

    Raises:
        UserError: no usable photograph, the disk full or not writable, a worker killed, another
            pack at ``out``.
    """
    options = options or PackOptions()
    place = place_of(out)
    restore_replaced(place, out)

    def digest() -> str:
        return _compared(source, options, progress)

    if (standing := reusable(out, options, digest)) is not None:
        return standing
    with new_folder(place, out) as folder:
        left = left_whole(folder, options)
        same = left is not None and is_asked_for(left, options, digest)
        if not same:
            begin(folder, out, begun_by(source, options), anew=left is not None)
            _make(source, folder, out, options, progress, warn)
    made = opened(out, holdout=options.holdout > 0)
    return made.as_reused() if same else made


def _make(
    source: Source,
    folder: Path,
    out: Path,
    options: PackOptions,
    progress: Progress,
    warn: Callable[[str], None],
) -> None:
    """Makes all of a pack in ``folder``, or what an earlier packer has not made of it."""
    # Here once, rather than in every worker; what is packed of a face asks the finder of glasses.
    warm_up({*options.kinds, "glasses"} if options.layout == "singles" else options.kinds)
    with (
        closing(Journal(folder / JOURNAL_NAME, out)) as journal,
        team(options.processes()) as workers,
    ):
        spool = folder / SPOOL_NAME
        with disk_errors(out):
            spool.touch()
        check_room(spool, source.expected, out)
        with progress("aligning faces", source.expected) as bar:
            found = survey(source, options, journal, spool, workers, bar.advance)
        if found.nobody:
            warn(in_vain(found.nobody))
        keep_shards_of(found.digest, folder, out)
        sides = _sides(found, folder, options, workers, progress) if options.holdout else None
        write_rejected(chain(found.rejected(), _dropped(sides)), folder, out)
        description = described(found, sides, source, options)
        for part in parts_of(found, sides, folder, options):
            write_part(part, description, out, options, workers, progress)


def begun_by(source: Source, options: PackOptions) -> dict[str, Any]:
    """What a request is known by before its photographs have been read."""
    return {"source": source.name, "digest": request_digest("", options), "of": source.expected}


def _compared(source: Source, options: PackOptions, progress: Progress) -> str:
    """The digest of the photographs, to compare with that of a pack."""
    with progress("comparing photographs", source.expected) as bar:
        return source_digest(source, options.landmarks_from(), bar.advance)


def write_rejected(rejected: Iterable[Rejected], folder: Path, named: Path) -> None:
    """`rejected.csv`, also where it is empty: no line means nothing was left out."""
    with Table(folder / REJECTED_NAME, named, "path", "reason") as table:
        for row in rejected:
            table.row(row.path, row.reason)


def _sides(
    found: Survey, folder: Path, options: PackOptions, workers: Team, progress: Progress
) -> Split:
    """The photographs to train on and those held out."""
    with progress("looking for near duplicates", len(found.photos)) as bar:
        group_of = alike_groups(found.photos, str(folder / SPOOL_NAME), workers, bar.advance)
    with progress("drawing what is held out", len(found.photos)) as bar:
        return split_survey(found, group_of, options, bar.advance)


def _dropped(sides: Split | None) -> Iterator[Rejected]:
    """Photographs that were left out for being on both sides."""
    for photo, twin in sides.dropped if sides else ():
        yield Rejected(photo.origin, f"held out, but nearly the same as {twin.origin}")


def parts_of(found: Survey, sides: Split | None, folder: Path, options: PackOptions) -> list[Part]:
    """The packs to make: one of all photographs, or one to train on and one of those held out."""
    if sides is None:
        return [_training(found.photos, found.names, folder, options)]
    train, trained = sides.train, found.names
    held, tested = sides.held, found.names
    if options.split_by == "identity":
        train, trained = with_own_labels(train, found.names)
        held, tested = with_own_labels(held, found.names)
    kinds = list(options.kinds)
    plans = evaluation_pairs(held, options.seed, kinds)
    evaluation = folder / EVALUATION_NAME
    return [
        _training(train, trained, folder / TRAIN_NAME, options),
        Part("evaluation", evaluation, plans, len(held) * len(kinds), len(held), tested),
    ]


def _training(photos: Photos, people: list[str], folder: Path, options: PackOptions) -> Part:
    if options.layout == "singles":
        count = len(photos)
        return Part("train", folder, single_photos(photos), count, count, people, "singles")
    per_image = options.second_per_image
    plans = training_pairs(photos, options.seed, per_image)
    return Part("train", folder, plans, len(photos) * per_image, len(photos), people)


def write_part(
    part: Part,
    description: Mapping[str, Any],
    out: Path,
    options: PackOptions,
    workers: Team,
    progress: Progress,
) -> None:
    """Makes the pairs of one pack and stores them.

    Args:
        part: the pack.
        description: of `described`.
        out: the pack as the user knows it, for errors.
        options: what to make.
        workers: do the work.
        progress: makes a bar.
    """
    spool = part.folder.parent if options.holdout else part.folder
    recipe = Recipe(
        str(spool / SPOOL_NAME),
        options.seed,
        options.quality,
        options.kinds,
        options.second_options(),
    )
    writer = PartWriter(part, out, options.kinds)
    with progress(f"making {part.purpose} pairs", part.pairs) as bar:
        writer.write(workers, recipe, bar.advance, shard_bytes=options.shard_bytes, **description)


def described(
    found: Survey, sides: Split | None, source: Source, options: PackOptions
) -> dict[str, Any]:
    """Fields of the manifest that both packs share."""
    return {
        "seed": options.seed,
        "options": options.described(),
        "source": source.name,
        "licence": options.licence,
        "purpose_note": options.purpose_note,
        "samples_seen": found.seen,
        "samples_rejected": found.seen - len(found.photos) + len(list(_dropped(sides))),
        "split": sides.counts() if sides else {},
        "source_digest": found.digest,
        "request_digest": request_digest(found.digest, options),
        "jpeg_quality": options.quality,
        "versions": versions(),
    }
