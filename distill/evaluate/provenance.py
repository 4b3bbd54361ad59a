"""Which photograph besides the first one a processed image was made from.

A turned head and a pasted eye region come from another photograph of the same person. To find
that very photograph again is no proof of knowing the person, so it is left out of the comparison.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from distill.errors import UserError

if TYPE_CHECKING:
    from distill.data.manifest import Pack

TABLE_NAME = "pairs.csv"
NONE = -1


def is_known(pack: Pack) -> bool:
    """Whether the pack has the table (a small pack made by `write_pack` has none)."""
    return (pack.path / TABLE_NAME).exists()


def other_photographs(pack: Pack) -> npt.NDArray[np.int64]:
    """The number of the other photograph in each pair of an evaluation pack, (pairs,); -1 for none.

    Without a table it is -1 for all; the report says so (`is_known`).

    Raises:
        UserError: `pairs.csv` is damaged, or of another pack.
    """
    path = pack.path / TABLE_NAME
    if not is_known(pack):
        return np.full(pack.manifest.pairs, NONE)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [(row["first"], row["other"]) for row in csv.DictReader(file)]
    except (OSError, KeyError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error})", fix="pack again") from error
    if len(rows) != pack.manifest.pairs:
        raise UserError(
            f"{path}: {len(rows)} rows for {pack.manifest.pairs} pairs",
            fix="it is of another pack: pack again",
        )
    kinds = len(pack.manifest.kinds)
    numbers = {first: number for number, (first, _) in enumerate(rows[::kinds])}
    return np.array([numbers.get(other, NONE) for _, other in rows])
