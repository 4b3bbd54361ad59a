"""What stands at the place where a pack is to go: nothing, the same pack, another, or no pack."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from distill.data.manifest import EVALUATION_NAME, MANIFEST_NAME, TRAIN_NAME, read_pack
from distill.data.pack.options import PackOptions, PackResult, request_digest
from distill.data.pack.parts import PAIRS_NAME, SHEET_NAME
from distill.errors import UserError

REJECTED_NAME = "rejected.csv"
OWN_NAMES = {
    MANIFEST_NAME,
    PAIRS_NAME,
    SHEET_NAME,
    REJECTED_NAME,
    TRAIN_NAME,
    EVALUATION_NAME,
}
_BETON = re.compile(r"pairs(-\d{5,})?\.beton")
"""Shards. With `OWN_NAMES`, all that `pack` ever puts into a folder; one with more stays."""


def reusable(
    out: Path, options: PackOptions, source_digest: Callable[[], str]
) -> PackResult | None:
    """The pack at ``out`` if it is the one asked for; None if ``out`` may be made.

    Args:
        out: where the pack is to go.
        options: of the request.
        source_digest: reads all photographs; called only where there is a pack to compare.

    Raises:
        UserError: ``out`` holds another pack and may not be overwritten, or is no pack at all.
    """
    if not _is_pack(out):
        return None
    if not options.overwrite and (out / MANIFEST_NAME).exists() == (options.holdout > 0):
        raise _another(out)
    try:
        standing = opened(out, holdout=options.holdout > 0)
    except UserError as error:
        if options.overwrite:
            return None
        raise UserError(error.what, fix="pack again with --overwrite") from error
    if standing.train.manifest.request_digest == request_digest(source_digest(), options):
        return standing.as_reused()
    if not options.overwrite:
        raise _another(out)
    return None


def _another(out: Path) -> UserError:
    return UserError(
        f"{out}: holds a pack of other photographs or settings",
        fix="choose another folder, or replace it with --overwrite",
    )


def opened(out: Path, *, holdout: bool) -> PackResult:
    """The packs of a folder that `pack` made."""
    if not holdout:
        return PackResult(read_pack(out), None)
    return PackResult(read_pack(out / TRAIN_NAME), read_pack(out / EVALUATION_NAME))


def _is_pack(out: Path) -> bool:
    """Whether something of ours stands at ``out``; nothing or an empty folder is False.

    Raises:
        UserError: something else stands there, which is never touched.
    """
    if not out.exists():
        return False
    if not out.is_dir():
        raise UserError(f"{out}: a file, not a folder", fix="choose another name")
    names = {entry.name for entry in out.iterdir()}
    if foreign := sorted(n for n in names - OWN_NAMES if not _BETON.fullmatch(n)):
        raise UserError(
            f"{out}: not empty, and {foreign[0]!r} in it is no part of a pack",
            fix="choose another folder",
        )
    return bool(names)


def parts_at(folder: Path) -> list[Path]:
    """The packs in a folder that `pack` made: itself, or its train and evaluation parts."""
    parts = [folder / name for name in (TRAIN_NAME, EVALUATION_NAME)]
    return [part for part in parts if part.is_dir()] or [folder]
