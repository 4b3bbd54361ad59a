"""Options that belong together as one object: `typer` sees each of them, a command a dataclass.

A parameter of a command whose type is a dataclass stands for the fields of that, which are
annotated as parameters are. So a command has few parameters, commands share options by naming their
group, and a group knows what is made of it.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_type_hints


def one_by_one(command: Callable[..., None]) -> Callable[..., None]:
    """The same command for `typer`: in place of each group its fields, by name."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Any]] = {
        name: kind
        for name, kind in hints.items()
        if isinstance(kind, type) and dataclasses.is_dataclass(kind)
    }

    @functools.wraps(command)
    def called(**words: Any) -> None:
        for name, group in groups.items():
            theirs = words.keys() & {field.name for field in dataclasses.fields(group)}
            words[name] = group(**{field: words.pop(field) for field in theirs})
        command(**words)

    shown = list(_parameters(command, hints, groups))
    called.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return called


def _parameters(
    command: Callable[..., None], hints: Mapping[str, Any], groups: Mapping[str, type[Any]]
) -> Iterator[inspect.Parameter]:
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name in groups:
            yield from _fields(groups[parameter.name])
        else:
            yield _by_name(parameter.name, parameter.default, hints[parameter.name])


def _fields(group: type[Any]) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    for field in dataclasses.fields(group):
        default = field.default
        if default is dataclasses.MISSING:
            default = inspect.Parameter.empty
        yield _by_name(field.name, default, hints[field.name])


def _by_name(name: str, default: Any, annotation: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)
