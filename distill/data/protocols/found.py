"""Which sets a user names: recognised by what lies there."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from distill.data.manifest import MANIFEST_NAME
from distill.data.protocols.ijb import TemplateSet, is_ijb, read_templates
from distill.data.protocols.lines import lines_of
from distill.data.protocols.pair_lines import USUAL_NAMES, is_pair_lines, read_pair_lines
from distill.data.protocols.pairs_txt import ENDING as LIST_ENDING
from distill.data.protocols.pairs_txt import USUAL_NAME, PhotographPairs, read_pairs_txt
from distill.data.verification_set import ENDING, VerificationSet, read_verification_set
from distill.errors import UserError

AnySet = VerificationSet | PhotographPairs | TemplateSet

PARTS = ("IJBB", "IJBC")
"""What the two sets are called where both are in one folder, as InsightFace unpacks them."""

_SETTING = re.compile(r"\w+(\.\w+)+=")


def is_set(path: Path) -> bool:
    """Whether ``path`` names a set, or a folder that holds some and is no pack."""
    if path.is_dir():
        return not (path / MANIFEST_NAME).exists() and bool(sets_in(path))
    return path.suffix in (ENDING, LIST_ENDING)


def is_only_set(path: Path) -> bool:
    """As `is_set`, and no photographs to make a pack of: a folder is IJB's, or has no folders."""
    if not path.is_dir():
        return is_set(path)
    templates = [place for place in sets_in(path) if place.is_dir()]
    return bool(templates) or (is_set(path) and not any(p.is_dir() for p in path.iterdir()))


def is_set_word(word: str) -> bool:
    """Whether a word of the command line names a set, and no setting (``a.b=c``)."""
    return not _SETTING.match(word) and ("=" not in word or is_set(Path(word)))


def read_sets(paths: Sequence[Path]) -> list[AnySet]:
    """The sets at ``paths``, of a folder all in it, in the order of their names.

    Raises:
        UserError: one is missing or damaged, a folder has none, or two have one name.
    """
    sets = [_read(place) for path in paths for place in _places(path)]
    twice = [name for name, count in Counter(found.name for found in sets).items() if count > 1]
    if twice:
        first, second, *_ = (found.path for found in sets if found.name == twice[0])
        raise UserError(
            f"two verification sets are called {twice[0]!r}: {first}, {second}",
            fix="rename one of the files or folders, or measure on one after the other",
        )
    return sets


def _read(path: Path) -> AnySet:
    if path.is_dir():
        return read_templates(path)
    if path.suffix != LIST_ENDING:
        return read_verification_set(path)
    begin = list(islice(lines_of(path), 1))
    return read_pair_lines(path) if is_pair_lines(begin) else read_pairs_txt(path)


def _places(path: Path) -> list[Path]:
    if not path.is_dir():
        if path.suffix not in (ENDING, LIST_ENDING):
            what = "no verification set" if path.exists() else "No such file or folder"
            raise UserError(f"{path}: {what}", fix=_WANTED)
        return [path]
    found = sets_in(path)
    if not found:
        raise UserError(f"{path}: no verification set in it", fix=_WANTED)
    return found


_WANTED = f"name a file like lfw{ENDING} or {USUAL_NAME}, or a folder of IJB-B or IJB-C"


def sets_in(folder: Path) -> list[Path]:
    """The sets of a folder: its `.bin` files, lists of pairs, itself or parts of it if IJB's."""
    lists = [folder / name for name in (USUAL_NAME, *USUAL_NAMES) if (folder / name).is_file()]
    templates = [place for place in (folder, *(folder / name for name in PARTS)) if is_ijb(place)]
    return [*sorted(folder.glob(f"*{ENDING}")), *lists, *templates]
