"""TOML file plus `a.b=c` overrides to a checked `Config`; every mistake is reported at once."""

from __future__ import annotations

import os
import textwrap
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import ValidationError

from distill.config.explain import UTF8_FIX, explain, file_names_here
from distill.config.tree import Config
from distill.errors import UserError

Tree: TypeAlias = dict[str, Any]

_TOML_WANTED = "give a text file like that of `pairdistill train --print-config`"


def load_config(path: Path | str | None = None, overrides: Iterable[str] = ()) -> Config:
    """The configuration of a run.

    Args:
        path: TOML file; `None` starts from the defaults.
        overrides: `section.field=value` words, applied in order; a value is TOML
            (`3`, `true`, `"text"`, `{start = 0.0, end = 1.0, over_steps = 100}`), and a bare word
            is text.

    Raises:
        UserError: a file that cannot be read, unknown keys (the nearest valid one is named), wrong
            types or ranges; all of them in one message.
    """
    tree = _read_toml(Path(path)) if path is not None else {}
    merged = _merge(tree, parse_overrides(overrides))
    try:
        config = Config.model_validate(merged)
    except ValidationError as error:
        raise explain(error) from None
    _check_file_names(config)
    return config


def parse_overrides(words: Iterable[str]) -> Tree:
    """`["loss.weight=2", "run.dir=runs/a"]` to `{"loss": {"weight": 2}, "run": {"dir": "runs/a"}}`.

    Raises:
        UserError: a word without `=` or with an empty part in its key.
    """
    tree: Tree = {}
    for word in words:
        key, equals, text = word.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise UserError(f"override {word!r} is not of the form a.b=c", fix="e.g. loss.weight=2")
        tree = _merge(tree, _nest(parts, _value(text.strip())))
    return tree


def as_override(key: str, value: Any) -> str:
    """`key=value` such that `parse_overrides` gives back exactly ``value``, whatever it holds."""
    return f"{key}={toml_value(value)}"


def dump_toml(config: Config) -> str:
    """`config` as TOML text that `load_config` reads back to an equal tree."""
    sections = config.model_dump()
    return "\n".join(_section_lines(name, values) for name, values in sections.items())


def by_key(config: Config) -> dict[str, Any]:
    """Every setting under its name `section.key`, as plain data."""
    sections = config.model_dump().items()
    return {f"{name}.{key}": value for name, values in sections for key, value in values.items()}


def explained_toml(config: Config) -> str:
    """`dump_toml` with what each setting means as a comment in front of it."""
    lines = []
    for name, values in config.model_dump().items():
        section = getattr(config, name)
        lines += [f"# {_flowing(section.__doc__)}", f"[{name}]"]
        for key, value in values.items():
            meaning = _flowing(type(section).model_fields[key].description)
            lines += [*textwrap.wrap(meaning, 98, initial_indent="# ", subsequent_indent="# ")]
            lines.append(f"{key} = {toml_value(value)}")
        lines.append("")
    return "\n".join(lines)


def _flowing(text: str | None) -> str:
    """Text of a docstring without its line breaks and the marks of code."""
    return " ".join((text or "").replace("`", "").split())


def _check_file_names(config: Config) -> None:
    """Refuse letters that file names cannot have here: in the locale C without Python's UTF-8 mode.

    Raises:
        UserError: a text that is no file name; the field is named.
    """
    for key, value in by_key(config).items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and not _is_file_name(text):
                raise UserError(f"{key} = {text!r}: {file_names_here()}", fix=UTF8_FIX)


def _is_file_name(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def _read_toml(path: Path) -> Tree:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        fix = "settings a.b=c come after CONFIG.toml" if "=" in str(path) else "check the path"
        raise UserError(f"configuration {path} does not exist", fix=fix) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        what = f"configuration {path} cannot be read: {reason}"
        raise UserError(what, fix=_TOML_WANTED) from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"configuration {path} is not TOML: {error}", fix=_TOML_WANTED) from None


def _value(text: str) -> Any:
    """A TOML value, or the text itself where it is none (a bare word or a path)."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    # A newline in the text could smuggle in further keys: then it is text as well.
    return parsed["value"] if parsed.keys() == {"value"} else text


def _nest(parts: list[str], value: Any) -> Tree:
    *parents, last = parts
    tree: Tree = {last: value}
    for parent in reversed(parents):
        tree = {parent: tree}
    return tree


def _merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> Tree:
    """`base` with `change` laid over it; tables are merged, everything else is replaced."""
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        both_tables = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(old, value) if both_tables else value  # type: ignore[arg-type]
    return merged


def _section_lines(name: str, values: Mapping[str, Any]) -> str:
    lines = [f"[{name}]", *(f"{key} = {toml_value(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def toml_value(value: Any) -> str:
    """A value of the settings as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _toml_text(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k} = {toml_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    assert isinstance(value, int | float), value
    return repr(value)


def _toml_text(text: str) -> str:
    """A TOML basic string; everything that could end it or the line is escaped."""
    plain = {'"': '\\"', "\\": "\\\\"}
    body = "".join(plain.get(c) or (c if c.isprintable() else f"\\U{ord(c):08X}") for c in text)
    return f'"{body}"'
