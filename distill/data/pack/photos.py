"""The first round of packing: which photographs can be used, whose they are, why not the rest."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from distill.data.images import Unusable
from distill.data.pack.journal import journalled
from distill.data.pack.options import PackOptions
from distill.data.pack.spool import SpoolWriter
from distill.data.pack.tables import as_text
from distill.data.pack.work import Prepared, prepare
from distill.data.pack.workers import Team
from distill.data.pairs import Photo
from distill.data.people import people_taken, reason_against
from distill.data.sources import Sample, Source
from distill.data.sources.folder import FolderSource
from distill.errors import UserError


@dataclass(frozen=True)
class Rejected:
    """A photograph, or a folder, that was left out.

    Attributes:
        path: its name within the source.
        reason: why, in one line.
    """

    path: str
    reason: str


@dataclass
class Survey:
    """What came of the first round.

    Attributes:
        seen: photographs looked at.
        rejected: what was left out.
        photos: what can be used, by person and then in the order of the source; rows are those
            of the spool.
        names: people, sorted; labels are indices into this.
        digest: SHA-256 over all photographs looked at.
    """

    seen: int = 0
    rejected: list[Rejected] = field(default_factory=list)
    photos: list[Photo] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    digest: str = ""


class SourceDigest:
    """SHA-256 over names, people and contents of photographs, in the order of the source."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, sample: Sample, sha256: bytes) -> None:
        """Takes in one photograph; one that cannot be read counts with an empty digest."""
        for part in (sample.origin, sample.identity):
            data = part.encode("utf-8", "surrogateescape")
            self._hash.update(len(data).to_bytes(8, "little") + data)
        self._hash.update(len(sha256).to_bytes(1, "little") + sha256)

    def hexdigest(self) -> str:
        """The digest so far."""
        return self._hash.hexdigest()


def survey(
    source: Source,
    options: PackOptions,
    spool: SpoolWriter,
    team: Team,
    advance: Callable[[], None],
) -> Survey:
    """Prepares every photograph of a source.

    Args:
        source: of photographs.
        options: of the pack.
        spool: takes the aligned faces.
        team: does the work.
        advance: told of each photograph that is done.

    Raises:
        UserError: nothing usable, or more rejected than allowed.
    """
    result = Survey(rejected=list(_left_out_by(source)))
    digest, seen_before = SourceDigest(), dict[bytes, tuple[str, str]]()
    found: list[tuple[str, Photo]] = []

    def look(samples: Iterator[Sample]) -> Iterator[tuple[Sample, Prepared]]:
        return team.do(prepare, samples, options.landmarks_from(), name=lambda s: s.origin)

    for sample, prepared in journalled(source, look, spool):
        result.seen += 1
        digest.add(sample, prepared.sha256)
        reason = _reason_against(sample, prepared, seen_before)
        if prepared.face is None or reason:
            result.rejected.append(Rejected(sample.origin, reason))
        else:
            row = spool.append(prepared.face)
            photo = Photo(row, as_text(sample.origin), -1, prepared.reason)
            found.append((as_text(sample.identity), photo))
        advance()
    result.digest = digest.hexdigest()
    _label(result, found, options)
    _check(source, result, options, usable=len(found))
    return result


def _left_out_by(source: Source) -> Iterator[Rejected]:
    """What the source itself left out."""
    if isinstance(source, FolderSource):
        for name in source.empty:
            yield Rejected(name, "folder of a person without images")
        for path in source.stray:
            yield Rejected(path.name, "image outside the folder of any person")


def _reason_against(sample: Sample, prepared: Prepared, seen: dict[bytes, tuple[str, str]]) -> str:
    """Why a photograph cannot be used; nothing if it can."""
    if prepared.face is None:
        return prepared.reason
    if prepared.sha256 not in seen:
        seen[prepared.sha256] = sample.origin, sample.identity
        return ""
    origin, identity = seen[prepared.sha256]
    if identity == sample.identity:
        return f"same content as {as_text(origin)}"
    return f"same content as {as_text(origin)}, which is of another person"


def _label(result: Survey, found: Sequence[tuple[str, Photo]], options: PackOptions) -> None:
    """Numbers the people, and leaves out those with too few or too many photographs."""
    low, high = options.min_images, options.max_images
    counts = Counter(name for name, _ in found)
    result.names = people_taken(counts, low, high)
    labels = {name: label for label, name in enumerate(result.names)}
    for name, photo in found:
        if name in labels:
            result.photos.append(photo._replace(label=labels[name]))
        else:
            reason = reason_against(counts[name], low, high)
            result.rejected.append(Rejected(photo.origin, reason))
    result.photos.sort(key=lambda photo: (photo.label, photo.row))


def _check(source: Source, result: Survey, options: PackOptions, *, usable: int) -> None:
    """Refuses a source of which too little is left."""
    lost = result.seen - len(result.photos)
    first = "; ".join(f"{r.path}: {r.reason}" for r in result.rejected[:3])
    if not result.photos:
        raise UserError(
            f"{source.name}: none of {result.seen} photographs can be used ({first})",
            fix=_remedy(options, usable),
        )
    if lost > options.max_rejected * result.seen:
        raise UserError(
            f"{source.name}: {lost} of {result.seen} photographs rejected ({first})",
            fix=f"mend the source, or allow more than --max-rejected {options.max_rejected:g}",
        )


def _remedy(options: PackOptions, usable: int) -> str:
    """What may help where no photograph is left, of ``usable`` before people were left out."""
    if usable and options.max_images:
        return f"lower --min-images {options.min_images}, or raise --max-images"
    if usable:
        return f"lower --min-images {options.min_images}"
    if options.aligned:
        return "give 112x112 crops, or leave --aligned away"
    return "give photographs with a visible face, or --aligned for 112x112 crops"


def source_digest(samples: Iterable[Sample], advance: Callable[[], None]) -> str:
    """The digest that `survey` would find, from reading alone."""
    digest = SourceDigest()
    for sample in samples:
        digest.add(sample, _content(sample))
        advance()
    return digest.hexdigest()


def _content(sample: Sample) -> bytes:
    """SHA-256 of a photograph, or nothing where it cannot be read."""
    try:
        return hashlib.sha256(sample.read()).digest()
    except Unusable:
        return b""
