"""People that may be one: two spellings of a name."""

from __future__ import annotations

from collections.abc import Collection

SHOWN = 5


def tell_alike(names: Collection[str]) -> None:
    """Warn of people whose names differ in capital letters alone."""
    from distill.console import warn
    from distill.data.people import alike_but_for_capitals

    if not (alike := alike_but_for_capitals(names)):
        return
    shown = "; ".join(", ".join(same) for same in alike[:SHOWN])
    more = "; ..." if alike[SHOWN:] else ""
    warn(
        f"{sum(map(len, alike))} people have names that differ in capital letters alone: {shown}"
        f"{more}; if they are one person, give them one name"
    )
