"""`pairdistill gallery`: every kind of second image on some people of a source."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from distill.cli.source_options import SourceWords

if TYPE_CHECKING:
    from distill.data.locate import LandmarkChoice


def gallery_command(
    source: Annotated[
        str,
        typer.Argument(help="Photographs, as for `pack`, or `openpeople`.", show_default=False),
    ],
    out: Annotated[Path, typer.Argument(help="Folder for the gallery.", show_default=False)],
    people: Annotated[int, typer.Option(min=1, max=40, help="How many people.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    landmarks: Annotated[
        str,
        typer.Option(help="Where faces are: `auto`, `source`, `detector` or `template`."),
    ] = "auto",
    *,
    where: SourceWords,
) -> None:
    """Show every kind of second image, in all its variants, on the first people of a source.

    Writes OUT/gallery.png and OUT/index.html (one file, nothing loaded from elsewhere). Both show
    faces: keep them where you keep the photographs.

    **Examples**

        pairdistill gallery openpeople gallery/

        pairdistill gallery photographs/ gallery/ --people 8
    """
    from typing import get_args

    from distill.console import say
    from distill.data.gallery import PAGE_NAME, make_rows, people_of, write_gallery
    from distill.data.locate import LandmarkChoice
    from distill.errors import UserError

    if landmarks not in get_args(LandmarkChoice):
        allowed = ", ".join(get_args(LandmarkChoice))
        raise UserError(f"--landmarks {landmarks}", fix=f"choose from {allowed}")
    shown = people_of(where.open(source), people, cast("LandmarkChoice", landmarks))
    write_gallery(shown, make_rows(shown, seed), out)
    say(f"{len(shown)} people: {out / PAGE_NAME}")
