"""A fresh run that starts from trained weights: the backbone, and the people that both know."""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import torch

from distill.checkpoint.arcface import BACKBONE_PREFIX
from distill.checkpoint.stored import WHAT_TO_NAME, Stored, open_headers, open_weights
from distill.collectives import together
from distill.data.people import are_numbers
from distill.engine_parts.fragments import WEIGHT
from distill.engine_parts.head import HEAD_PREFIX
from distill.errors import UserError, told_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from distill.checkpoint.reader import Reader
    from distill.checkpoint.state import Trainable
    from distill.engine_parts.fragments import Fragment

ROWS_AT_ONCE = 1 << 14
_SHOWN = 3
_ADAFACE_PREFIX = "adaface."
"""Of what that margin learns (`distill.heads.AdaFace`), absent where another one was used."""


class Start(NamedTuple):
    """Where a run starts from.

    Attributes:
        origin: file or folder of the weights.
        step: optimizer steps that were made there.
        kept: people known there and here, whose rows of the head are taken over.
        new: people known here alone, whose rows are drawn as in any fresh run.
        dropped: people known there alone.
        numbers_of: digest of the pack whose people were known there, and kept here, by numbers,
            empty where it is not known; None where they have names.
    """

    origin: Path
    step: int
    kept: int
    new: int
    dropped: int
    numbers_of: str | None = None

    def __str__(self) -> str:
        if not self.kept and not self.dropped:
            return f"backbone of {self.origin}; {self.new} people, all new"
        return (
            f"weights of {self.origin} (step {self.step}); of its people {self.kept} kept and"
            f" {self.dropped} dropped, {self.new} new"
        )


def start_from(
    path: Path, engine: Trainable, identities: Sequence[str], *, head: bool = True
) -> Start:
    """Put trained weights into a fresh engine, whatever its placement; all ranks must call it.

    Rows of the head go by the names of the people, or where those have none there, by their labels;
    each rank reads those that it holds. The optimizer starts anew.

    Args:
        path: as in `open_weights`.
        engine: as it was made; what is not taken over stays.
        identities: names of the people, by label.
        head: whether rows of a head are taken over too.

    Raises:
        UserError: nothing good there, another network, or other labels; on all ranks.
    """
    with ExitStack() as stack:
        with together():
            _check_there(path)
        with told_of("model.init_from"):
            stored = open_weights(path, stack, engine.ranks)
        if not head:
            stored = stored.without_head()
        with together():
            rows = _rows(stored, identities)
            _check(stored, engine.shapes | {n: tuple(b.shape) for n, b in engine.buffers.items()})
            _fill(stored, engine, rows)
    engine.finish_load(engine.counters())
    kept, people = int((rows >= 0).sum()), stored.unnamed or len(stored.identities)
    numbered = kept and are_numbers(identities) and are_numbers(stored.identities)
    numbers_of = stored.packs_digest if numbered and not stored.unnamed else None
    return Start(stored.origin, stored.step, kept, len(rows) - kept, people - kept, numbers_of)


def check_start(
    path: Path,
    here: Mapping[str, tuple[int, ...]],
    identities: Sequence[str],
    *,
    head: bool = True,
) -> None:
    """Refuse what `start_from` would, as far as headers tell; by this process alone.

    Args:
        path: as in `start_from`.
        here: shapes of all parameters and buffers to fill, by name.
        identities, head: as in `start_from`.

    Raises:
        UserError: nothing there, another network, or other labels.
    """
    _check_there(path)
    with ExitStack() as stack:
        with told_of("model.init_from"):
            stored = open_headers(path, stack)
        if not head:
            stored = stored.without_head()
        _check_labels(stored, identities)
        _check(stored, here)


def _rows(stored: Stored, identities: Sequence[str]) -> torch.Tensor:
    """Row there of each person here, (C,) int64; -1 of those who are new."""
    _check_labels(stored, identities)
    if stored.unnamed:
        return torch.arange(len(identities))
    known = {name: row for row, name in enumerate(stored.identities)}
    return torch.tensor([known.get(name, -1) for name in identities])


def _check_labels(stored: Stored, identities: Sequence[str]) -> None:
    """Refuse a head by labels where these are not the labels it was trained with, as far as seen.

    Others go by names. People of a record file are called by their labels
    (`distill.data.people.people_taken`).
    """
    if not stored.unnamed:
        return
    what = ""
    if stored.unnamed != len(identities):
        what = f"it has {stored.unnamed} people and data.train {len(identities)}"
    elif are_numbers(identities):
        wrong = [(label, name) for label, name in enumerate(identities) if name != str(label)]
        what = f"label {wrong[0][0]} is {wrong[0][1]!r} in data.train" if wrong else ""
    if what:
        raise UserError(
            f"model.init_from = {str(stored.origin)!r}: its head knows people by their labels"
            f" alone, and {what}",
            fix="train on a pack of all of the train.rec that it was trained on, or set"
            " model.init_head = false to take the backbone alone",
        )


def _check_there(path: Path) -> None:
    """A mistyped path is a mistake in the settings, not a folder without a checkpoint."""
    if not path.exists():
        raise UserError(
            f"model.init_from = {str(path)!r}: No such file or folder",
            fix=WHAT_TO_NAME,
        )


def _check(stored: Stored, here: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse another network; heads may differ in the number of rows, or be here alone."""
    differences = [
        f"{name}: {stored.shapes.get(name, 'absent')} there -> {shape} here"
        for name, shape in sorted(here.items())
        if _is_taken(stored, name)
        and _without_rows(name, stored.shapes.get(name)) != _without_rows(name, shape)
    ]
    if differences:
        raise UserError(
            f"model.init_from = {str(stored.origin)!r}: another network:"
            f" {'; '.join(differences[:_SHOWN])}",
            fix=_same_network(stored),
        )


def _same_network(stored: Stored) -> str:
    """What would fit."""
    model = stored.config.get("model", {})
    known = [f"model.{key}={model[key]}" for key in ("name", "embedding_dim") if key in model]
    return f"set {' '.join(known)}, head.kind and head.sub_centres to those it was trained with"


def _is_taken(stored: Stored, name: str) -> bool:
    """Whether a parameter or buffer is taken over: of a backbone alone, what belongs to it.

    What AdaFace learns of lengths begins anew where the weights come without it.
    """
    if name.startswith(_ADAFACE_PREFIX) and name not in stored.shapes:
        return False
    if stored.unnamed and name.startswith(HEAD_PREFIX):
        return True
    return bool(stored.identities) or name.startswith(BACKBONE_PREFIX)


def _without_rows(name: str, shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
    return shape[1:] if shape and name.startswith(HEAD_PREFIX) else shape


@torch.no_grad()
def _fill(stored: Stored, engine: Trainable, rows: torch.Tensor) -> None:
    for fragment in engine.fragments(WEIGHT):
        if not _is_taken(stored, fragment.name):
            continue
        key = stored.keys[fragment.name]
        if fragment.name.startswith(HEAD_PREFIX):
            width = math.prod(engine.shapes[fragment.name][1:])
            fill_rows(fragment, stored.reader, key, rows, width)
        else:
            stored.reader.copy_elements(key, fragment.start, fragment.values)
    for name, buffer in engine.buffers.items():
        if _is_taken(stored, name):
            buffer.copy_(stored.reader.tensor(stored.keys[name]))


def fill_rows(fragment: Fragment, reader: Reader, key: str, rows: torch.Tensor, width: int) -> None:
    """Fill a fragment of a matrix whose row i is row ``rows[i]`` of a stored one.

    Rows of -1 are left as they are. A fragment may begin and end inside of a row.
    """
    stop = fragment.start + len(fragment.values)
    for first in range(fragment.start // width, -(-stop // width), ROWS_AT_ONCE):
        taken = rows[first : min(first + ROWS_AT_ONCE, -(-stop // width))]
        low, high = max(fragment.start, first * width), min(stop, (first + len(taken)) * width)
        cut = slice(low - first * width, high - first * width)
        known = (taken >= 0).repeat_interleave(width)[cut]
        values = reader.rows(key, taken.clamp_min(0)).flatten()[cut]
        into = fragment.values[low - fragment.start : high - fragment.start]
        into.copy_(torch.where(known.to(into.device), values.to(into.device), into))
