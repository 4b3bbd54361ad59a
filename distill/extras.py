"""Packages that only some uses need, and how they are installed beside what is here.

Never by `pip install "pairdistill[NAME]"`: pip would also bring what FFCV asks for and we leave
out, such as a second OpenCV over ours, and other versions than those tested together.
"""

from __future__ import annotations

import re
import shlex
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

CONSTRAINTS = Path(__file__).resolve().parent.parent / "constraints.txt"
"""The tested versions; there where pairdistill runs from its repository."""


def how_to_install(extra: str) -> str:
    """The command that installs the packages of an extra of pyproject.toml.

    From the repository in their tested versions; elsewhere within their bounds, and with the torch
    that is here, which timm's torchvision would change.
    """
    wanted = _packages(extra)
    if CONSTRAINTS.is_file():
        names = [_name(package) for package in wanted]
        return shlex.join(["pip", "install", "-c", str(CONSTRAINTS), *names])
    if extra == "timm":
        wanted.append(f"torch=={version('torch')}")
    return shlex.join(["pip", "install", *wanted])


def _packages(extra: str) -> list[str]:
    """What an extra asks for, with bounds, by the metadata of the installed pairdistill."""
    try:
        asked = [line.partition(";") for line in requires("pairdistill") or []]
    except PackageNotFoundError:  # a copy of the sources; most extras are called as their package
        return [extra]
    return [what.strip() for what, _, when in asked if f"extra == {extra!r}" in _quoted(when)]


def _quoted(marker: str) -> str:
    return marker.replace('"', "'")


def _name(package: str) -> str:
    return re.split(r"[<>=!~\[ ]", package)[0]
