"""Which runs a sweep makes: the settings that each of them has of its own."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from distill.config import Config, as_override, parse_overrides
from distill.errors import UserError

MOST_POINTS = 1000
Point = dict[str, Any]


def grid(words: Sequence[str]) -> list[Point]:
    """Every combination of `a.b=1,2,3` words, the last one varying fastest.

    Raises:
        UserError: a word of another form, two of one setting, or more than `MOST_POINTS` runs.
    """
    _check_once(words)
    axes = [_axis(word) for word in words]
    if math.prod(len(values) for _, values in axes) > MOST_POINTS:
        raise UserError(f"a grid of more than {MOST_POINTS} runs", fix="use fewer values")
    keys = [key for key, _ in axes]
    return [
        dict(zip(keys, values, strict=True)) for values in itertools.product(*(v for _, v in axes))
    ]


def draws(words: Sequence[str], count: int, seed: int) -> list[Point]:
    """``count`` random points: of `a.b=1,2,3` one of the values, of `a.b=0.1..10` a number between.

    Numbers whose range spans a factor of ten or more are drawn evenly in their logarithm. Those of
    a setting that takes whole numbers are whole.

    Raises:
        UserError: a word of another form, or two of one setting.
    """
    if count > MOST_POINTS:
        raise UserError(f"--random {count}: more than {MOST_POINTS} runs", fix="ask for fewer")
    _check_once(words)
    chance = random.Random(seed)  # noqa: S311 - no secret
    return [dict(_drawn(word, chance) for word in words) for _ in range(count)]


def _check_once(words: Sequence[str]) -> None:
    """Refuse a setting in two words: the last one alone would count, in runs that are alike."""
    counts = Counter(_key(word) for word in words)
    for key, count in counts.items():
        if count > 1:
            raise UserError(f"{key}: varied {count} times", fix=f"write one word, {key}=1,2,3")


def _key(word: str) -> str:
    return ".".join(name.strip() for name in word.partition("=")[0].split("."))


def _drawn(word: str, chance: random.Random) -> tuple[str, Any]:
    key = _key(word)
    ends = _range(word)
    if ends is None:
        return key, chance.choice(_axis(word)[1])
    low, high = ends
    whole = _is_whole(key)
    if not -math.inf < low < high < math.inf:
        raise UserError(f"{word!r}: an empty range", fix="write the smaller number first")
    if whole and not (low.is_integer() and high.is_integer()):
        raise UserError(f"{word!r}: {key} takes whole numbers", fix=f"write {key}=1..10")
    if low > 0 and high / low >= 10:
        drawn = math.exp(chance.uniform(math.log(low), math.log(high)))
    else:
        drawn = chance.randint(int(low), int(high)) if whole else chance.uniform(low, high)
    return key, round(drawn) if whole else float(f"{drawn:.4g}")


def _range(word: str) -> tuple[float, float] | None:
    """Both numbers of `a.b=0.1..10`; None of other words: in a path `..` is the folder above."""
    low, dots, high = word.partition("=")[2].partition("..")
    try:
        return (float(low), float(high)) if dots else None
    except ValueError:
        return None


def _is_whole(key: str) -> bool:
    """Whether a setting, `section.name`, takes whole numbers alone."""
    section, _, name = key.partition(".")
    of_section = Config.model_fields.get(section)
    fields = getattr(of_section.annotation, "model_fields", {}) if of_section else {}
    return name in fields and fields[name].annotation is int


def _axis(word: str) -> tuple[str, list[Any]]:
    """`a.b=1,2` to `("a.b", [1, 2])`, as overrides have them."""
    key = _key(word)
    _, equals, text = word.partition("=")
    values = [_value(key, part) for part in split_values(text)]
    if not equals or not values:
        raise UserError(f"{word!r}: nothing to vary", fix="write a.b=1,2,3 (or a.b=0.1..10)")
    return key, values


def split_values(text: str) -> list[str]:
    """Parts between commas that stand in no bracket or quotes."""
    parts, depth, quote = [""], 0, ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        else:
            depth += (char in "[{") - (char in "]}")
        if char == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts if part.strip()]


def _value(key: str, text: str) -> Any:
    tree: Any = parse_overrides([f"{key}={text}"])
    for name in key.split("."):
        tree = tree[name]
    return tree


def overrides_of(point: Mapping[str, Any]) -> list[str]:
    """A point as words of `load_config`."""
    return [as_override(key, value) for key, value in point.items()]
