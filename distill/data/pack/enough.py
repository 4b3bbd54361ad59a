"""Whether the first round of packing has found enough to go on with, and what is said if not."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

from distill.errors import UserError

if TYPE_CHECKING:
    from distill.data.pack.options import PackOptions
    from distill.data.pack.photos import Survey
    from distill.data.sources import Source

_SHOWN = 5


def check_enough(source: Source, result: Survey, options: PackOptions) -> None:
    """Refuses a source of which too little is left, and a list of people of another source.

    Args:
        source: of photographs.
        result: what came of its first round.
        options: of the pack.

    Raises:
        UserError: nothing usable, more rejected than allowed, or nobody has any of the names of
            those to leave out.
    """
    wanted = result.seen - result.left_out
    lost = wanted - len(result.photos)
    if not len(result.photos):
        raise UserError(
            f"{source.name}: none of {result.seen} photographs can be used ({_first(result)})",
            fix=_remedy(options, result.usable),
        )
    if result.nobody and len(result.nobody) == len(set(options.without)):
        raise UserError(
            f"{source.name}: {in_vain(result.nobody)}",
            fix="mend the list, or leave --without away",
        )
    if lost > options.max_rejected * wanted:
        beside = ", beside those of --without" if options.without else ""
        raise UserError(
            f"{source.name}: {lost} of {wanted} photographs rejected{beside} ({_first(result)})",
            fix=f"mend the source, or allow more than --max-rejected {options.max_rejected:g}",
        )


def _first(result: Survey) -> str:
    """The first photographs that are lost, and why; where none is, those that are left out."""
    some = list(islice(result.lost(), 3)) or islice(result.rejected(), 3)
    return "; ".join(f"{path}: {reason}" for path, reason in some)


def _remedy(options: PackOptions, usable: int) -> str:
    """What may help where no photograph is left, of ``usable`` before people were left out."""
    if usable and options.without:
        return f"name fewer people in --without, or lower --min-images {options.min_images}"
    if usable and options.max_images:
        return f"lower --min-images {options.min_images}, or raise --max-images"
    if usable:
        return f"lower --min-images {options.min_images}"
    if options.aligned:
        return "give 112x112 crops, or leave --aligned away"
    return "give photographs with a visible face, or --aligned for 112x112 crops"


def in_vain(names: Sequence[str]) -> str:
    """What is said of names that --without holds and nobody has."""
    more = ", ..." if names[_SHOWN:] else ""
    return (
        f"--without: nobody is called {', '.join(map(repr, names[:_SHOWN]))}{more}"
        f" ({len(names)} of its names); names are those of the folders, or of the records"
    )
