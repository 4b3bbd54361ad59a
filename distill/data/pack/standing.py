"""What stands at the place where a pack is to go: nothing, the same pack, another, or no pack."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from distill.data.manifest import EVALUATION_NAME, MANIFEST_NAME, TRAIN_NAME, Manifest, read_pack
from distill.data.pack.options import PackOptions, PackResult, request_digest, versions
from distill.data.pack.parts import SHEET_NAME
from distill.data.pairs_table import PAIRS_NAME
from distill.errors import UserError

REJECTED_NAME = "rejected.csv"
FORGET_LOCK_NAME = ".forget.lock"
"""Held by `forget` while it changes a pack; left where it was killed."""
_NAMES = {
    MANIFEST_NAME,
    PAIRS_NAME,
    SHEET_NAME,
    REJECTED_NAME,
    TRAIN_NAME,
    EVALUATION_NAME,
    FORGET_LOCK_NAME,
}
_SHARD = r"pairs(-\d{5,})?\.beton"
_ANY = "|".join([_SHARD, *map(re.escape, _NAMES)])
_OURS = re.compile(rf"{_ANY}|\.({_ANY})\.(.+\.)?partial")
"""All that `pack` and `forget` ever put into a folder, or leave there; one with more stays."""


def reusable(
    out: Path, options: PackOptions, source_digest: Callable[[], str]
) -> PackResult | None:
    """The pack at ``out`` if it is the one asked for; None if ``out`` may be made.

    Args:
        out: where the pack is to go.
        options: of the request.
        source_digest: reads all photographs; called only where all else of a pack is as asked for.

    Raises:
        UserError: ``out`` holds another pack and may not be overwritten, or is no pack at all.
    """
    if not _is_pack(out):
        return None
    if not options.overwrite and (out / MANIFEST_NAME).exists() == (options.holdout > 0):
        raise _another(out, "with other settings (holdout)")
    try:
        standing = opened(out, holdout=options.holdout > 0)
    except UserError as error:
        if options.overwrite:
            return None
        raise UserError(error.what, fix="pack again with --overwrite") from error
    if is_asked_for(standing, options, source_digest):
        return standing.as_reused()
    if not options.overwrite:
        different = _differences(standing.train.manifest, options)
        raise _another(out, different or "of other photographs")
    return None


def left_whole(folder: Path, options: PackOptions) -> PackResult | None:
    """The pack in a folder of a packer that was killed when all was made; None if there is none."""
    try:
        return opened(folder, holdout=options.holdout > 0)
    except UserError:
        return None


def is_asked_for(found: PackResult, options: PackOptions, source_digest: Callable[[], str]) -> bool:
    """Whether a pack is what a request gives; photographs are read if all else is as asked for."""
    manifest = found.train.manifest
    if _differences(manifest, options):
        return False
    return manifest.request_digest == request_digest(source_digest(), options)


def _differences(manifest: Manifest, options: PackOptions) -> str:
    """How a pack differs from one that ``options`` would give today; empty where it does not."""
    if settings := _changed(manifest.options, options.described()):
        return f"with other settings ({', '.join(settings)})"
    if libraries := _changed(manifest.versions, versions()):
        return f"made by other versions ({', '.join(libraries)})"
    return ""


def _changed(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Names whose values differ, as JSON has them."""
    names = sorted({*stored, *wanted})
    return [
        name
        for name in names
        if json.dumps(stored.get(name), sort_keys=True)
        != json.dumps(wanted.get(name), sort_keys=True)
    ]


def _another(out: Path, how: str) -> UserError:
    return UserError(
        f"{out}: holds a pack {how}",
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
    if foreign := sorted(n for n in names if not _OURS.fullmatch(n)):
        raise UserError(
            f"{out}: not empty, and {foreign[0]!r} in it is no part of a pack",
            fix="choose another folder",
        )
    return bool(names)


def parts_at(folder: Path) -> list[Path]:
    """The packs in a folder that `pack` made: itself, or its train and evaluation parts."""
    parts = [folder / name for name in (TRAIN_NAME, EVALUATION_NAME)]
    return [part for part in parts if part.is_dir()] or [folder]
