"""Configurations of arcface_torch as text, and what is made of them; no test itself."""

from __future__ import annotations

from distill.migrate.given import Given
from distill.migrate.read import read_text
from distill.migrate.translate import migrate

HEAD = "from easydict import EasyDict as edict\nconfig = edict()\n"
NEEDED = {
    "rec": "/data/ms1mv3", "num_epoch": 20, "warmup_epoch": 0, "val_targets": [],
    "num_classes": 93431, "num_image": 5179510,
}  # fmt: skip


def text_of(**values):
    return HEAD + "".join(f"config.{name} = {value!r}\n" for name, value in values.items())


def migrated(text, *overrides, ranks=8, images="first"):
    found = read_text(text, "c.py")
    return migrate(Given("c.py", found), ranks=ranks, images=images, overrides=overrides)


def config_of(*overrides, ranks=8, images="first", **values):
    return migrated(text_of(**{**NEEDED, **values}), *overrides, ranks=ranks, images=images).config
