"""The three ways the demo trains the same network, for the same number of steps."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from distill.config import Config, as_override, dump_toml, load_config


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
    train = as_override("data.train", str(packs / "train"))
    evaluation = as_override("data.evaluation", str(packs / "evaluation"))
    words = (train, evaluation, *overrides, *arm.overrides)
    digest = hashlib.sha256(dump_toml(load_config(SETTINGS, words)).encode()).hexdigest()[:8]
    folder = as_override("run.dir", str(runs / f"{arm.name}-{digest}"))
    return load_config(SETTINGS, (*words, folder))
