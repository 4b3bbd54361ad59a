"""A set of pairs without some of them, numbered through from 0 as if those had never been there.

Nothing is kept but the pairs that are left out, so a set of any size costs what its list costs.
"""

from __future__ import annotations

import numpy as np

from distill.arrays import Numbers


class Gaps:
    """Numbers of the pairs that remain, and back.

    Args:
        left_out: the other pairs, rising, none twice, (E,) int64.
    """

    def __init__(self, left_out: Numbers) -> None:
        assert (np.diff(left_out) > 0).all()
        self.left_out = left_out
        self._before = left_out - np.arange(len(left_out))  # remaining pairs before each gap

    def __len__(self) -> int:
        return len(self.left_out)

    def pairs(self, numbers: Numbers) -> Numbers:
        """The pairs that have these numbers among the remaining ones, (m,)."""
        return numbers + np.searchsorted(self._before, numbers, side="right")

    def numbers(self, pairs: Numbers) -> Numbers:
        """Numbers among the remaining ones of pairs that remain, (m,)."""
        return pairs - np.searchsorted(self.left_out, pairs)


NO_GAPS = Gaps(np.zeros(0, np.int64))
