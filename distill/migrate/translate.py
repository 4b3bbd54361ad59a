"""Settings of arcface_torch as ours, so that a step here is a step there.

There, each of G GPUs takes ``batch_size`` images a pass, and ``gradient_acc`` passes, K, add up
their gradients to one update; their sum, not their mean. Here a global batch is cut into K parts,
whose gradients are averaged. A sum is K times the mean, so for SGD

    lr (K g + d w) = (K lr) (g + (d / K) w)

and for AdamW, which divides by the length of the gradient, epsilon / K does the same; a norm of K g
is held below 5 where that of g is held below 5 / K. Steps there are counted in passes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple

from distill.config import Config, as_override, load_config, parse_overrides
from distill.migrate.facts import (
    CLIP_NORM,
    EPS,
    LEFT_OUT,
    MOMENTUM,
    NETWORKS,
    SCALE,
    UNKNOWN,
)
from distill.migrate.given import Given, is_number, is_text

Images = Literal["first", "pair"]
MARGINS = 3
SYNTHETIC = "synthetic"
"""What ``rec`` is called where images are made up."""


class Setting(NamedTuple):
    """A value of ours, and where it comes from."""

    value: Any
    origin: str


Sections = dict[str, dict[str, Setting]]


class Batch(NamedTuple):
    """What a step is made of.

    Attributes:
        pairs_a_pass: over all GPUs; with first images alone, a pair is one image.
        passes: whose gradients make one update, K.
        origin: where the numbers come from.
    """

    pairs_a_pass: int
    passes: int
    origin: str

    @property
    def pairs(self) -> int:
        """Of one update."""
        return self.pairs_a_pass * self.passes


class Migrated(NamedTuple):
    """A configuration as ours.

    Attributes:
        sections: what the file says, by section and name.
        config: the same over our defaults, checked.
        neutral: settings that were left out and ask for nothing that is not so here anyway.
        lost: settings that were left out and ask for something, and other differences.
        rec: the folder of its images; empty where it has none.
    """

    sections: Sections
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
    return _Translation(given, images, parse_overrides(overrides)).done(ranks)


Changes = Mapping[str, Mapping[str, Any]]


class _Translation:
    def __init__(self, given: Given, images: Images, changes: Changes) -> None:
        self.given, self.images, self.changes = given, images, changes
        self.lost: list[str] = []

    def done(self, ranks: int) -> Migrated:
        batch = self._batch(ranks)
        rec = self._rec()
        sections: Sections = {
            "run": self._run(),
            "data": self._data(rec),
            "model": self._model(),
            "head": self._head(),
            "loss": self._loss(),
            "optimizer": self._optimizer(batch),
            "train": self._train(batch),
            "evaluate": {},
            "checkpoint": {},
            "monitor": self._monitor(batch),
        }
        self._sets(sections, rec, batch)
        self._change(sections)
        words = [
            as_override(f"{section}.{name}", setting.value)
            for section, settings in sections.items()
            for name, setting in settings.items()
        ]
        neutral = self._left_out()
        return Migrated(sections, load_config(None, words), neutral, self.lost, rec)

    def _words(self, name: str) -> str:
        return self.given.words(name)

    def _is_changed(self, key: str) -> bool:
        section, _, name = key.partition(".")
        return name in self.changes.get(section, {})

    def _change(self, sections: Sections) -> None:
        for section, settings in self.changes.items():
            sections[section] |= {n: Setting(v, "as asked for") for n, v in settings.items()}

    def _lose(self, name: str, why: str) -> None:
        found = self.given.found.get(name)
        where = f"{self.given.name}:{found.line}: " if found else ""
        self.lost.append(f"{where}{self._words(name)}: {why}")

    def _left_out(self) -> list[str]:
        """Settings that nobody asked for: those of no consequence; the others are lost."""
        neutral = []
        for name, found in self.given.found.items():
            if name in self.given.asked:
                continue
            known = LEFT_OUT.get(name, UNKNOWN)
            if known.neutral is None or (found.value in known.neutral and not found.why):
                neutral.append(f"{self._words(name)}: {known.why}")
            else:
                self._lose(name, f"{found.why}; {known.why}" if found.why else known.why)
        return neutral

    def _batch(self, ranks: int) -> Batch:
        a_gpu, passes = self.given.whole("batch_size", 1), self.given.whole("gradient_acc", 1)
        origin = f"{self._words('batch_size')} on {ranks} GPUs"
        if passes > 1:
            origin += f", {self._words('gradient_acc')}"
        if self.images == "first":
            return Batch(a_gpu * ranks, passes, origin)
        if a_gpu % 2:
            raise self.given.wrong(
                "batch_size",
                "an odd number of images is no number of pairs",
                "make it even, or take first images alone: --images first",
            )
        return Batch(a_gpu // 2 * ranks, passes, f"{origin}, two images a pair")

    def _rec(self) -> str:
        rec = self.given.text("rec")
        if rec == SYNTHETIC:
            self._lose("rec", "images that are made up have no counterpart; set data.train")
            return ""
        if not PurePosixPath(rec).name.strip("."):
            raise self.given.wrong("rec", "names no folder", "name the folder of train.rec")
        return rec

    def _run(self) -> dict[str, Setting]:
        seed = Setting(self.given.whole("seed", 0), self._words("seed"))
        if self.given.value("output") is None:
            stem = PurePosixPath(self.given.name).stem
            return {"dir": Setting(f"runs/{stem}", "config.output = None"), "seed": seed}
        return {"dir": Setting(self.given.text("output"), self._words("output")), "seed": seed}

    def _data(self, rec: str) -> dict[str, Setting]:
        workers = self.given.whole("num_workers", 0)
        train = {"train": Setting(pack_of(rec), self._words("rec"))} if rec else {}
        return {
            **train,
            "second": Setting("online", "of a pack of single images"),
            "workers": Setting(max(1, workers), self._words("num_workers")),
            "flip_probability": Setting(0.5, "as there; nothing else changes an image"),
            "shift_pixels": Setting(0, ""),
            "brightness": Setting(0.0, ""),
            "contrast": Setting(0.0, ""),
        }

    def _model(self) -> dict[str, Setting]:
        dim = Setting(self.given.whole("embedding_size", 1), self._words("embedding_size"))
        network = self.given.text("network")
        if network in NETWORKS:
            name = Setting(NETWORKS[network], self._words("network"))
            return {"name": name, "embedding_dim": dim, "dropout": Setting(0.0, "as there")}
        if not self._is_changed("model.name"):
            raise self.given.wrong(
                "network",
                f"has no counterpart; {', '.join(NETWORKS)} have",
                "choose another one with model.name=NAME behind the file",
            )
        self._lose("network", "has no counterpart; model.name is another network")
        return {"embedding_dim": dim, "dropout": Setting(0.0, "as there")}

    def _head(self) -> dict[str, Setting]:
        return {
            "kind": Setting("cosine", "as there"),
            "scale": Setting(SCALE, "as there"),
            **self._margin(),
            "placement": Setting("sharded", "as its PartialFC_V2"),
            **self._sample_rate(),
        }

    def _margin(self) -> dict[str, Setting]:
        words = self._words("margin_list")
        margins = self.given.listed("margin_list", is_number, f"{MARGINS} numbers")
        if len(margins) != MARGINS:
            raise self._no_margin(f"must be a list of {MARGINS} numbers")
        factor, angle, cosine = margins
        if self._is_changed("head.margin"):
            self._lose("margin_list", "head.margin is another")
            return {}
        if cosine > 0:
            if (factor, angle) != (1, 0):
                self._lose("margin_list", "there too only the last number counts if above 0")
            if cosine >= 1:
                raise self._no_margin("a cosine margin of 1 or more has no counterpart")
            margin = Setting("cosface", words)
            return {"margin": margin, "cos_margin": Setting(float(cosine), "")}
        if (factor, cosine) != (1, 0):
            raise self._no_margin("refused by arcface_torch itself, without counterpart here")
        if not 0 <= angle < math.pi / 2:
            raise self._no_margin("an angle below 0, or of 90 degrees and more, has no counterpart")
        margin = Setting("arcface", words)
        return {"margin": margin, "arc_margin_rad": Setting(float(angle), "")}

    def _no_margin(self, what: str) -> Exception:
        fix = "write (1.0, ANGLE, 0.0) or (1.0, 0.0, COSINE), or choose with head.margin=NAME"
        return self.given.wrong("margin_list", what, fix)

    def _sample_rate(self) -> dict[str, Setting]:
        rate = self.given.number("sample_rate")
        if self._is_changed("head.sample_rate"):
            self._lose("sample_rate", "head.sample_rate is another")
            return {}
        if not 0 < rate <= 1:
            raise self.given.wrong(
                "sample_rate",
                "has no counterpart, which is a share above 0, of at most 1",
                "choose another one with head.sample_rate=SHARE behind the file",
            )
        return {"sample_rate": Setting(rate, self._words("sample_rate"))}

    def _loss(self) -> dict[str, Setting]:
        if self.images == "first":
            return {"similarity": Setting("none", "there is no second image")}
        return {
            "ce": Setting("mean", "of all images of a step, as there"),
            "weight": Setting(0.5, "beside a mean what 1.0 is beside a sum"),
        }

    def _optimizer(self, batch: Batch) -> dict[str, Setting]:
        name = self.given.text("optimizer")
        if name not in ("sgd", "adamw"):
            raise self.given.wrong("optimizer", 'must be "sgd" or "adamw"', "correct that line")
        passes = batch.passes
        summed = f", of a sum of {passes} gradients" if passes > 1 else ""
        lr, decay = self.given.number("lr", positive=True), self.given.number("weight_decay")
        self.given.any_number("momentum")
        if name == "sgd":
            special = {"momentum": Setting(MOMENTUM, "as in its train_v2.py")}
            if self.given.value("momentum") != MOMENTUM:
                self._lose("momentum", f"train_v2.py does not ask for it and takes {MOMENTUM}")
            lr, decay = lr * passes, decay / passes
        else:
            special = {"eps": Setting(EPS / passes, f"as in torch{summed}")}
        return {
            "name": Setting(name, self._words("optimizer")),
            "lr": Setting(lr, self._words("lr") + summed * (name == "sgd")),
            "lr_batch_pairs": Setting(batch.pairs, "which the rate is meant for"),
            **special,
            "weight_decay": Setting(decay, self._words("weight_decay") + summed * (name == "sgd")),
            "clip_norm": Setting(CLIP_NORM / passes, f"as in its train_v2.py{summed}"),
            "schedule": Setting("polynomial", "as its PolynomialLRWarmup"),
            "power": Setting(1.0, ""),
            "warmup_steps": self._warmup(batch),
        }

    def _warmup(self, batch: Batch) -> Setting:
        epochs = self.given.any_number("warmup_epoch")
        words = self._words("warmup_epoch")
        if epochs <= 0:
            return Setting(0, words)
        steps = self.given.whole("num_image", 1) // batch.pairs_a_pass
        origin = f"{words}, of {steps} {'passes' if batch.passes > 1 else 'steps'} each"
        return Setting(int(steps * epochs) // batch.passes, origin)

    def _train(self, batch: Batch) -> dict[str, Setting]:
        half = self.given.flag("fp16")
        epochs = self.given.whole("num_epoch", 1)
        twice = ", of pairs, so of twice the steps" if self.images == "pair" else ""
        return {
            "images": Setting(self.images, "as there" if self.images == "first" else ""),
            "epochs": Setting(epochs, self._words("num_epoch") + twice),
            "global_batch_pairs": Setting(batch.pairs, batch.origin),
            "accumulation": Setting(batch.passes, self._words("gradient_acc")),
            "precision": Setting("fp16" if half else "fp32", self._words("fp16")),
        }

    def _monitor(self, batch: Batch) -> dict[str, Setting]:
        return {"log_every_steps": self._every("frequent", batch)}

    def _every(self, name: str, batch: Batch) -> Setting:
        """So many passes as updates."""
        passes = self.given.whole(name, 1)
        return Setting(max(1, passes // batch.passes), self._words(name))

    def _sets(self, sections: Sections, rec: str, batch: Batch) -> None:
        targets = self.given.listed("val_targets", is_text, "texts")
        every = self._every("verbose", batch)
        if not targets:
            return
        if not rec:
            self._lose("val_targets", "their files stand beside train.rec; set evaluate.sets")
            return
        sets = [f"{rec.rstrip('/')}/{target}.bin" for target in targets]
        sections["evaluate"] = {
            "sets": Setting(sets, f"{self._words('val_targets')}; all must be there"),
            "every_steps": every,
        }
        best = f"{PurePosixPath(sets[-1]).stem}/accuracy"
        sections["checkpoint"] = {"best_metric": Setting(best, "which checkpoint is kept as best")}


def pack_of(rec: str) -> str:
    """Where the pack of a folder of images may be."""
    return f"packs/{PurePosixPath(rec).name}"
