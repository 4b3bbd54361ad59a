"""`pairdistill pack`: photographs of people in, pairs to train on out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from distill.data.manifest import Manifest, Pack
    from distill.data.pack import PackOptions, PackResult
    from distill.data.second.options import GlassesMode
    from distill.data.sources import Source

DEFAULT_KINDS = "pose=0.3,eyes=0.2,glasses=0.35,forehead=0.35,blur=0.5"


def pack_command(
    source: Annotated[
        str,
        typer.Argument(
            help="Folder with one folder of photographs for each person, or `openpeople`.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Folder of the pack.", show_default=False)],
    kinds: Annotated[
        str,
        typer.Option(
            help="Processings of second images and the chance of each, above 0 and at most 1; "
            "`all` for all of them. Several may come up for one image, one at least does."
        ),
    ] = DEFAULT_KINDS,
    second_per_image: Annotated[
        int, typer.Option(help="Training pairs made of each photograph.")
    ] = 1,
    holdout: Annotated[
        float,
        typer.Option(
            help="Share of each person's photographs kept for evaluation, 0 .. 0.9; "
            "makes OUT/train and OUT/evaluation."
        ),
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    workers: Annotated[
        int, typer.Option(help="Processes, at most one a core; 0 for one a core.")
    ] = 0,
    quality: Annotated[int, typer.Option(help="JPEG quality, 1 .. 100 (4:4:4).")] = 95,
    aligned: Annotated[
        bool,
        typer.Option("--aligned", help="Photographs are 112x112 aligned faces: no detection."),
    ] = False,
    glasses: Annotated[
        str,
        typer.Option(
            help="`remove` frames where found, `draw` some, or `auto`: remove, where none draw."
        ),
    ] = "auto",
    min_images: Annotated[
        int, typer.Option(help="Leave out people with fewer usable photographs.")
    ] = 1,
    max_rejected: Annotated[
        float, typer.Option(help="Largest share of rejected photographs, 0 .. 1, before failing.")
    ] = 1.0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace another pack at OUT.")
    ] = False,
) -> None:
    """Find, align and pair the faces of a folder of people, and pack them for training.

    **Examples**

        pairdistill pack photographs/ packs/mine --holdout 0.2

        pairdistill pack faces112/ packs/mine --aligned --kinds forehead=0.5,blur=0.5 --workers 8

    Where a photograph shows several faces, the most prominent one is taken (large and near the
    middle). What cannot be used is listed with its reason in OUT/rejected.csv. The same request
    made twice is found to be done.
    """
    from distill.console import progress_bar
    from distill.data.pack import PackOptions, open_source, pack
    from distill.data.second import parse_kinds

    options = PackOptions(
        kinds=parse_kinds(kinds),
        second_per_image=second_per_image,
        holdout=holdout,
        seed=seed,
        workers=workers,
        quality=quality,
        aligned=aligned,
        glasses=cast("GlassesMode", glasses),
        min_images=min_images,
        max_rejected=max_rejected,
        overwrite=overwrite,
    )
    photographs = open_source(source)
    result = pack(photographs, out, clamped(options), progress_bar)
    show_result(result, out)
    tell_not_tried(photographs)


def clamped(options: PackOptions) -> PackOptions:
    """No more workers than cores, which would only take memory; with a note."""
    from distill.console import warn

    cores = replace(options, workers=0).processes()
    if options.workers <= cores:
        return options
    warn(f"--workers {options.workers}: this process has {cores} cores; using {cores}")
    return replace(options, workers=cores)


def tell_not_tried(source: Source) -> None:
    """Say which files of a folder were passed over for their ending."""
    from distill.console import warn
    from distill.data.sources.folder import FolderSource

    if isinstance(source, FolderSource) and (others := source.other_endings):
        kinds = ", ".join(f"{n} {ending or 'without one'}" for ending, n in others.most_common(5))
        warn(f"{others.total()} files were not tried, for their ending is of no image: {kinds}")


def show_result(result: PackResult, out: Path) -> None:
    """Say what was made below ``out``."""
    from distill.console import say, show

    if result.reused:
        say(f"{out}: up to date, made by the same request before")
    packs = [pack for pack in (result.train, result.evaluation) if pack is not None]
    show(counts(packs))
    manifest = result.train.manifest
    rejected = f"{manifest.samples_rejected} of {manifest.samples_seen} photographs rejected"
    reasons = f"; the reasons are in {out / 'rejected.csv'}" if manifest.samples_rejected else ""
    say(rejected + reasons)
    for made in packs:
        say(f"{made.manifest.purpose}: {made.path} (pairs by kind: contact_sheet.png)")


def counts(packs: list[Pack]) -> Table:
    """People, photographs and pairs of each processing, a column for each pack."""
    from rich.table import Table

    table = Table()
    table.add_column("")
    for pack in packs:
        table.add_column(pack.manifest.purpose, justify="right")
    for name, values in _rows([pack.manifest for pack in packs]).items():
        table.add_row(name, *map(str, values))
    return table


def _rows(manifests: list[Manifest]) -> dict[str, list[int] | list[str]]:
    """Lines of the table: a name, and a value for each pack."""
    kinds = [kind for kind in manifests[0].kinds if "+" not in kind]
    return {
        "people": [len(m.identities) for m in manifests],
        "photographs": [m.photographs for m in manifests],
        "pairs": [m.pairs for m in manifests],
        **{f"... with {kind}": [_pairs_with(kind, m) for m in manifests] for kind in kinds},
        "megabytes": [f"{m.beton_bytes / 1e6:.1f}" for m in manifests],
    }


def _pairs_with(kind: str, manifest: Manifest) -> int:
    """Pairs whose second image was made by ``kind``, alone or among others."""
    ways = manifest.pairs_per_kind.items()
    return sum(pairs for way, pairs in ways if kind in way.split("+"))
