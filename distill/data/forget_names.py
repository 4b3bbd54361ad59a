"""Whom `forget` removes and `pack` leaves out: names as people, keyboards and files write them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from distill.data.manifest import MANIFEST_NAME, Pack
from distill.data.people import composed, spellings
from distill.errors import UserError

_LONGEST = 10_000
"""Characters of a name; tables beside packs are read in cells of at most 131,072."""


class Asked(NamedTuple):
    """The people of a request, each once, in its order.

    Attributes:
        known: as the manifests write them.
        unknown: names that no manifest has.
    """

    known: list[str]
    unknown: list[str]

    @property
    def spellings(self) -> set[str]:
        """The names, and as `pack` writes them, whatever keyboard or shell wrote them."""
        return spellings((*self.known, *self.unknown))


def asked_of(packs: Sequence[Pack], identities: Iterable[str]) -> Asked:
    """Who of a request is in the packs."""
    there = {name for pack in packs for name in pack.manifest.identities}
    names = list(dict.fromkeys(n if n in there else composed(n) for n in identities))
    return Asked([n for n in names if n in there], [n for n in names if n not in there])


def nobody(folder: Path, unknown: Sequence[str]) -> UserError:
    """What is said of names that no manifest in ``folder`` has."""
    fix = f"names are in {MANIFEST_NAME}, under identities"
    more = "; nobody was removed" if unknown[1:] else ""
    return UserError(f"{folder}: nobody is called {_listed(unknown)}{more}", fix=fix)


def labels_in(pack: Pack, names: list[str]) -> list[int]:
    """Labels of those of the people who are in a pack.

    Raises:
        UserError: there is nobody else.
    """
    places = {name: label for label, name in enumerate(pack.manifest.identities)}
    here = [name for name in names if name in places]
    labels = [places[name] for name in here]
    if here and sum(pack.manifest.pairs_per_identity[i] for i in labels) == pack.manifest.pairs:
        who = f"{here[0]!r} is the only person" if len(here) == 1 else f"{_listed(here)} are all"
        raise UserError(f"{pack.path}: {who} in it", fix="delete it")
    return labels


def is_about(names: set[str], path: str, reason: str) -> bool:
    """Whether a row of rejected.csv names one of the people, alone or in a path."""
    if not names.isdisjoint(composed(path).split("/")):
        return True
    reason = composed(reason)
    return "/" in reason and any(f"{name}/" in reason for name in names)


def _listed(names: Iterable[str]) -> str:
    """Names in quotes, with commas between them."""
    return ", ".join(map(repr, names))


def read_names(path: Path) -> list[str]:
    """The names of a text file, one a line, without spaces around them; empty lines are none.

    Raises:
        UserError: the file cannot be read, is no text, holds no name, or one far too long.
    """
    fix = "give a text file in UTF-8 with one name a line"
    try:
        text = path.read_text(encoding="utf-8-sig")  # as editors save it
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", fix=fix) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8", fix=fix) from error
    if not (names := [line.strip() for line in text.split("\n") if line.strip()]):
        raise UserError(f"{path}: no name in it", fix=fix)
    if (longest := max(map(len, names))) > _LONGEST:
        raise UserError(f"{path}: a name of {longest} characters, over {_LONGEST}", fix=fix)
    return names
