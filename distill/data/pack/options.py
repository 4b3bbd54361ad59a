"""What may be chosen about a pack, and what comes of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any, get_args

from distill import __version__, detector_package
from distill.data.beton import LAYOUTS, LayoutName
from distill.data.locate import LandmarkChoice
from distill.data.manifest import FORMAT, Pack
from distill.data.pack_writer import SHARD_BYTES
from distill.data.people import composed
from distill.data.second import SecondOptions
from distill.data.second.options import GlassesMode
from distill.data.splits import SPLITS, SplitBy
from distill.errors import UserError
from distill.processes.cores import usable_cores

DEFAULT_KINDS = {"pose": 0.3, "eyes": 0.2, "glasses": 0.35, "forehead": 0.35, "blur": 0.5}
"""Chance of each processing of a second image."""


@dataclass(frozen=True)
class PackOptions:
    """Choices of `pack`.

    Attributes:
        layout: `pairs` packs second images; `singles` first images alone, for second ones that are
            made while training (an evaluation pack holds pairs all the same).
        kinds: chance of each processing of a training pair, in (0, 1]; of several that come up,
            all are applied, and at least one always is. An evaluation pack has each kind alone.
        second_per_image: training pairs made of each photograph.
        holdout: share of each person's photographs that goes to an evaluation pack; 0 for none.
        seed: of everything random.
        workers: processes; 0 for as many as there are cores.
        quality: of the JPEGs, 1 .. 100 (4:4:4).
        aligned: whether the images are 112x112 faces on the template already.
        landmarks: where the face is: what the source says, else what the detector finds (`auto`);
            or one of them alone; or the template, as ``aligned`` says too.
        second: further choices of the processings, fields of `SecondOptions`.
        glasses: `auto` removes frames where it finds them and else draws some; or always one.
        min_images: people with fewer usable photographs are left out.
        max_images: people with more usable photographs are left out; 0 for no limit.
        without: names of people who are left out.
        split_by: `image` holds out photographs of each person, `identity` all of some people.
        max_rejected: largest share of photographs that may be rejected, in [0, 1].
        overwrite: whether a pack that is there already may be replaced.
        shard_bytes: size at which a new file is begun, in bytes.
        licence: of the photographs, for the manifest.
        purpose_note: what they may be used for, for the manifest.
    """

    layout: LayoutName = "pairs"
    kinds: dict[str, float] = field(default_factory=lambda: dict(DEFAULT_KINDS))
    second_per_image: int = 1
    holdout: float = 0.0
    seed: int = 0
    workers: int = 0
    quality: int = 95
    aligned: bool = False
    landmarks: LandmarkChoice = "auto"
    second: dict[str, Any] = field(default_factory=dict)
    glasses: GlassesMode = "auto"
    min_images: int = 1
    max_images: int = 0
    without: tuple[str, ...] = ()
    split_by: SplitBy = "image"
    max_rejected: float = 1.0
    overwrite: bool = False
    shard_bytes: int = SHARD_BYTES
    licence: str = ""
    purpose_note: str = ""

    def __post_init__(self) -> None:
        """Checks every number.

        Raises:
            UserError: a value outside its range.
        """
        for name, low, high in (
            ("second_per_image", 1, 1000),
            ("holdout", 0.0, 0.9),
            ("seed", 0, 2**63 - 1),
            ("workers", 0, 1024),
            ("quality", 1, 100),
            ("min_images", 1, 1_000_000),
            ("max_images", 0, 1_000_000_000),
            ("max_rejected", 0.0, 1.0),
            ("shard_bytes", 1 << 16, 1 << 44),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                option = "--" + name.replace("_", "-")
                raise UserError(f"{option} {value}", fix=f"stay within {low} .. {high}")
        if not self.kinds or not all(0.0 < p <= 1.0 for p in self.kinds.values()):
            raise UserError(f"--kinds {self.kinds}", fix="give chances above 0 and at most 1")
        if self.layout not in LAYOUTS:
            raise UserError(f"--layout {self.layout}", fix=f"choose from {', '.join(LAYOUTS)}")
        if self.layout == "singles" and self.second_per_image != 1:
            raise UserError(
                f"--second-per-image {self.second_per_image} with --layout singles",
                fix="leave it away: every epoch makes a new second image",
            )
        if self.split_by not in SPLITS:
            raise UserError(f"--split-by {self.split_by}", fix=f"choose from {', '.join(SPLITS)}")
        if self.landmarks not in get_args(LandmarkChoice):
            allowed = ", ".join(get_args(LandmarkChoice))
            raise UserError(f"--landmarks {self.landmarks}", fix=f"choose from {allowed}")
        self.second_options()

    def landmarks_from(self) -> LandmarkChoice:
        """Where the points of a face come from."""
        return "template" if self.aligned else self.landmarks

    def second_options(self) -> SecondOptions:
        """The choices of the processings."""
        return SecondOptions.from_described({"glasses": self.glasses, **self.second})

    def processes(self) -> int:
        """Worker processes to use."""
        return self.workers or usable_cores()

    def described(self) -> dict[str, Any]:
        """What decides the content of a pack, for its manifest (not workers, not overwrite)."""
        return {
            "layout": self.layout,
            "kinds": dict(self.kinds),
            "second_per_image": self.second_per_image,
            "holdout": self.holdout,
            "seed": self.seed,
            "quality": self.quality,
            "landmarks": self.landmarks_from(),
            "second": self.second_options().described(),
            "min_images": self.min_images,
            "max_images": self.max_images,
            "split_by": self.split_by,
            "shard_bytes": self.shard_bytes,
            "licence": self.licence,
            "purpose_note": self.purpose_note,
            **self._described_without(),
        }

    def _described_without(self) -> dict[str, Any]:
        """Who is left out, without their names; nothing where nobody is, as in packs of before."""
        if not self.without:
            return {}
        names = sorted({composed(name) for name in self.without})
        text = json.dumps(names).encode()
        return {"without": {"names": len(names), "sha256": hashlib.sha256(text).hexdigest()}}


@dataclass(frozen=True)
class PackResult:
    """What `pack` made, or found made already.

    Attributes:
        train: the training pack.
        evaluation: the pack of held-out photographs, if any were held out.
        reused: whether it was there already, made by the same request.
    """

    train: Pack
    evaluation: Pack | None
    reused: bool = False

    def as_reused(self) -> PackResult:
        """The same, found instead of made."""
        return replace(self, reused=True)


def versions() -> dict[str, str]:
    """Versions of everything that decides a pixel."""
    libraries = ["numpy", "numba", "opencv-python-headless", "simplejpeg", "pillow"]
    if detector_package.folder():  # without it no pixel depends on it
        libraries.append(detector_package.PACKAGE)
    return {"pairdistill": __version__, **{name: version(name) for name in libraries}}


def request_digest(source_digest: str, options: PackOptions) -> str:
    """SHA-256 of a request: equal ones give equal packs, byte for byte."""
    request = [FORMAT, source_digest, options.described(), versions()]
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
