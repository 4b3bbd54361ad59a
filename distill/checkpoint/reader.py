"""Tensors of a checkpoint, by rows and elements: files are mapped, only what is copied is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from distill.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

    from distill.checkpoint.find import Found
    from distill.checkpoint.manifest import Part


class Reader:
    """What stands under the keys of a checkpoint, whether whole or in ranges of rows.

    Args:
        found: the checkpoint.
        stack: closes the files.
    """

    def __init__(self, found: Found, stack: ExitStack) -> None:
        self._found = found
        self._stack = stack
        self._files: dict[str, Any] = {}

    def tensor(self, key: str) -> torch.Tensor:
        """What a shard has under ``key``, a view of the mapped file.

        Raises:
            UserError: it is not there, or the file cannot be read.
        """
        entry = self._found.manifest.tensors.get(key)
        try:
            if entry is None:
                raise SafetensorError(f"{key} is not listed")
            if entry.file not in self._files:
                opened = safe_open(self._found.path / entry.file, "pt")
                self._files[entry.file] = self._stack.enter_context(opened)
            tensor: torch.Tensor = self._files[entry.file].get_tensor(key)
        except (SafetensorError, OSError) as error:
            raise self._unreadable(error) from error
        return tensor

    def _unreadable(self, why: object) -> UserError:
        return UserError(
            f"checkpoint {str(self._found.path)!r} cannot be read: {why}",
            fix="remove it, and the one before it is used",
        )

    def parts(self, key: str) -> list[Part]:
        """Where the rows of a tensor stand.

        Raises:
            UserError: nowhere.
        """
        parts = self._found.manifest.parts(key)
        if not parts:
            raise self._unreadable(f"{key} is not listed")
        return parts

    def copy_elements(self, key: str, start: int, out: torch.Tensor) -> None:
        """Copy the elements [start, start + len(out)) of the flattened tensor into ``out``."""
        at, stop = 0, start + len(out)
        for part in self.parts(key):
            values = self.tensor(part.key).view(-1)
            first, last = max(start, at), min(stop, at + len(values))
            if first < last:
                out[first - start : last - start] = values[first - at : last - at]
            at += len(values)

    def rows(self, key: str, numbers: torch.Tensor) -> torch.Tensor:
        """Copies of rows of a tensor, in the order of ``numbers``, (n,) int64."""
        return pick_rows(self.parts(key), self.tensor, numbers)

    def whole(self, key: str) -> torch.Tensor:
        """A copy of the tensor under ``key``, its parts joined."""
        parts = [self.tensor(part.key) for part in self.parts(key)]
        return parts[0].clone() if len(parts) == 1 else torch.cat(parts)


def pick_rows(
    parts: list[Part], tensor: Callable[[str], torch.Tensor], numbers: torch.Tensor
) -> torch.Tensor:
    """Rows of a tensor of which ``tensor`` gives the parts, in the order of ``numbers``."""
    out = torch.empty(0)
    for part in parts:
        values = tensor(part.key)
        if not out.numel():
            out = values.new_empty((len(numbers), *values.shape[1:]))
        here = (numbers >= part.first) & (numbers < part.stop)
        out[here] = values[numbers[here] - part.first]
    return out
