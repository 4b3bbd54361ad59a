"""Groups of options: `typer` sees each option, the command one object."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner, Result

from distill.cli.groups import one_by_one
from distill.cli.pack_options import PackWords
from distill.data.pack import PackOptions


@dataclass(frozen=True)
class Paint:
    colour: Annotated[str, typer.Option(help="Of the wall.")]
    coats: Annotated[int, typer.Option(min=1, help="Layers.")] = 2
    names: Annotated[list[str] | None, typer.Option()] = None


SEEN: list[tuple[Path, Paint, bool]] = []


def paint_command(
    wall: Path,
    *,
    paint: Paint,
    dry: Annotated[bool, typer.Option("--dry", help="Wait.")] = False,
) -> None:
    """Paint a wall."""
    SEEN.append((wall, paint, dry))


def paint(*words: str) -> Result:
    app = typer.Typer(add_completion=False)
    app.command()(one_by_one(paint_command))
    return CliRunner().invoke(app, list(words), env={"COLUMNS": "100", "TERM": "dumb"})


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--colour", "red"], Paint("red")),
        (
            ["--coats", "3", "--colour", "red", "--names", "a", "--names", "b"],
            Paint("red", 3, ["a", "b"]),
        ),
    ],
)
def test_a_command_gets_the_object(words: list[str], expected: Paint) -> None:
    SEEN.clear()
    done = paint("north", *words, "--dry")
    assert done.exit_code == 0, done.output
    assert [(Path("north"), expected, True)] == SEEN


def test_fields_stand_where_the_group_does_with_their_own_help() -> None:
    text = paint("--help").stdout
    assert "Paint a wall." in text
    assert re.findall(r"--(\w+)", text) == ["colour", "coats", "names", "dry", "help"]
    assert "Layers." in text
    assert "default: 2" in text


def test_a_field_without_a_default_must_be_given_and_bounds_hold() -> None:
    assert paint("north").exit_code == 2
    assert paint("north", "--colour", "red", "--coats", "0").exit_code == 2


def test_called_from_python_what_is_left_out_is_as_by_default() -> None:
    SEEN.clear()
    one_by_one(paint_command)(wall=Path("north"), colour="red")
    assert [(Path("north"), Paint("red"), False)] == SEEN


def test_options_of_pack_that_are_not_given_are_those_of_the_library() -> None:
    assert PackWords().options() == PackOptions()
