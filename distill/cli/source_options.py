"""What the command line may say of a source, where looking at it does not tell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from distill.data.sources import Source


@dataclass(frozen=True)
class SourceWords:
    """Options of every command that reads photographs; see `SourceOptions`."""

    form: Annotated[
        str,
        typer.Option(
            "--format", help="folder, rec, parquet, tar or csv.", show_default="by what it holds"
        ),
    ] = ""
    image_column: Annotated[
        str | None, typer.Option(help="Column of images or paths.", show_default="found")
    ] = None
    identity_column: Annotated[
        str | None, typer.Option(help="Column of people.", show_default="found")
    ] = None
    root: Annotated[
        Path | None,
        typer.Option(
            help="Folder of photographs that are given as paths.", show_default="that of the file"
        ),
    ] = None

    def open(self, name: str) -> Source:
        """The photographs that ``name`` stands for.

        Raises:
            UserError: as `open_source`.
        """
        from distill.data.sources.open import SourceOptions, open_source

        options = SourceOptions(self.form, self.image_column, self.identity_column, self.root)
        return open_source(name, options)
