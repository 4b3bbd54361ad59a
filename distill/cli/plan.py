"""`pairdistill plan`: memory, network and time of a run before it is started."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distill.errors import UserError

if TYPE_CHECKING:
    from distill.config import Config
    from distill.planner.choose import Comparison


def plan_command(
    config_path: Annotated[
        Path, typer.Argument(metavar="CONFIG.toml", help="Settings of the run.", show_default=False)
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="a.b=c", help="Settings that replace those of the file."),
    ] = None,
    ranks: Annotated[int, typer.Option(min=1, help="GPUs, over all nodes.")] = 8,
    identities: Annotated[
        int | None,
        typer.Option(min=2, help="People to tell apart.", show_default="those of data.train"),
    ] = None,
    gpu: Annotated[str, typer.Option(help="h100, h200, a100, a100-40 or l40s.")] = "h100",
    gpu_gib: Annotated[
        float | None, typer.Option(min=0.1, help="Its memory, GiB.", show_default="by --gpu")
    ] = None,
    tflops: Annotated[
        float | None,
        typer.Option(min=0.1, help="Its peak in the run's precision.", show_default="by --gpu"),
    ] = None,
    hbm_gb_s: Annotated[
        float | None, typer.Option(min=1, help="To its memory, GB/s.", show_default="by --gpu")
    ] = None,
    network_gb_s: Annotated[
        float | None,
        typer.Option(min=0.01, help="Between nodes, GB/s a GPU.", show_default="by --gpu"),
    ] = None,
    ranks_per_node: Annotated[int, typer.Option(min=1, help="GPUs of a node.")] = 8,
    sample_rate: Annotated[
        list[float] | None,
        typer.Option(min=1e-6, max=1.0, help="Show sharded heads with this rate as well."),
    ] = None,
    arithmetic_share: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Of the peak that products reach.")
    ] = 0.5,
    memory_share: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Of the peak that its memory reaches.")
    ] = 0.75,
    network_share: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Of the peak that the network reaches.")
    ] = 0.75,
    headroom: Annotated[
        float,
        typer.Option(min=0.0, max=0.9, help="Share of the memory for what is no tensor."),
    ] = 0.1,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Predict memory, network and time of every ZeRO stage, head and loss, and propose one.

    **Examples**

        pairdistill plan run.toml --ranks 8

        pairdistill plan run.toml train.precision=bf16 --ranks 32 --identities 2000000 --gpu a100

        pairdistill plan run.toml --ranks 8 --gpu-gib 40 --sample-rate 0.2 --json

    Nothing is trained and no GPU is needed. `docs/planner.md` says how the figures come about.
    Exit status 2 where nothing fits.
    """
    from distill.config import load_config
    from distill.planner.choose import compare, what_would_fit
    from distill.planner.clock import Machine
    from distill.planner.gpus import gpu_named

    config = load_config(config_path, overrides or [])
    known = gpu_named(gpu)
    half = config.train.precision != "fp32"
    machine = Machine(
        gpu=replace(
            known,
            memory_gib=gpu_gib or known.memory_gib,
            half_tflops=tflops if tflops and half else known.half_tflops,
            single_tflops=tflops if tflops and not half else known.single_tflops,
            memory_gb_s=hbm_gb_s or known.memory_gb_s,
            network_gb_s=network_gb_s or known.network_gb_s,
        ),
        ranks_per_node=ranks_per_node,
        arithmetic=arithmetic_share,
        memory=memory_share,
        network=network_share,
        headroom=headroom,
    )
    classes = identities or identities_of(config)
    found = compare(config, classes, machine, ranks, tuple(sample_rate or ()))
    _print(found, config, as_json=json)
    if found.best is None:
        raise what_would_fit(found)


def identities_of(config: Config) -> int:
    """The people of the training packs.

    Raises:
        UserError: there are none, or they cannot be opened.
    """
    from distill.plan import training_set

    if not config.data.train_packs:
        raise UserError(
            "data.train is empty: the number of identities is not known",
            fix="set it to a pack, or give --identities",
        )
    return len(training_set(config.data).identities)


def _print(found: Comparison, config: Config, *, as_json: bool) -> None:
    from distill.cli.inspect import print_json
    from distill.console import say, show
    from distill.planner import show as tables

    if as_json:
        print_json(tables.as_json(found))
        return
    say(tables.heading(found, config.model.name) + "\n")
    show(tables.comparison_table(found))
    if found.best is not None:
        say(f"\nTake {' '.join(found.best.choice.overrides)}\n")
        show(tables.parts_table(found, found.best))
        if found.best.traffic:
            say("")
            show(tables.traffic_table(found, found.best))
