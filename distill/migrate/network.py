"""The network of arcface_torch in our settings."""

from __future__ import annotations

import math
from collections.abc import Collection

from distill.errors import UserError
from distill.migrate.facts import NETWORKS, RECOMPUTED, SCALE
from distill.migrate.given import Given, is_number
from distill.migrate.settings import Setting, Settings

MARGINS = 3


def model_of(given: Given, changed: Collection[str]) -> Settings:
    """The section ``model``.

    Args:
        given: their settings.
        changed: settings of ours, ``section.name``, that the user gives.

    Raises:
        UserError: a network without counterpart, and no other one is given.
    """
    settings = {
        "embedding_dim": Setting(given.whole("embedding_size", 1), given.words("embedding_size")),
        "dropout": Setting(0.0, "as there"),
    }
    network = given.text("network")
    if network in RECOMPUTED:
        settings["recompute"] = Setting("blocks", "as there, of this network")
    if network in NETWORKS:
        return {"name": Setting(NETWORKS[network], given.words("network")), **settings}
    if "model.name" not in changed:
        raise given.wrong(
            "network",
            f"has no counterpart; {', '.join(NETWORKS)} have",
            "choose another one with model.name=NAME behind the file",
        )
    given.lose("network", "has no counterpart; model.name is another network")
    return settings


def head_of(given: Given, changed: Collection[str]) -> Settings:
    """The section ``head``.

    Raises:
        UserError: a margin or a rate without counterpart, and no other one is given.
    """
    return {
        "kind": Setting("cosine", "as there"),
        "scale": Setting(SCALE, "as there"),
        **_margin(given, changed),
        "placement": Setting("sharded", "as its PartialFC_V2"),
        **_sample_rate(given, changed),
    }


def _margin(given: Given, changed: Collection[str]) -> Settings:
    """As its CombinedMarginLoss: the last number alone where it is above 0, else the second."""
    margins = given.listed("margin_list", is_number, f"{MARGINS} numbers")
    if len(margins) != MARGINS:
        raise _no_margin(given, f"must be a list of {MARGINS} numbers")
    if "head.margin" in changed:
        given.lose("margin_list", "head.margin is another")
        return {}
    factor, angle, cosine = margins
    words = given.words("margin_list")
    if cosine > 0:
        if (factor, angle) != (1, 0):
            given.lose("margin_list", "there too only the last number counts if above 0")
        if cosine >= 1:
            raise _no_margin(given, "a cosine margin of 1 or more has no counterpart")
        return {"margin": Setting("cosface", words), "cos_margin": Setting(float(cosine), "")}
    if (factor, cosine) != (1, 0):
        raise _no_margin(given, "refused by arcface_torch itself, without counterpart here")
    if not 0 <= angle < math.pi / 2:
        raise _no_margin(given, "an angle below 0, or of 90 degrees and more, has no counterpart")
    return {
        "margin": Setting("arcface", words),
        "arc_margin_rad": Setting(float(angle), ""),
        "margin_slope": Setting("one", "no gradient passes the angle there"),
    }


def _no_margin(given: Given, what: str) -> UserError:
    fix = "write (1.0, ANGLE, 0.0) or (1.0, 0.0, COSINE), or choose with head.margin=NAME"
    return given.wrong("margin_list", what, fix)


def _sample_rate(given: Given, changed: Collection[str]) -> Settings:
    rate = given.number("sample_rate")
    if "head.sample_rate" in changed:
        given.lose("sample_rate", "head.sample_rate is another")
        return {}
    if not 0 < rate <= 1:
        raise given.wrong(
            "sample_rate",
            "has no counterpart, which is a share above 0, of at most 1",
            "choose another one with head.sample_rate=SHARE behind the file",
        )
    return {"sample_rate": Setting(rate, given.words("sample_rate"))}
