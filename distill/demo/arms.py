"""The three ways the demo trains the same network, for the same number of steps."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from distill.config import Config, dump_toml, load_config


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        name: short name, also of its folder.
        title: heading of its column.
        overrides: what differs from ``demo.toml``.
    """

    name: str
    title: str
    overrides: tuple[str, ...]


ARMS = (
    Arm("first", "first images alone", ("train.images=first", "loss.similarity=none")),
    Arm("pairs", "pairs, no similarity", ("loss.similarity=none",)),
    Arm("similarity", "pairs + similarity", ()),
)

SETTINGS = Path(str(files("distill.demo") / "demo.toml"))
"""What all arms share."""


def arm_config(arm: Arm, packs: Path, runs: Path, overrides: tuple[str, ...] = ()) -> Config:
    """The settings of ``arm``; its run folder carries a digest of them.

    So a finished run is found again as long as nothing has changed, and changed settings never
    continue an older run.

    Args:
        packs: folder with the packs ``train`` and ``evaluation``.
        runs: folder that holds the run folders.
        overrides: the user's own changes, for all arms.
    """
    places = (f"data.train={packs / 'train'}", f"data.evaluation={packs / 'evaluation'}")
    words = (*places, *overrides, *arm.overrides)
    digest = hashlib.sha256(dump_toml(load_config(SETTINGS, words)).encode()).hexdigest()[:8]
    return load_config(SETTINGS, (*words, f"run.dir={runs / f'{arm.name}-{digest}'}"))
