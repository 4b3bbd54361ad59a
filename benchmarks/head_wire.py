"""What a rank hands to collectives, counted call by call and not by a formula."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

GATHER, SCATTER = (
    ("all_gather_single", "reduce_scatter_single")
    if hasattr(dist, "all_gather_single")
    else ("all_gather_into_tensor", "reduce_scatter_tensor")  # their names before torch 2.13
)
GIVEN = {"all_gather": 1, GATHER: 1, "all_reduce": 0, "all_to_all_single": 1, SCATTER: 1}
"""Collectives of torch, and the place of the tensor that this rank gives among their arguments."""


@dataclass
class Wire:
    """Bytes of the tensors that this rank gave to collectives, by what they were about.

    What carries no floating-point numbers during the loss (checks that ranks were given the same)
    is counted as ``checks``.

    Attributes:
        sent: bytes by subject.
        calls: collectives by subject.
        subject: what goes on now.
    """

    sent: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    subject: str = ""

    def about(self, subject: str) -> None:
        """From here on collectives are about ``subject``."""
        self.subject = subject

    def count(self, tensor: torch.Tensor) -> None:
        """Add a tensor that is given to a collective now."""
        checks = self.subject == "statistics" and not tensor.is_floating_point()
        subject = "checks" if checks else self.subject
        self.sent[subject] += tensor.nbytes
        self.calls[subject] += 1

    @contextmanager
    def watching(self) -> Iterator[Wire]:
        """A block in which every collective is counted."""
        originals = {name: getattr(dist, name) for name in GIVEN}
        for name, place in GIVEN.items():
            setattr(dist, name, self._counted(originals[name], place))
        try:
            yield self
        finally:
            for name, original in originals.items():
                setattr(dist, name, original)

    def _counted(self, collective: Callable[..., object], place: int) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            given = args[place]
            assert isinstance(given, torch.Tensor), "a tensor must be given by position"
            self.count(given)
            return collective(*args, **kwargs)

        return call
