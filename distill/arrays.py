"""Types of arrays that many files name."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]
"""Counts, and numbers of things: pairs, people, classes, places in a file."""
Floats = npt.NDArray[np.float32]
