"""A part of a file, to be read later."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from distill.data.images import Unusable
from distill.data.sources.paths import opened
from distill.errors import UserError


class Span(NamedTuple):
    """Some bytes of a file.

    Attributes:
        offset: of the first of them.
        size: how many there are.
    """

    offset: int
    size: int

    def read(self, path: Path) -> bytes:
        """These bytes of the file at ``path``.

        Raises:
            Unusable: it is gone, or shorter than it was.
        """
        try:
            with opened(path) as (file, _):
                file.seek(self.offset)
                data = file.read(self.size)
        except UserError as fault:
            raise Unusable(fault.what) from None
        except OSError as fault:
            raise Unusable(f"cannot be read: {fault.strerror or fault}") from None
        if len(data) < self.size:
            raise Unusable("the file has become shorter since it was listed")
        return data
