"""The settings of a configuration over the defaults, asked for by name and kind.

What was not asked for in the end, or could not be taken over, is kept account of.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from distill.errors import UserError, one_line
from distill.migrate.expressions import Found
from distill.migrate.facts import BASE

MAX_WHOLE = 2**53
"""Whole numbers beyond are no sizes."""
_SHOWN = 60
_SECRETS = ("key", "token", "secret", "password")
_Kind = TypeVar("_Kind")


class Given:
    """Settings, which of them were asked for, and which were lost.

    Args:
        name: of the file.
        found: what it assigns.
    """

    def __init__(self, name: str, found: Mapping[str, Found]) -> None:
        self.name = name
        self.found = found
        self.asked: set[str] = set()
        self.lost: list[str] = []

    def lose(self, setting: str, why: str) -> None:
        """Keep account of a setting that is not taken over as it is."""
        found = self.found.get(setting)
        where = f"{self.name}:{found.line}: " if found else ""
        self.lost.append(f"{where}{self.words(setting)}: {why}")

    def wrong(self, setting: str, what: str, fix: str) -> UserError:
        """A mistake in a setting, with its line."""
        found = self.found.get(setting)
        where = f"{self.name}:{found.line}" if found else "base.py"
        return UserError(f"{where}: {self.words(setting)}: {what}", fix=fix)

    def words(self, setting: str) -> str:
        """The setting as it is given, in one line, for people; without what opens accounts."""
        found = self.found.get(setting)
        if (found and found.why) or any(part in setting.lower() for part in _SECRETS):
            return f"config.{setting}"
        text = one_line(repr(found.value if found else BASE[setting]))
        short = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
        return f"config.{setting} = {short}" + (" (base.py)" if found is None else "")

    def value(self, setting: str) -> Any:
        """What was assigned, or the default.

        Raises:
            UserError: neither, or not understood.
        """
        self.asked.add(setting)
        found = self.found.get(setting)
        if found is None and setting not in BASE:
            raise UserError(
                f"{self.name}: config.{setting} is missing, and has no default",
                fix=f"add a line, config.{setting} = VALUE",
            )
        if found is not None and found.why:
            raise self.wrong(setting, found.why, "write it out, as a number, text or list")
        return found.value if found else BASE[setting]

    def whole(self, setting: str, low: int) -> int:
        """A whole number of at least ``low``."""

        def fits(value: Any) -> bool:
            return type(value) is int and low <= value <= MAX_WHOLE

        return self._kind(setting, fits, int, f"must be a whole number, {low} or more")

    def number(self, setting: str, *, positive: bool = False) -> float:
        """A finite number, 0 or more, or above 0."""

        def fits(value: Any) -> bool:
            return is_number(value) and (value > 0 if positive else value >= 0)

        rule = "above 0" if positive else "0 or more"
        return self._kind(setting, fits, float, f"must be a number {rule}")

    def any_number(self, setting: str) -> float:
        """A finite number of either sign."""
        return self._kind(setting, is_number, float, "must be a number")

    def text(self, setting: str) -> str:
        """A text that is not empty, of one line."""
        return self._kind(setting, is_text, str, "must be a text of one line")

    def flag(self, setting: str) -> bool:
        """True or False."""
        return self._kind(setting, (True, False).__contains__, bool, "must be True or False")

    def listed(self, setting: str, fits: Callable[[Any], bool], what: str) -> list[Any]:
        """A list whose elements all are as ``fits`` says, which ``what`` says in words."""

        def all_fit(value: Any) -> bool:
            return isinstance(value, list | tuple) and all(map(fits, value))

        return self._kind(setting, all_fit, list, f"must be a list of {what}")

    def _kind(
        self, setting: str, fits: Callable[[Any], bool], kind: Callable[[Any], _Kind], rule: str
    ) -> _Kind:
        value = self.value(setting)
        if not fits(value):
            raise self.wrong(setting, rule, "correct that line")
        return kind(value)


def is_number(value: Any) -> bool:
    """Whether it is a finite number of at most float64's size."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and abs(value) < 1e30


def is_text(value: Any) -> bool:
    """Whether it is a text of one line, and not empty."""
    return isinstance(value, str) and bool(value) and value.isprintable()
