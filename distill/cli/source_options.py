"""What the command line may say of a source, where looking at it does not tell."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Form: TypeAlias = Annotated[
    str,
    typer.Option(
        "--format", help="folder, rec, parquet, tar or csv.", show_default="by what it holds"
    ),
]
ImageColumn: TypeAlias = Annotated[
    str | None, typer.Option(help="Column of images or paths.", show_default="found")
]
IdentityColumn: TypeAlias = Annotated[
    str | None, typer.Option(help="Column of people.", show_default="found")
]
Root: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="Folder of photographs that are given as paths.", show_default="that of the file"
    ),
]
