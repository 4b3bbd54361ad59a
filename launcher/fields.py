"""What may stand in a batch script: an allow-list for each field, and no control character at all.

Quoting alone does not do: a newline inside quotes still begins a new line of the script, and Slurm
reads `#SBATCH` at the start of a line.
"""

from __future__ import annotations

import os
import re

from distill.errors import UserError

_WORD = r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}"
_HOST = r"[A-Za-z0-9][A-Za-z0-9_.-]*(\[\d+(-\d+)?(,\d+(-\d+)?)*\][A-Za-z0-9_.-]*)*"
_ALLOWED = {
    "partition": (_WORD, "letters, digits and _.+-"),
    "account": (_WORD, "letters, digits and _.+-"),
    "qos": (_WORD, "letters, digits and _.+-"),
    "site": (r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", "letters, digits and _-"),
    "constraint": (r"[A-Za-z0-9_][A-Za-z0-9_.&|*+-]{0,127}", "features joined by & or |"),
    "reservation": (_WORD, "letters, digits and _.+-"),
    "gpu-type": (_WORD, "letters, digits and _.+-"),
    "exclude": (rf"(?=.{{1,1024}}$){_HOST}(,{_HOST})*", "hosts as in node7 or node[1-3,7],big2"),
    "module": (r"[A-Za-z0-9][A-Za-z0-9_./+-]{0,127}", "letters, digits and _./+-"),
    "variable": (r"[A-Za-z_][A-Za-z0-9_]{0,127}", "letters, digits and _"),
    "after": (r"[0-9]{1,10}(_[0-9]{1,7})?", "the number of a job"),
}


def checked(field: str, value: str, *, name: str = "") -> str:
    """``value``, if it is one that ``field`` may have.

    Args:
        field: a key of the allow-list.
        value: what a person or a file gave.
        name: what to call it in an error; ``--FIELD`` by default.

    Raises:
        UserError: anything else.
    """
    pattern, words = _ALLOWED[field]
    if re.fullmatch(pattern, value, re.ASCII):
        return value
    raise UserError(f"{name or f'--{field}'} = {value!r}: not a name", fix=f"use {words}")


def check_text(name: str, value: str) -> None:
    """What can stand between quotes in a script: no control characters.

    Raises:
        UserError: there is one.
    """
    if not value.isprintable():
        raise UserError(f"{name} = {value!r}: holds a control character", fix="remove it")


def check_path(name: str, value: str) -> None:
    """A path that Slurm takes as it is: it would replace ``%`` and read ``\\`` as an escape.

    Raises:
        UserError: it holds one of them, or a control character.
    """
    check_text(name, value)
    for forbidden in "%\\":
        if forbidden in value:
            raise UserError(
                f"{name} = {value!r}: Slurm gives {forbidden} in a path a meaning of its own",
                fix="choose a path without it",
            )


def check_folder(name: str, value: str) -> None:
    """A folder whose copy of the sources can stand in PYTHONPATH, where colons part the folders.

    Raises:
        UserError: it holds one.
    """
    if os.pathsep in value:
        raise UserError(
            f"{name} = {value!r}: Python reads {os.pathsep} as the end of a folder's name, and"
            " would not find the copy of the sources there",
            fix="choose a path without it",
        )


def job_name(text: str) -> str:
    """A job's name from any text, in the characters that Slurm and people like."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.")
    return f"pd-{plain[:48] or 'run'}"
