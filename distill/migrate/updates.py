"""The loss and the updates of arcface_torch in our settings, so that an update is one of there.

There, each of G GPUs takes ``batch_size`` images a pass, and ``gradient_acc`` passes, K, add up
their gradients to one update; their sum, not their mean. Here a global batch is cut into K parts,
whose gradients are averaged. A sum is K times the mean, so for SGD

    lr (K g + d w) = (K lr) (g + (d / K) w)

and for AdamW, which divides by the length of the gradient, epsilon / K does the same; a norm of K g
is held below 5 where that of g is held below 5 / K. Steps there are counted in passes.
"""

from __future__ import annotations

from distill.migrate.facts import CLIP_NORM, EPS, MOMENTUM
from distill.migrate.given import Given
from distill.migrate.settings import Batch, Images, Setting, Settings


def loss_of(images: Images) -> Settings:
    """The section ``loss``."""
    if images == "first":
        return {"similarity": Setting("none", "there is no second image")}
    return {
        "ce": Setting("mean", "of all images of a step, as there"),
        "weight": Setting(0.5, "beside a mean what 1.0 is beside a sum"),
    }


def optimizer_of(given: Given, batch: Batch) -> Settings:
    """The section ``optimizer``."""
    name = given.text("optimizer")
    if name not in ("sgd", "adamw"):
        raise given.wrong("optimizer", 'must be "sgd" or "adamw"', "correct that line")
    summed = f", of a sum of {batch.passes} gradients" if batch.passes > 1 else ""
    return {
        "name": Setting(name, given.words("optimizer")),
        "lr_batch_pairs": Setting(batch.pairs, "which the rate is meant for"),
        **(_sgd if name == "sgd" else _adamw)(given, batch.passes, summed),
        "clip_norm": Setting(CLIP_NORM / batch.passes, f"as in its train_v2.py{summed}"),
        "clip_head": Setting(False, "its norm is that of the backbone alone"),
        "schedule": Setting("polynomial", "as its PolynomialLRWarmup"),
        "power": Setting(1.0, ""),
        "warmup_steps": _warmup(given, batch),
    }


def _sgd(given: Given, passes: int, summed: str) -> Settings:
    if given.any_number("momentum") != MOMENTUM:
        given.lose("momentum", f"train_v2.py does not ask for it and takes {MOMENTUM}")
    lr, decay = given.number("lr", positive=True), given.number("weight_decay")
    return {
        "lr": Setting(lr * passes, given.words("lr") + summed),
        "momentum": Setting(MOMENTUM, "as in its train_v2.py"),
        "weight_decay": Setting(decay / passes, given.words("weight_decay") + summed),
    }


def _adamw(given: Given, passes: int, summed: str) -> Settings:
    lr, decay = given.number("lr", positive=True), given.number("weight_decay")
    return {
        "lr": Setting(lr, given.words("lr")),
        "eps": Setting(EPS / passes, f"as in torch{summed}"),
        "weight_decay": Setting(decay, given.words("weight_decay")),
    }


def _warmup(given: Given, batch: Batch) -> Setting:
    epochs, words = given.any_number("warmup_epoch"), given.words("warmup_epoch")
    if epochs <= 0:
        return Setting(0, words)
    steps = given.whole("num_image", 1) // batch.pairs_a_pass
    origin = f"{words}, of {steps} {'passes' if batch.passes > 1 else 'steps'} each"
    return Setting(int(steps * epochs) // batch.passes, origin)


def train_of(given: Given, batch: Batch, images: Images) -> Settings:
    """The section ``train``."""
    half, epochs = given.flag("fp16"), given.whole("num_epoch", 1)
    twice = ", of pairs, so of twice the steps" if images == "pair" else ""
    return {
        "images": Setting(images, "as there" if images == "first" else ""),
        "epochs": Setting(epochs, given.words("num_epoch") + twice),
        "global_batch_pairs": Setting(batch.pairs, batch.origin),
        "accumulation": Setting(batch.passes, given.words("gradient_acc")),
        "precision": Setting("fp16" if half else "fp32", given.words("fp16")),
    }


def every(given: Given, name: str, batch: Batch) -> Setting:
    """An interval, which counts passes there, in updates."""
    return Setting(max(1, given.whole(name, 1) // batch.passes), given.words(name))
