"""A configuration of arcface_torch, which is a Python module, read without being run.

It makes ``config = edict()`` and assigns to ``config.NAME``. What is understood: numbers, texts,
True, False, None, lists, tuples, and arithmetic of those and of names that were assigned before. A
value of another kind is left open, with its line, and is a mistake only where it is asked for. A
statement of another kind could change anything, and is one at once.
"""

from __future__ import annotations

import ast
import warnings
from bisect import bisect_left
from pathlib import Path

from distill.errors import UserError
from distill.migrate.expressions import Found, NotRead, key_of, line_of, value_of

MAX_BYTES = 1 << 16
"""Of a file; those of arcface_torch have about 1,000."""
NAME = "config"
_MAKER, _MODULE = "EasyDict", "easydict"


def read_file(path: Path) -> dict[str, Found]:
    """What ``path`` assigns to ``config``, by name.

    Raises:
        UserError: it cannot be read, or as `read_text`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", fix=_WANTED) from error
    if len(data) > MAX_BYTES:
        raise UserError(f"{path}: larger than {MAX_BYTES} bytes", fix=_WANTED)
    try:
        return read_text(data.decode("utf-8-sig"), path.name)
    except UnicodeDecodeError as error:
        line = _lines_in(data[: error.start].decode("latin-1"))
        raise UserError(f"{path.name}:{line}: no UTF-8 text", fix=_WANTED) from None


def read_text(text: str, name: str) -> dict[str, Found]:
    """What the text of a module assigns to ``config``, by name.

    Raises:
        UserError: no Python, statements that are not understood, or no ``config``; ``name`` and
            the line are named.
    """
    module = _Module(name)
    for statement in _parsed(text, name).body:
        module.take(statement)
    if module.config is None:
        raise UserError(f"{name}:1: no `{NAME} = edict()` in it", fix=_WANTED)
    return module.config


_WANTED = "name a configuration of arcface_torch, a file like configs/ms1mv3_r50.py"
_PLAIN = f"write it as plain lines, {NAME}.NAME = VALUE"


def _parsed(text: str, name: str) -> ast.Module:
    before, zero, _ = text.partition("\0")
    if zero:
        where = f"{name}:{_lines_in(before)}"
        raise UserError(f"{where}: no Python: a zero byte", fix=_WANTED)
    try:
        return _tree(text)
    except SyntaxError as error:
        where = f"{name}:{error.lineno or 1}"
        raise UserError(f"{where}: no Python: {error.msg}", fix=_WANTED) from None
    except _TOO_DEEP:
        lines = text.splitlines(keepends=True)
        first = bisect_left(range(len(lines)), True, key=lambda n: _is_too_deep(lines[: n + 1])) + 1
        raise UserError(f"{name}:{first}: expressions too deep to be read", fix=_PLAIN) from None


_TOO_DEEP = (RecursionError, MemoryError)
"""What Python says where the stack of its parser, which is limited, is at its end."""


def _tree(text: str) -> ast.Module:
    with warnings.catch_warnings(action="ignore"):  # of backslashes in texts that mean nothing
        return ast.parse(text)


def _is_too_deep(lines: list[str]) -> bool:
    try:
        _tree("".join(lines))
    except _TOO_DEEP:
        return True
    except SyntaxError:  # the text goes on
        return False
    return False


def _lines_in(text: str) -> int:
    return text.count("\n") + 1


class _Module:
    """The names of a module while its statements are gone through."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.config: dict[str, Found] | None = None
        self._names: dict[str, Found] = {}
        self._makers: set[str] = set()

    def take(self, statement: ast.stmt) -> None:
        """One statement."""
        match statement:
            case ast.Pass() | ast.Expr(value=ast.Constant()):
                pass
            case ast.Import() | ast.ImportFrom():
                self._import(statement)
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self._assign(target, value)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self._assign(target, value)
            case ast.AugAssign(target=target, op=op, value=value):
                self._assign(target, ast.copy_location(ast.BinOp(target, op, value), statement))
            case _:
                raise self._wrong(statement, "only assignments are read, nothing is run")

    def _wrong(self, node: ast.AST, what: str) -> UserError:
        return UserError(f"{self.name}:{line_of(node)}: {what}", fix=_PLAIN)

    def _import(self, statement: ast.Import | ast.ImportFrom) -> None:
        for each in statement.names:
            bound = each.asname or each.name.partition(".")[0]
            if bound in (NAME, "*"):
                raise self._wrong(statement, f"{NAME} comes from another file, which is not read")
            self._names[bound] = Found(None, statement.lineno, "it is imported")
            self._makers.discard(bound)
            if isinstance(statement, ast.ImportFrom):
                if (statement.module, each.name) == (_MODULE, _MAKER):
                    self._makers.add(bound)
            elif each.name == _MODULE:
                self._makers.add(f"{bound}.{_MAKER}")

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name) and target.id == NAME:
            self.config = self._made(value)
            return
        if isinstance(target, ast.Name):
            self._names[target.id] = self._found(value)
            self._makers.discard(target.id)
            return
        key = key_of(target)
        if key is None or self.config is None:
            what = f"to no name and no part of `{NAME}`" if key is None else "before that is made"
            raise self._wrong(target, f"an assignment {what}")
        self.config[key] = self._found(value)

    def _made(self, value: ast.expr) -> dict[str, Found]:
        """The settings of ``edict()``, ``edict({...})`` or ``edict(NAME=...)``."""
        if not isinstance(value, ast.Call) or _dotted(value.func) not in self._makers:
            raise self._wrong(value, f"`{NAME}` is made by another than {_MODULE}'s {_MAKER}")
        made: dict[str, Found] = {}
        for each in value.args:
            if not isinstance(each, ast.Dict) or len(value.args) > 1:
                raise self._wrong(each, f"{_MAKER} is given what is not read")
            for key, inside in zip(each.keys, each.values, strict=True):
                if not (isinstance(key, ast.Constant) and isinstance(key.value, str)):
                    raise self._wrong(inside, "a key that is no text")
                made[key.value] = self._found(inside)
        for word in value.keywords:
            if word.arg is None:
                raise self._wrong(word.value, f"{_MAKER} is given what is not read")
            made[word.arg] = self._found(word.value)
        return made

    def _found(self, node: ast.expr) -> Found:
        try:
            return Found(value_of(node, self._names, self.config or {}), line_of(node))
        except NotRead as fault:
            return Found(None, line_of(node), str(fault))


def _dotted(node: ast.expr) -> str:
    """``A`` or ``A.B``; empty for another expression."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=ast.Name(id=name), attr=inside):
            return f"{name}.{inside}"
    return ""
