"""What was passed over in folders: it has no row anywhere, so it is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distill.classify.photographs import Photographs
    from distill.data.sources import Source

SHOWN = 5


def photographs_among(paths: Sequence[Path]) -> Photographs:
    """`photographs_at`, with a warning of the files in folders that are none."""
    from distill.classify.photographs import photographs_at

    others = Counter[str]()
    files = photographs_at(paths, others)
    tell_not_tried(others)
    return files


def tell_not_tried(endings: Counter[str]) -> None:
    """Warn of files whose ending is none of an image that is read, by their endings."""
    from distill.console import warn

    if not endings:
        return
    kinds = ", ".join(f"{n} {ending or 'without one'}" for ending, n in endings.most_common(SHOWN))
    warn(
        f"{endings.total()} file(s) not tried, for their ending is of no image that is read:"
        f" {kinds}; convert photographs among them (HEIC, AVIF, raw) to JPEG"
    )


def tell_passed_over(source: Source) -> None:
    """The same of a folder of people, with people without images and images of nobody."""
    from distill.console import warn
    from distill.data.sources.folder import FolderSource

    if not isinstance(source, FolderSource):
        return
    strays = [path.name for path in source.stray]
    for what, names in (
        ("folder(s) of people hold no image", source.empty),
        ("image(s) outside the folder of any person", strays),
    ):
        if names:
            more = ", ..." if names[SHOWN:] else ""
            warn(f"{len(names)} {what}: {', '.join(names[:SHOWN])}{more}")
    tell_not_tried(source.other_endings)
