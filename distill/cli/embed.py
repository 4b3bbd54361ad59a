"""`pairdistill embed`: embeddings of photographs as a file of arrays."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distill.cli.arguments import Aligned, BackboneWeights, DeviceName, Photographs
from distill.cli.not_tried import photographs_among

if TYPE_CHECKING:
    from distill.classify.embed import Embedded

NOTHING_EMBEDDED = 1
"""Exit status where not one photograph could be used."""
SHOWN = 5


def embed_command(
    weights: BackboneWeights,
    photographs: Photographs,
    out: Annotated[Path, typer.Option(help="The file, numpy's .npz.")] = Path("embeddings.npz"),
    aligned: Aligned = False,
    mirrored: Annotated[
        bool, typer.Option("--mirrored", help="Add the embedding of the mirror image.")
    ] = False,
    device: DeviceName = "auto",
) -> None:
    """Write the embedding of the face in each photograph.

    **Examples**

        pairdistill embed runs/demo photos/ --out photos.npz

        pairdistill embed runs/demo ijbc_aligned/ --aligned --mirrored

    In the file: *photographs* (N paths), *embeddings* (N x D, of unit length), *lengths* (N, before
    that), and *unusable* with *reasons*: photographs with no face, with several, or that cannot be
    read.
    Exit status: 0 at least one photograph was embedded, 1 none was, 2 a mistake in the input.
    """
    from distill.classify.embed import embed_photographs, write_npz
    from distill.config import as_override
    from distill.console import progress_bar, say
    from distill.files import check_room_for
    from distill.ranks import from_environment
    from distill.trained import restore_backbone

    check_room_for(out)
    files = photographs_among(photographs)
    trained = restore_backbone(weights, [as_override("run.device", device)])
    with progress_bar("embed", len(files)) as bar:
        found = embed_photographs(
            trained,
            files,
            aligned=aligned,
            mirrored=mirrored,
            device=from_environment(trained.config, {}).device,
            advance=bar.advance,
        )
    write_npz(found, out)
    tell_unusable(found)
    say(f"{len(found.photographs)} embeddings of {found.embeddings.shape[1]} numbers: {out}")
    if not found.photographs:
        raise typer.Exit(NOTHING_EMBEDDED)


def tell_unusable(found: Embedded) -> None:
    """Warn of the first few photographs that could not be used; the file has all."""
    from distill.console import warn

    for path, reason in found.unusable[:SHOWN]:
        warn(f"{path}: {reason}")
    more = len(found.unusable) - SHOWN
    if more > 0:
        warn(f"and {more} more, all in `unusable`")
