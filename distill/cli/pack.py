"""`pairdistill pack`: photographs of people in, pairs to train on out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from distill.cli.source_options import Form, IdentityColumn, ImageColumn, Root

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from distill.data.beton import LayoutName
    from distill.data.locate import LandmarkChoice
    from distill.data.manifest import Manifest, Pack
    from distill.data.pack import PackOptions, PackResult
    from distill.data.second.options import GlassesMode
    from distill.data.sources import Source
    from distill.data.splits import SplitBy

DEFAULT_KINDS = "pose=0.3,eyes=0.2,glasses=0.35,forehead=0.35,blur=0.5"


def pack_command(
    source: Annotated[
        str,
        typer.Argument(
            help="Folder of people's folders, or train.rec, parquet, tar shards or a CSV list: a "
            "file, a folder or a pattern like 'a-{000..012}.tar'; or `openpeople`.",
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
    layout: Annotated[
        str,
        typer.Option(
            help="`pairs` packs second images; `singles` only photographs, for training with "
            "data.second = online, which makes a new second image in every epoch."
        ),
    ] = "pairs",
    second_per_image: Annotated[
        int, typer.Option(help="Training pairs made of each photograph.")
    ] = 1,
    holdout: Annotated[
        float,
        typer.Option(
            help="Share of photographs (or people) kept for evaluation, 0 .. 0.9; "
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
    landmarks: Annotated[
        str,
        typer.Option(
            help="Where faces are: the `source`'s five points, the `detector`, the `template` "
            "(as --aligned), or `auto`: the source's where it has some, else the detector."
        ),
    ] = "auto",
    second: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A choice or range of the processings, e.g. gaussian_sigma=1..4, "
            "blur_styles=motion,jpeg or mask_low=0; may be given again. "
            "All are in docs/second_images.md.",
        ),
    ] = None,
    min_images: Annotated[
        int, typer.Option(help="Leave out people with fewer usable photographs.")
    ] = 1,
    max_rejected: Annotated[
        float, typer.Option(help="Largest share of rejected photographs, 0 .. 1, before failing.")
    ] = 1.0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace another pack at OUT.")
    ] = False,
    shard_gb: Annotated[
        float, typer.Option(help="Size at which a new file is begun, in GB (10^9 bytes).")
    ] = 4.0,
    licence: Annotated[
        str, typer.Option(help="Licence of the photographs, kept in the manifest.")
    ] = "",
    purpose_note: Annotated[
        str, typer.Option(help="What the photographs may be used for, kept in the manifest.")
    ] = "",
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what it would take, from a sample; write nothing."),
    ] = False,
    split_by: Annotated[
        str,
        typer.Option(
            help="--holdout takes some photographs of each person (`image`), or all of some people "
            "(`identity`). What is nearly the same is never on both sides."
        ),
    ] = "image",
    max_images: Annotated[
        int, typer.Option(help="Leave out people with more usable photographs; 0 for no limit.")
    ] = 0,
    form: Form = "",
    image_column: ImageColumn = None,
    identity_column: IdentityColumn = None,
    root: Root = None,
) -> None:
    """Find, align and pair the faces of a folder of people, and pack them for training.

    **Examples**

        pairdistill pack photographs/ packs/mine --holdout 0.2

        pairdistill pack ms1mv3/ packs/ms1mv3 --aligned --min-images 5

        pairdistill pack faces112/ packs/mine --aligned --kinds forehead=0.5,blur=0.5 --workers 8

    Where a photograph shows several faces, the most prominent one is taken (large and near the
    middle). What cannot be used is listed with its reason in OUT/rejected.csv. The same request
    made twice is found to be done.
    """
    from distill.console import progress_bar
    from distill.data.pack import PackOptions, open_source, pack
    from distill.data.second import parse_kinds
    from distill.data.second.options import parse_options
    from distill.data.sources.open import SourceOptions

    options = PackOptions(
        layout=cast("LayoutName", layout),
        kinds=parse_kinds(kinds),
        second_per_image=second_per_image,
        holdout=holdout,
        seed=seed,
        workers=workers,
        quality=quality,
        aligned=aligned,
        landmarks=cast("LandmarkChoice", landmarks),
        second=parse_options(second or []),
        glasses=cast("GlassesMode", glasses),
        min_images=min_images,
        max_rejected=max_rejected,
        overwrite=overwrite,
        shard_bytes=round(shard_gb * 1e9),
        licence=licence,
        purpose_note=purpose_note,
        split_by=cast("SplitBy", split_by),
        max_images=max_images,
    )
    photographs = open_source(source, SourceOptions(form, image_column, identity_column, root))
    if dry_run:
        show_estimate(photographs, options)
        return
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


def show_estimate(source: Source, options: PackOptions) -> None:
    """Say what packing would take."""
    from distill.console import say
    from distill.data.pack.estimate import estimate

    found = estimate(source, options)
    say(
        f"{found.photographs} photographs; of the first {found.sampled}, "
        f"{found.usable:.0%} can be used"
    )
    for reason, count in found.reasons.items():
        say(f"  {count} cannot: {reason}")
    shards = -(-found.pack_bytes // options.shard_bytes)
    say(f"about {found.pairs} pairs, {found.pack_bytes / 1e9:.3g} GB in {shards} file(s)")
    say(f"about {found.scratch_bytes / 1e9:.3g} GB more while packing")
    say(f"about {_duration(found.seconds)} with {options.processes()} processes")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


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
        online = made.manifest.second == "online"
        note = "data.second = 'online'" if online else "pairs by kind: contact_sheet.png"
        say(f"{made.manifest.purpose}: {made.path} ({note})")


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


def _rows(manifests: list[Manifest]) -> dict[str, Sequence[int | str]]:
    """Lines of the table: a name, and a value for each pack."""
    kinds = [kind for kind in manifests[0].kinds if "+" not in kind]
    return {
        "people": [len(m.identities) for m in manifests],
        "photographs": [m.photographs for m in manifests],
        "pairs": [m.pairs for m in manifests],
        **{f"... with {kind}": [_pairs_with(kind, m) for m in manifests] for kind in kinds},
        "megabytes": [f"{m.total_bytes / 1e6:.1f}" for m in manifests],
    }


def _pairs_with(kind: str, manifest: Manifest) -> int | str:
    """Pairs whose second image was made by ``kind``, alone or among others."""
    if manifest.second == "online":
        return f"chance {manifest.kind_chances[kind]:g}"
    ways = manifest.pairs_per_kind.items()
    return sum(pairs for way, pairs in ways if kind in way.split("+"))
