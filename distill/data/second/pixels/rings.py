"""How clearly the best of many lens outlines is drawn on a face."""

from __future__ import annotations

from typing import Any

from distill.data.compiled import compiled


@compiled
def best_ring(evidence: Any, on: Any, inside: Any, outside: Any) -> float:
    """The largest score of K pairs of rims: what lies on them, less of what lies beside them.

    Args:
        evidence: (h * w,) float32, not negative.
        on: places along the rims, as numbers of pixels, (K, 2, P) integers; left and right.
        inside: places just within them, alike.
        outside: places just beyond them, alike.
    """
    best = -1e30
    for k in range(len(on)):
        # Glasses have two rims: the weaker one counts.
        score = min(_mean(evidence, on[k, 0]), _mean(evidence, on[k, 1]))
        if score <= best:  # what lies beside them only takes away
            continue
        within = _mean(evidence, inside[k, 0]) + _mean(evidence, inside[k, 1])
        beyond = _mean(evidence, outside[k, 0]) + _mean(evidence, outside[k, 1])
        best = max(best, score - 0.15 * within - 0.25 * beyond)
    return best


@compiled
def _mean(evidence: Any, places: Any) -> float:
    total = 0.0
    for place in places:
        total += evidence[place]
    return total / len(places)
