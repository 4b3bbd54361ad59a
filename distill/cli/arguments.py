"""Arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from distill.processes.cores import usable_cores

_SETTINGS = typer.Argument(metavar="CONFIG.toml", help="Settings of the run.", show_default=False)

ConfigPath: TypeAlias = Annotated[Path, _SETTINGS]
MaybeConfigPath: TypeAlias = Annotated[Path | None, _SETTINGS]


def settings_like(begun: str) -> list[str]:
    """The settings whose name begins so, for the shell to complete; of a ramp first the whole."""
    from distill.config.explain import known_keys

    dots = max(1, begun.count("."))
    return [f"{key}=" for key in known_keys() if key.count(".") == dots and key.startswith(begun)]


Overrides: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="a.b=c",
        help="Settings that replace those of the file.",
        autocompletion=settings_like,
    ),
]
_RUN = "Run folder (its newest good checkpoint), a checkpoint, "
RunWeights: TypeAlias = Annotated[
    Path, typer.Argument(metavar="RUN", help=f"{_RUN}or model.safetensors.", show_default=False)
]
BackboneWeights: TypeAlias = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        help=f"{_RUN}model.safetensors, or a backbone of arcface_torch as safetensors.",
        show_default=False,
    ),
]
Photographs: TypeAlias = Annotated[
    list[Path],
    typer.Argument(
        metavar="PHOTO_OR_FOLDER",
        help="Photographs; of a folder all images at any depth.",
        show_default=False,
    ),
]
Aligned: TypeAlias = Annotated[
    bool, typer.Option("--aligned", help="They are aligned faces already: no detection.")
]
DeviceName: TypeAlias = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Workers: TypeAlias = Annotated[
    int,
    typer.Option(
        min=0,
        help="Processes that find and align faces, at most one a core; 0 for one a core where"
        " there are many photographs (aligned ones beside a GPU), 1 for none beside this.",
    ),
]


def at_most_one_a_core(workers: int) -> int:
    """No more worker processes than cores, which would only take memory; with a note."""
    from distill.console import warn

    cores = usable_cores()
    if workers <= cores:
        return workers
    warn(f"--workers {workers}: this process has {cores} cores; using {cores}")
    return cores
