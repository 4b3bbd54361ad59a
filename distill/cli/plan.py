"""`pairdistill plan`: memory, network and time of a run before it is started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from distill.cli.arguments import ConfigPath, Overrides
from distill.cli.machine_options import GpuWords, ShareWords, machine
from distill.errors import UserError

if TYPE_CHECKING:
    from distill.config import Config
    from distill.planner.choose import Comparison


def plan_command(
    config_path: ConfigPath,
    overrides: Overrides = None,
    ranks: Annotated[int, typer.Option(min=1, help="GPUs, over all nodes.")] = 8,
    identities: Annotated[
        int | None,
        typer.Option(min=2, help="People to tell apart.", show_default="those of data.train"),
    ] = None,
    *,
    gpu: GpuWords,
    sample_rate: Annotated[
        list[float] | None,
        typer.Option(min=1e-6, max=1.0, help="Show sharded heads with this rate as well."),
    ] = None,
    shares: ShareWords,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Predict memory, network and time of every ZeRO stage, head and loss, and propose one.

    **Examples**

        pairdistill plan run.toml --ranks 8

        pairdistill plan run.toml train.precision=bf16 --ranks 32 --identities 2000000 --gpu a100

        pairdistill plan run.toml --ranks 8 --gpu-gib 40 --sample-rate 0.2 --json

    Nothing is trained and no GPU is needed. What `train` would refuse of the packs, sets and
    weights that it reads is refused; with `--identities` none of them is looked at.
    `docs/planner.md` says how the figures come about. Exit status 2 where nothing fits.
    """
    from distill.config import load_config
    from distill.planner.choose import compare
    from distill.planner.show import what_would_fit

    config = load_config(config_path, overrides or [])
    planned_for = machine(gpu, shares, config.train.precision)
    classes = identities or identities_of(config)
    found = compare(config, classes, planned_for, ranks, tuple(sample_rate or ()))
    _print(found, config, as_json=json)
    if found.best is None:
        raise what_would_fit(found)


def identities_of(config: Config) -> int:
    """The people of the training packs; what of the settings comes to nothing is warned of.

    Raises:
        UserError: there are none, or training would refuse them or what else it reads.
    """
    from distill.console import warn
    from distill.inputs import read_inputs
    from distill.plan import come_to_nothing, steps_of_run

    if not config.data.train_packs:
        raise UserError(
            "data.train is empty: the number of identities is not known",
            fix="set it to a pack, or give --identities",
        )
    inputs = read_inputs(config)
    steps = steps_of_run(config.train, inputs.train.pairs)
    for text in come_to_nothing(config, steps, evaluates=inputs.evaluates):
        warn(text)
    return len(inputs.train.identities)


def _print(found: Comparison, config: Config, *, as_json: bool) -> None:
    from distill.console import paragraph, say, say_json, show
    from distill.planner import show as tables

    if as_json:
        say_json(tables.as_json(found))
        return
    paragraph(tables.heading(found, config.model.name) + "\n")
    show(tables.comparison_table(found))
    if found.best is not None:
        paragraph(f"\nTake {' '.join(found.best.choice.overrides)}\n")
        show(tables.parts_table(found.best))
        if found.best.traffic:
            say("")
            show(tables.traffic_table(found, found.best))
