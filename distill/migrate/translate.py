"""Settings of arcface_torch as ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from distill.config import Config, as_override, load_config, parse_overrides
from distill.errors import UserError
from distill.migrate.facts import LEFT_OUT, UNKNOWN
from distill.migrate.given import Given, is_text
from distill.migrate.network import head_of, model_of
from distill.migrate.settings import Batch, Images, Setting, Settings, batch_of
from distill.migrate.updates import every, loss_of, optimizer_of, train_of

SYNTHETIC = "synthetic"
"""What ``rec`` is called where images are made up."""


class Migrated(NamedTuple):
    """A configuration as ours.

    Attributes:
        sections: what the file says, by section and name.
        config: the same over our defaults, checked.
        neutral: settings that were left out and ask for nothing that is not so here anyway.
        lost: settings that were left out and ask for something, and other differences.
        rec: the folder of its images; empty where it has none.
    """

    sections: dict[str, Settings]
    config: Config
    neutral: list[str]
    lost: list[str]
    rec: str


def migrate(given: Given, *, ranks: int, images: Images, overrides: Sequence[str]) -> Migrated:
    """Settings of arcface_torch as ours.

    Args:
        given: theirs.
        ranks: GPUs that they are meant for, G.
        images: whether to train on first images alone, as there, or on pairs.
        overrides: settings of ours in place of what would be there, ``section.field=value``.

    Raises:
        UserError: a setting that is wrong, or has no counterpart and no override.
    """
    load_config(None, overrides)  # which says what is wrong with them
    changes = parse_overrides(overrides)
    changed = {f"{section}.{name}" for section, inside in changes.items() for name in inside}
    batch, rec = batch_of(given, ranks, images), _rec(given)
    sections = {
        "run": _run(given),
        "data": _data(given, rec),
        "model": model_of(given, changed),
        "head": head_of(given, changed),
        "loss": loss_of(images),
        "optimizer": optimizer_of(given, batch),
        "train": train_of(given, batch, images),
        **_measured(given, rec, batch),
        "monitor": {"log_every_steps": every(given, "frequent", batch)},
    }
    for section, inside in changes.items():
        asked = {name: Setting(value, "as asked for") for name, value in inside.items()}
        sections[section] = sections[section] | asked
    neutral = _left_out(given)
    return Migrated(sections, _checked(given.name, sections), neutral, given.lost, rec)


def _checked(file: str, sections: dict[str, Settings]) -> Config:
    words = [
        as_override(f"{section}.{name}", setting.value)
        for section, settings in sections.items()
        for name, setting in settings.items()
    ]
    try:
        return load_config(None, words)
    except UserError as error:  # a product of settings, each of which is one
        raise UserError(f"{file}: in our settings {error.what}", fix=error.fix) from None


def _left_out(given: Given) -> list[str]:
    """Settings that nobody asked for: those of no consequence; the others are lost."""
    neutral = []
    for name, found in given.found.items():
        if name in given.asked:
            continue
        known = LEFT_OUT.get(name, UNKNOWN)
        if known.neutral is None or (found.value in known.neutral and not found.why):
            neutral.append(f"{given.words(name)}: {known.why}")
        else:
            given.lose(name, f"{found.why}; {known.why}" if found.why else known.why)
    return neutral


def _rec(given: Given) -> str:
    rec = given.text("rec")
    if rec == SYNTHETIC:
        given.lose("rec", "images that are made up have no counterpart; set data.train")
        return ""
    if not PurePosixPath(rec).name.strip("."):
        raise given.wrong("rec", "names no folder", "name the folder of train.rec")
    return rec


def _run(given: Given) -> Settings:
    seed = Setting(given.whole("seed", 0), given.words("seed"))
    if given.value("output") is None:
        stem = PurePosixPath(given.name).stem
        return {"dir": Setting(f"runs/{stem}", "config.output = None"), "seed": seed}
    return {"dir": Setting(given.text("output"), given.words("output")), "seed": seed}


def _data(given: Given, rec: str) -> Settings:
    workers = given.whole("num_workers", 0)
    train = {"train": Setting(pack_of(rec), given.words("rec"))} if rec else {}
    return {
        **train,
        "second": Setting("online", "of a pack of single images"),
        "workers": Setting(max(1, workers), given.words("num_workers")),
        "flip_probability": Setting(0.5, "as there; nothing else changes an image"),
        "shift_pixels": Setting(0, ""),
        "brightness": Setting(0.0, ""),
        "contrast": Setting(0.0, ""),
    }


def _measured(given: Given, rec: str, batch: Batch) -> dict[str, Settings]:
    """The sections ``evaluate`` and ``checkpoint``."""
    targets = given.listed("val_targets", is_text, "texts")
    interval = every(given, "verbose", batch)
    if targets and not rec:
        given.lose("val_targets", "their files stand beside train.rec; set evaluate.sets")
    if not targets or not rec:
        return {"evaluate": {}, "checkpoint": {}}
    sets = [f"{rec.rstrip('/')}/{target}.bin" for target in targets]
    best = f"{PurePosixPath(sets[-1]).stem}/accuracy"
    origin = f"{given.words('val_targets')}; all must be there"
    return {
        "evaluate": {"sets": Setting(sets, origin), "every_steps": interval},
        "checkpoint": {"best_metric": Setting(best, "which checkpoint is kept as best")},
    }


def pack_of(rec: str) -> str:
    """Where the pack of a folder of images may be."""
    return f"packs/{PurePosixPath(rec).name}"
