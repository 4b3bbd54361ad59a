"""Which people are taken, and which number each has."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping

_WHOLE = re.compile(r"0|[1-9][0-9]{0,17}")
_AS_BYTES = re.compile(r"\\x[0-9a-f]{2}|[\udc80-\udcff]")
"""What stands for a byte in a person's name, or looks like it."""


def person_name(folder: str) -> str:
    """A person's name as valid Unicode, from the name that a source has for them.

    It is in Unicode's composed form: macOS writes accents as characters of their own, and folders
    that were copied from there would be other people. Bytes that are no UTF-8 become ``\\xNN``.
    Names with such bytes, and those that have these very characters already, have their
    backslashes doubled: no two people whose names differ otherwise ever get the same name.
    """
    folder = composed(folder)
    if not _AS_BYTES.search(folder):
        return folder
    whole = folder.replace("\\", "\\\\").encode("utf-8", "surrogateescape")
    return whole.decode("utf-8", "backslashreplace")


def composed(name: str) -> str:
    """A name in the form in which two spellings of the same characters are equal (NFC)."""
    return unicodedata.normalize("NFC", name)


def spellings(names: Iterable[str]) -> set[str]:
    """Names as they were given and as packs have them, whatever keyboard or shell wrote them."""
    names = list(names)
    return {*names, *map(composed, names)}


def people_taken(counts: Mapping[str, int], low: int, high: int) -> list[str]:
    """The people who have at least ``low`` and at most ``high`` photographs, by rising label.

    Labels are places in this list, so gaps in a data set's own numbers close, and its own numbers
    stay as names. Where all names are whole numbers they are ordered as numbers, else as text.

    Args:
        counts: usable photographs of each person.
        low: fewer are too few.
        high: more are too many; 0 for no limit.
    """
    taken = [name for name, count in counts.items() if low <= count and (not high or count <= high)]
    return sorted(taken, key=int) if are_numbers(taken) else sorted(taken)


def are_numbers(names: Iterable[str]) -> bool:
    """Whether all names are whole numbers without leading zeros, as people of record files have."""
    return all(map(_WHOLE.fullmatch, names))


def reason_against(count: int, low: int, high: int) -> str:
    """Why a person with so many photographs is not taken; nothing if they are."""
    if count < low:
        return f"person has {count} usable photographs, fewer than {low}"
    if high and count > high:
        return f"person has {count} usable photographs, more than {high}"
    return ""


def alike_but_for_capitals(names: Collection[str]) -> list[list[str]]:
    """Names that differ in nothing but capital letters, together, sorted.

    A disk that does not tell capitals from small letters, or a hand that wrote a list, makes two
    people of one that way; of data sets, whose names tell them apart, nobody but their maker knows.
    """
    found: dict[str, list[str]] = {}
    for name in () if are_numbers(names) else names:
        found.setdefault(composed(name.casefold()), []).append(name)
    return sorted(sorted(same) for same in found.values() if len(same) > 1)
