"""`pairdistill embed`: embeddings of photographs as a file of arrays."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distill.cli.arguments import (
    Aligned,
    BackboneWeights,
    DeviceName,
    Photographs,
    Workers,
    at_most_one_a_core,
)
from distill.cli.not_tried import photographs_among

if TYPE_CHECKING:
    from distill.classify.npz import Written

NOTHING_EMBEDDED = 1
"""Exit status where not one photograph could be used."""


def embed_command(
    weights: BackboneWeights,
    photographs: Photographs,
    out: Annotated[Path, typer.Option(help="The file, numpy's .npz.")] = Path("embeddings.npz"),
    aligned: Aligned = False,
    mirrored: Annotated[
        bool, typer.Option("--mirrored", help="Add the embedding of the mirror image.")
    ] = False,
    device: DeviceName = "auto",
    workers: Workers = 0,
) -> None:
    """Write the embedding of the face in each photograph.

    **Examples**

        pairdistill embed runs/demo photos/ --out photos.npz

        pairdistill embed runs/demo ijbc_aligned/ --aligned --mirrored

    In the file: *photographs* (N paths), *embeddings* (N x D, of unit length), *lengths* (N, before
    that), and *unusable* with *reasons*: photographs with no face, with several, or that cannot be
    read. It appears when it is whole; until then its disk holds the embeddings twice, memory a few.
    Exit status: 0 at least one photograph was embedded, 1 none was, 2 a mistake in the input.
    """
    from distill.classify.embed import embeddings_of
    from distill.classify.npz import bytes_needed, write_npz
    from distill.config import as_override
    from distill.console import progress_bar, say
    from distill.files import check_room_for
    from distill.processes.interrupt import clearing_up_when_ended
    from distill.ranks import from_environment
    from distill.trained import restore_backbone

    check_room_for(out)
    files = photographs_among(photographs)
    trained = restore_backbone(weights, [as_override("run.device", device)])
    dim = trained.config.model.embedding_dim
    check_room_for(out, bytes_needed(len(files), dim))
    with clearing_up_when_ended(), progress_bar("embed", len(files)) as bar:
        lots = embeddings_of(
            trained,
            files,
            aligned=aligned,
            mirrored=mirrored,
            device=from_environment(trained.config, {}).device,
            advance=bar.advance,
            workers=at_most_one_a_core(workers),
        )
        written = write_npz(lots, out, embedding_dim=dim)
    tell_unusable(written)
    say(f"{written.photographs} embeddings of {dim} numbers: {out}")
    if not written.photographs:
        raise typer.Exit(NOTHING_EMBEDDED)


def tell_unusable(written: Written) -> None:
    """Warn of the first few photographs that could not be used; the file has all."""
    from distill.console import warn

    for path, reason in written.first:
        warn(f"{path}: {reason}")
    more = written.unusable - len(written.first)
    if more > 0:
        warn(f"and {more} more, all in `unusable`")
