"""From what a user names to a source: chosen by what the path holds."""

from __future__ import annotations

from pathlib import Path

from distill.data.sources import Source
from distill.data.sources.folder import FolderSource
from distill.data.sources.openpeople import OpenPeopleSource


def open_source(name: str) -> Source:
    """The photographs that ``name`` stands for: a folder of people, or ``openpeople``.

    Raises:
        UserError: no such folder, or nothing in it.
    """
    if name == "openpeople" and not Path(name).is_dir():
        return OpenPeopleSource()
    return FolderSource(Path(name))
