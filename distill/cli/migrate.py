"""`pairdistill migrate`: a configuration of arcface_torch as settings of this program."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from distill.cli.arguments import Overrides


class TrainsOn(StrEnum):
    """Images of a pair that the run is to be trained on."""

    FIRST = "first"
    PAIR = "pair"


def migrate_command(
    config_path: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG.py", help="Of arcface_torch; it is not run.", show_default=False
        ),
    ],
    overrides: Overrides = None,
    images: Annotated[
        TrainsOn, typer.Option(help="First images alone, as there, or pairs.")
    ] = TrainsOn.FIRST,
    ranks: Annotated[
        int, typer.Option(min=1, max=1 << 20, help="GPUs that it is meant for, over all nodes.")
    ] = 8,
    out: Annotated[
        Path | None,
        typer.Option(metavar="RUN.toml", help="The file.", show_default="standard output"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Turn a configuration of InsightFace's arcface_torch into settings, each with its origin.

    **Examples**

        pairdistill migrate configs/ms1mv3_r50.py --out run.toml

        pairdistill migrate configs/wf42m_pfc02_r100_32gpus.py --ranks 32 --images pair

        pairdistill migrate configs/glint360k_mbf.py train.precision=bf16

    A step is of as many images, at the same rate, as there on so many GPUs. What has no counterpart
    is listed in the text and on standard error. `docs/arcface.md` says more.
    """
    from distill.console import note, warn
    from distill.files import check_free, check_room_for, write_whole
    from distill.migrate.given import Given
    from distill.migrate.read import read_file
    from distill.migrate.translate import migrate
    from distill.migrate.write import as_toml

    if out is not None:
        check_room_for(out)
        check_free(out, overwrite=overwrite)
    given = Given(config_path.name, read_file(config_path))
    done = migrate(given, ranks=ranks, images=images.value, overrides=overrides or [])
    text = as_toml(done, config_path.name, ranks, str(out or "run.toml"))
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_whole(out, text.encode())
    for each in done.lost:
        warn(each)
    note(f"{done.sections['train']['global_batch_pairs'].origin}; for another number give --ranks")
