"""Tensors of a checkpoint, by rows and elements: files are mapped, only what is copied is read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from distill.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import ExitStack
    from pathlib import Path

    from distill.checkpoint.find import Found
    from distill.checkpoint.manifest import Part


class Place(NamedTuple):
    """Where a tensor stands: a safetensors file, and its key there."""

    file: Path
    key: str


class Reader:
    """What stands under the keys of a checkpoint, whether whole or in ranges of rows.

    Args:
        origin: the checkpoint, for messages.
        places: of everything that stands in one piece, by key.
        parts: the pieces of a key; none where it is unknown.
        stack: closes the files.
    """

    def __init__(
        self,
        origin: Path,
        places: Mapping[str, Place],
        parts: Callable[[str], list[Part]],
        stack: ExitStack,
    ) -> None:
        self._origin = origin
        self._places = places
        self._parts = parts
        self._stack = stack
        self._files: dict[Path, Any] = {}

    @classmethod
    def of(cls, found: Found, stack: ExitStack) -> Reader:
        """Of a verified checkpoint."""
        entries = found.manifest.tensors.items()
        places = {key: Place(found.path / entry.file, key) for key, entry in entries}
        return cls(found.path, places, found.manifest.parts, stack)

    def tensor(self, key: str) -> torch.Tensor:
        """The piece under ``key``, a view of the mapped file.

        Raises:
            UserError: it is not there, or the file cannot be read.
        """
        place = self._places.get(key)
        if place is None:
            raise self._unreadable(f"{key} is not listed")
        try:
            if place.file not in self._files:
                self._files[place.file] = self._stack.enter_context(safe_open(place.file, "pt"))
            tensor: torch.Tensor = self._files[place.file].get_tensor(place.key)
        except (SafetensorError, OSError) as error:
            raise self._unreadable(error) from error
        return tensor

    def dtype(self, key: str) -> torch.dtype:
        """The type of a tensor, all parts of which have one."""
        return self.tensor(self.parts(key)[0].key).dtype

    def _unreadable(self, why: object) -> UserError:
        return UserError(
            f"checkpoint {str(self._origin)!r} cannot be read: {why}",
            fix="remove it, and the one before it is used",
        )

    def parts(self, key: str) -> list[Part]:
        """Where the rows of a tensor stand.

        Raises:
            UserError: nowhere.
        """
        parts = self._parts(key)
        if not parts:
            raise self._unreadable(f"{key} is not listed")
        return parts

    def copy_elements(self, key: str, start: int, out: torch.Tensor) -> None:
        """Copy the elements [start, start + len(out)) of the flattened tensor into ``out``."""
        parts, stop = self.parts(key), start + len(out)
        width = math.prod(self.tensor(parts[0].key).shape[1:])
        for part in parts:
            first, last = max(start, part.first * width), min(stop, part.stop * width)
            if first < last:  # files of no other part are opened: ranks and parts may be thousands
                values = self.tensor(part.key).view(-1)
                at = part.first * width
                out[first - start : last - start] = values[first - at : last - at]

    def rows(
        self, key: str, numbers: torch.Tensor, within: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Copies of rows of a tensor, in the order of ``numbers``, (n,) int64.

        Args:
            key: of the tensor.
            numbers: of the rows.
            within: place in each row's next dimension, (n,) int64; None for all of it. What is not
                asked for is not read.
        """
        parts = self.parts(key)
        like = self.tensor(parts[0].key)
        out = like.new_empty((len(numbers), *like.shape[1 if within is None else 2 :]))
        for part in parts:
            here = (numbers >= part.first) & (numbers < part.stop)
            if not here.any():
                continue
            values, rows = self.tensor(part.key), numbers[here] - part.first
            out[here] = values[rows] if within is None else values[rows, within[here]]
        return out
