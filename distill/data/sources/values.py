"""What data sets say of a photograph: whose it is, and where the face is; checked here for all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from distill.data.images import Unusable
from distill.data.sources import Landmarks
from distill.errors import UserError

IDENTITY_COLUMNS = ("identity", "label", "id", "person", "name", "class", "target", "cls")
"""What the person may be called in a table or a JSON object, the first that is there."""
LANDMARK_COLUMNS = ("landmarks", "landmark", "points", "keypoints")
"""What the five points may be called."""
MAX_NAME_CHARACTERS = 1024
_MAX_COORDINATE = 1e5

_NUMBER = re.compile(r"[+-]?(\d+\.\d*|\.\d+)")
_NOBODY = {"nan", "NaN", "NAN", "inf", "-inf", "+inf", "None", "null", "<NA>"}


def identity_of(value: object) -> str:
    """A person's name, from text or a number.

    Whole numbers become their digits; text keeps its own, leading zeros included.

    Raises:
        Unusable: nothing, a negative number, a fraction, NaN, a truth value, or far too long.
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if isinstance(value, str):
        return _named(value.strip())
    if isinstance(value, Decimal):  # what data bases have in place of whole numbers
        value = int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unusable(f"label {str(value)[:80]!r} is no person")
    if not 0 <= value < 10**MAX_NAME_CHARACTERS or value != int(value):  # also where it is NaN
        raise Unusable(f"label {str(value)[:80]} is no person's number")
    return str(int(value))


def _named(text: str) -> str:
    """A person named by text; numbers in it follow the rules of numbers."""
    if not text or text in _NOBODY:
        raise Unusable(f"label {text!r} is no person")
    if len(text) > MAX_NAME_CHARACTERS:
        raise Unusable(f"label of {len(text)} characters")
    if _NUMBER.fullmatch(text):
        return identity_of(float(text))
    if re.fullmatch(r"-\d+", text):
        raise Unusable(f"label {text} is no person's number")
    return text


def landmarks_of(values: object) -> Landmarks:
    """Five points, from a list of ten numbers or of five pairs.

    Raises:
        Unusable: other than that, or a number that is no place in an image.
    """
    flat: list[float] = []
    for value in values if isinstance(values, list | tuple) else [values]:
        flat += map(_coordinate, value if isinstance(value, list | tuple) else [value])
    if len(flat) != 10:
        raise Unusable(f"landmarks of {len(flat)} numbers, ten are needed")
    return tuple(zip(flat[::2], flat[1::2], strict=True))


def _coordinate(value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise Unusable(f"landmark {str(value)[:40]!r} is no number") from None
    if not abs(number) <= _MAX_COORDINATE:  # also where it is NaN
        raise Unusable(f"landmark {number} is no place in an image")
    return number


def column(
    path: Path, names: Sequence[str], usual: Sequence[str], given: str | None, option: str
) -> str:
    """The name of a column.

    Args:
        path: of the table, for the error.
        names: of the columns that are there.
        usual: what the column is mostly called, by precedence; letters may be large.
        given: what the user says it is called.
        option: how the user would say so.

    Raises:
        UserError: no such column.
    """
    there = ", ".join(names[:20])
    if given is not None:
        if given not in names:
            raise UserError(
                f"{path}: no column {given!r} (there are {there})", fix=f"mend {option}"
            )
        return given
    small = {name.lower(): name for name in reversed(names)}
    found = next((small[name] for name in usual if name in small), None)
    if found is None:
        raise UserError(
            f"{path}: no column {', '.join(usual)} (there are {there})", fix=f"name it by {option}"
        )
    return found
