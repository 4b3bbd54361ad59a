"""What is wrong with a configuration, in the user's words."""

from __future__ import annotations

import difflib
import sys
import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from distill.config.tree import Config
from distill.errors import UserError

UTF8_FIX = "set PYTHONUTF8=1, or LC_ALL=C.UTF-8"
_MEMBERS = {"float", "constrained-float", "int", "str", "bool"}
"""What pydantic calls the members of a union, besides sections and `list[str]`."""
_TYPES = {"bool_type": "must be true or false", "int_type": "must be a whole number"}
"""What pydantic calls a valid boolean and a valid integer."""
_BOUNDS = {"ge": "at least", "gt": "greater than", "le": "at most", "lt": "less than"}


def explain(error: ValidationError) -> UserError:
    """All mistakes in one `UserError`: path, value, and what would be right."""
    lines: dict[str, str] = {}
    for detail in error.errors():
        path = field_path(detail["loc"])
        # A union reports each of its members; the first one, the plain number, says enough.
        lines.setdefault(path, _line(path, detail))
    for path in list(lines):
        # Where a table was given for a number or a ramp, what is wrong inside the table matters.
        if any(other.startswith(f"{path}.") for other in lines):
            del lines[path]
    return UserError("; ".join(lines.values()), fix="see `pairdistill train --print-config`")


def field_path(loc: tuple[int | str, ...]) -> str:
    """`("loss", "weight", "Ramp", "start")` to `"loss.weight.start"`: names of fields only."""
    names: list[str] = []
    kinds: list[type[BaseModel]] = [Config]
    for part in map(str, loc):
        if any(part in kind.model_fields for kind in kinds):
            names.append(part)
            kinds = _sections_below(kinds, part)
        elif not (part in _MEMBERS or "[" in part or part in {kind.__name__ for kind in kinds}):
            names.append(part)
    return ".".join(names)


def _sections_below(kinds: list[type[BaseModel]], name: str) -> list[type[BaseModel]]:
    fields = [kind.model_fields[name] for kind in kinds if name in kind.model_fields]
    found = [inner for field in fields for inner in _models_in(field.annotation)]
    return found or []


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return [m for part in typing.get_args(annotation) for m in _models_in(part)]
    return []


def _line(path: str, detail: ErrorDetails) -> str:
    if detail["type"] == "extra_forbidden":
        return f"unknown key {path}{_did_you_mean(path)}"
    if detail["type"] == "missing":
        return f"{path} is missing"
    if detail["type"] == "model_type":
        return f"{path} = {detail['input']!r}: must be a table of settings"
    return f"{path} = {detail['input']!r}: {_rule(detail)}"


def _rule(detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    for name, words in _BOUNDS.items():
        if name in context:
            return f"must be {words} {context[name]:g}"
    if "expected" in context:
        return f"must be one of {context['expected']}"
    if detail["type"] == "string_too_short":
        return "must not be empty"
    if detail["type"] == "string_unicode":
        if sys.getfilesystemencoding() == "utf-8":
            return "is no UTF-8, which settings are (rename it)"
        return f"{file_names_here()} ({UTF8_FIX})"
    return _TYPES.get(detail["type"]) or detail["msg"].replace("Input should be", "must be")


def file_names_here() -> str:
    """Why settings, which are UTF-8, and a file name cannot be the same."""
    return f"settings are UTF-8, and file names here {sys.getfilesystemencoding()}"


def _did_you_mean(path: str) -> str:
    *_, last = path.split(".")
    valid = known_keys()
    # A misspelt field in its section first, then the same field in any other section.
    near = difflib.get_close_matches(path, valid, n=1, cutoff=0.6)
    same_name = [key for key in valid if key.rpartition(".")[2] == last]
    best = [*same_name, *near]
    return f" (did you mean {best[0]}?)" if best else f" (valid: {', '.join(_siblings(path))})"


def _siblings(path: str) -> list[str]:
    parent = path.rpartition(".")[0]
    inside = [key for key in known_keys() if parent and key.rpartition(".")[0] == parent]
    return inside or list(Config.model_fields)


def known_keys() -> list[str]:
    """Every `section.field` of the configuration, the sections, and the keys of ramps."""
    return list(_keys_below("", Config))


def _keys_below(prefix: str, section: type[BaseModel]) -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield prefix + name
        for inner in _models_in(field.annotation)[:1]:
            yield from _keys_below(f"{prefix}{name}.", inner)
