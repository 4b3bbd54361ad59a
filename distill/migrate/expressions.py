"""Values of Python's expressions, as far as a configuration needs them; nothing is run."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

MAX_BITS = 256
"""Of a whole number."""
MAX_LENGTH = 10_000
"""Of a text or list that is put together."""
MAX_DEPTH = 50
"""Of expressions inside expressions."""

_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


class Found(NamedTuple):
    """What was assigned to a name.

    Attributes:
        value: a number, text, list or tuple of such, True, False or None.
        line: from 1.
        why: why the value is not known; empty where it is.
    """

    value: Any
    line: int
    why: str = ""


class NotRead(Exception):
    """An expression that is not understood; the reason is one line."""


def value_of(
    node: ast.expr, names: Mapping[str, Found], config: Mapping[str, Found], depth: int = 0
) -> Any:
    """The value of an expression.

    Args:
        node: the expression.
        names: what was assigned to names so far.
        config: and to names of ``config``.
        depth: expressions that it stands in.

    Raises:
        NotRead: it is not understood.
    """

    def inside(other: ast.expr) -> Any:
        return value_of(other, names, config, depth + 1)

    if depth > MAX_DEPTH:
        raise NotRead("expressions too deep")
    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None as value):
            return _bounded(value)
        case ast.List(elts=elements):
            return [_single(inside(each)) for each in elements]
        case ast.Tuple(elts=elements):
            return tuple(_single(inside(each)) for each in elements)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _UNARY[type(op)](_number(inside(operand)))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _binary(op, inside(left), inside(right))
        case ast.Name(id=name):
            return _of(names, name)
    key = key_of(node)
    if key is not None:
        return _of(config, key)
    raise NotRead(f"{type(node).__name__} is not understood")


def line_of(node: ast.AST) -> int:
    """Where it begins, from 1."""
    line: int = getattr(node, "lineno", 1)
    return line


def key_of(node: ast.expr) -> str | None:
    """NAME of ``config.NAME`` or ``config["NAME"]``."""
    match node:
        case ast.Attribute(value=ast.Name(id="config"), attr=name):
            return name
        case ast.Subscript(value=ast.Name(id="config"), slice=ast.Constant(value=str() as name)):
            return name
    return None


def _of(names: Mapping[str, Found], name: str) -> Any:
    found = names.get(name)
    if found is None:
        raise NotRead(f"{name} is not known")
    if found.why:
        raise NotRead(f"{name} is not known: {found.why} (line {found.line})"[:200])
    return found.value


def _single(value: Any) -> Any:
    if isinstance(value, list | tuple):
        raise NotRead("a list in a list")
    return value


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NotRead("arithmetic with what is no number")
    return value


def _binary(op: ast.operator, left: Any, right: Any) -> Any:
    joins = isinstance(op, ast.Add) and any(
        isinstance(left, kind) and isinstance(right, kind) for kind in (str, list, tuple)
    )
    if not joins:
        left, right = _number(left), _number(right)
    if isinstance(op, ast.Pow) and isinstance(left, int) and isinstance(right, int):
        _within(abs(right) * left.bit_length())  # before it is computed
    try:
        return _bounded(_BINARY[type(op)](left, right))
    except ArithmeticError as fault:
        raise NotRead(str(fault.args[-1])) from None


def _within(bits: int) -> None:
    if bits > MAX_BITS:
        raise NotRead("a number too large")


def _bounded(value: Any) -> Any:
    """The value, where it is no larger than any setting is."""
    if isinstance(value, complex):
        raise NotRead("no real number")
    if isinstance(value, int):
        _within(value.bit_length())
    if isinstance(value, str | list | tuple) and len(value) > MAX_LENGTH:
        raise NotRead("a text or list too long")
    return value
