"""Settings of ours with where each comes from, as the text of a run.toml."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator

from distill.config import toml_value
from distill.errors import one_line
from distill.migrate.settings import Setting
from distill.migrate.translate import Migrated

WIDTH = 98
GPUS_OF_A_NODE = 8
"""As its configurations have them."""
OTHERWISE = (
    "Weight decay leaves biases, normalisations and slopes alone.",
    "Warm-up begins at its lowest rate; there the first step of all is made at the full one.",
    "Gradients keep their type between ranks; there those of the backbone travel as halves.",
    "Running statistics are averaged over ranks; there the first rank's are saved.",
    "Images are encoded anew by `pack`, with quality 95 (`--quality 100` is nearest to theirs).",
    "Rows of the head that a step with sample_rate is not about rest; there they decay.",
)


def as_toml(migrated: Migrated, name: str, ranks: int, out: str) -> str:
    """The text of a run.toml.

    Args:
        migrated: the settings.
        name: of the file that they come from.
        ranks: GPUs that they are meant for.
        out: what the text will be called.
    """
    lines = [f"# {line}".rstrip() for line in _head(migrated, name, ranks, out)]
    for section, settings in migrated.sections.items():
        if settings:
            lines += ["", f"[{section}]"]
            for each in settings.items():
                lines += _lines(*each)
    return "\n".join(lines) + "\n"


def _head(migrated: Migrated, name: str, ranks: int, out: str) -> Iterator[str]:
    yield one_line(f"From {name} of InsightFace's arcface_torch; what it does not say, from its")
    yield "configs/base.py. docs/arcface.md says more."
    yield ""
    for words in _commands(migrated, ranks, out):
        yield f"    {shlex.join(words)}"
    for title, told in (
        ("Not taken over:", migrated.lost),
        ("Not needed:", migrated.neutral),
        ("Other than there, whatever the settings:", OTHERWISE),
    ):
        if told:
            yield from ["", title]
        for each in told:
            yield from textwrap.wrap(each, WIDTH, initial_indent="- ", subsequent_indent="  ")


def _commands(migrated: Migrated, ranks: int, out: str) -> Iterator[list[str]]:
    """What to do next; more ranks than a machine has GPUs are a job of several."""
    data = migrated.config.data
    packs = data.train_packs
    if migrated.rec and len(packs) == 1:
        layout = ["--layout", "singles"] if data.second == "online" else []
        yield ["pairdistill", "pack", migrated.rec, one_line(packs[0]), "--aligned", *layout]
    if ranks > GPUS_OF_A_NODE and ranks % GPUS_OF_A_NODE == 0:
        nodes = ["--nodes", str(ranks // GPUS_OF_A_NODE), "--gpus-per-node", str(GPUS_OF_A_NODE)]
        yield ["pairdistill", "submit", one_line(out), *nodes]
    else:
        yield ["pairdistill", "train", one_line(out), "--ranks", str(ranks)]


def _lines(name: str, setting: Setting) -> list[str]:
    """A setting, and where it comes from: behind it, or in front of a long one."""
    line, comment = f"{name} = {toml_value(setting.value)}", f"# {one_line(setting.origin)}"
    if not setting.origin:
        return [line]
    together = f"{line}  {comment}"
    return [together] if len(together) <= WIDTH else [comment, line]
