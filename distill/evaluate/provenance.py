"""Which photograph besides the first one a processed image was made from.

A turned head and a pasted eye region come from another photograph of the same person. To find
that very photograph again is no proof of knowing the person, so it is left out of the comparison.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from distill.arrays import Numbers
from distill.data.pairs_table import has_table, pair_rows

if TYPE_CHECKING:
    from distill.data.manifest import Pack

NONE = -1


def other_photographs(pack: Pack) -> Numbers:
    """The number of the other photograph in each pair of an evaluation pack, (pairs,); -1 for none.

    Without a table it is -1 for all; the report says so (`has_table`).

    Raises:
        UserError: `pairs.csv` is damaged, or of another pack.
    """
    if not has_table(pack):
        return np.full(pack.manifest.pairs, NONE)
    rows = [(row.first, row.other) for row in pair_rows(pack)]
    kinds = len(pack.manifest.kinds)
    numbers = {first: number for number, (first, _) in enumerate(rows[::kinds])}
    return np.array([numbers.get(other, NONE) for _, other in rows])
