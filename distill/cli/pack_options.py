"""What the command line may say of a pack."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

if TYPE_CHECKING:
    from distill.data.beton import LayoutName
    from distill.data.locate import LandmarkChoice
    from distill.data.pack import PackOptions
    from distill.data.second.options import GlassesMode
    from distill.data.splits import SplitBy

DEFAULT_KINDS = "pose=0.3,eyes=0.2,glasses=0.35,forehead=0.35,blur=0.5"
"""Those of `PackOptions`, as they are typed."""


@dataclass(frozen=True)
class PackWords:
    """Options of `pack`; see `PackOptions`."""

    kinds: Annotated[
        str,
        typer.Option(
            help="Processings of second images and the chance of each, above 0 and at most 1; "
            "`all` for all of them. Several may come up for one image, one at least does."
        ),
    ] = DEFAULT_KINDS
    layout: Annotated[
        str,
        typer.Option(
            help="`pairs` packs second images; `singles` only photographs, for training with "
            "data.second = online, which makes a new second image in every epoch."
        ),
    ] = "pairs"
    second_per_image: Annotated[
        int, typer.Option(help="Training pairs made of each photograph.")
    ] = 1
    holdout: Annotated[
        float,
        typer.Option(
            help="Share of photographs (or people) kept for evaluation, 0 .. 0.9; "
            "makes OUT/train and OUT/evaluation."
        ),
    ] = 0.0
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0
    workers: Annotated[
        int, typer.Option(help="Processes, at most one a core; 0 for one a core.")
    ] = 0
    quality: Annotated[int, typer.Option(help="JPEG quality, 1 .. 100 (4:4:4).")] = 95
    aligned: Annotated[
        bool,
        typer.Option("--aligned", help="Photographs are 112x112 aligned faces: no detection."),
    ] = False
    glasses: Annotated[
        str,
        typer.Option(
            help="`remove` frames where found, `draw` some, or `auto`: remove, where none draw."
        ),
    ] = "auto"
    landmarks: Annotated[
        str,
        typer.Option(
            help="Where faces are: the `source`'s five points, the `detector`, the `template` "
            "(as --aligned), or `auto`: the source's where it has some, else the detector."
        ),
    ] = "auto"
    second: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A choice or range of the processings, e.g. gaussian_sigma=1..4, "
            "blur_styles=motion,jpeg or mask_low=0; may be given again. "
            "All are in docs/second_images.md.",
        ),
    ] = None
    min_images: Annotated[
        int, typer.Option(help="Leave out people with fewer usable photographs.")
    ] = 1
    max_rejected: Annotated[
        float, typer.Option(help="Largest share of rejected photographs, 0 .. 1, before failing.")
    ] = 1.0
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another pack at OUT.")] = (
        False
    )
    shard_gb: Annotated[
        float, typer.Option(help="Size at which a new file is begun, in GB (10^9 bytes).")
    ] = 4.0
    licence: Annotated[
        str, typer.Option(help="Licence of the photographs, kept in the manifest.")
    ] = ""
    purpose_note: Annotated[
        str, typer.Option(help="What the photographs may be used for, kept in the manifest.")
    ] = ""
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what it would take, from a sample; write nothing."),
    ] = False
    split_by: Annotated[
        str,
        typer.Option(
            help="--holdout takes some photographs of each person (`image`), or all of some people "
            "(`identity`). What is nearly the same is never on both sides."
        ),
    ] = "image"
    max_images: Annotated[
        int, typer.Option(help="Leave out people with more usable photographs; 0 for no limit.")
    ] = 0

    without: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Leave out the people of a text file, one name a line.",
            show_default="nobody",
        ),
    ] = None

    def options(self) -> PackOptions:
        """What they ask for.

        Raises:
            UserError: a value outside its range, or a name that is none.
        """
        from distill.data.forget_names import read_names
        from distill.data.pack import PackOptions
        from distill.data.second import parse_kinds
        from distill.data.second.options import parse_options

        return PackOptions(
            layout=cast("LayoutName", self.layout),
            kinds=parse_kinds(self.kinds),
            second_per_image=self.second_per_image,
            holdout=self.holdout,
            seed=self.seed,
            workers=self.workers,
            quality=self.quality,
            aligned=self.aligned,
            landmarks=cast("LandmarkChoice", self.landmarks),
            second=parse_options(self.second or []),
            glasses=cast("GlassesMode", self.glasses),
            min_images=self.min_images,
            max_rejected=self.max_rejected,
            overwrite=self.overwrite,
            shard_bytes=round(self.shard_gb * 1e9),
            licence=self.licence,
            purpose_note=self.purpose_note,
            split_by=cast("SplitBy", self.split_by),
            max_images=self.max_images,
            without=tuple(read_names(self.without)) if self.without else (),
        )
