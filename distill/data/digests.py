"""Digests by which the files of a pack are known."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

END_BYTES = 1 << 16
"""Bytes at either end of a shard by which it is known when it is opened, of whatever size it is."""


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def ends_sha256(path: Path) -> str:
    """SHA-256 of the beginning and the end of a file: enough to tell one shard from another."""
    with path.open("rb") as file:
        content = file.read(END_BYTES)
        file.seek(-min(END_BYTES, path.stat().st_size), os.SEEK_END)
        return hashlib.sha256(content + file.read()).hexdigest()
