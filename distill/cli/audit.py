"""`pairdistill audit`: which photographs of a training pack are probably of somebody else."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distill.cli.arguments import RunWeights, settings_like
from distill.cli.local_ranks import is_local_rank, on_local_ranks, wants_local_ranks

if TYPE_CHECKING:
    from distill.audit import Asked
    from distill.checkpoint import Stored
    from distill.data.manifest import Pack
    from distill.trained import TrainedBackbone


def audit_command(
    weights: RunWeights,
    pack: Annotated[
        Path,
        typer.Argument(
            metavar="PACK", help="Folder of a pack that it was trained on.", show_default=False
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="a.b=c",
            help="Settings that replace those of the training.",
            autocompletion=settings_like,
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(help="List of photographs; that of people is beside it, NAME-people.csv."),
    ] = Path("audit.csv"),
    degrees: Annotated[
        float,
        typer.Option(
            min=0, max=180, help="Photographs further from their dominant centre are listed."
        ),
    ] = 75.0,
    alike_degrees: Annotated[
        float,
        typer.Option(
            min=0, max=180, help="People whose centres are nearer are listed; 0 for no such list."
        ),
    ] = 60.0,
    few: Annotated[
        int, typer.Option(min=1, help="Count people who are left with fewer photographs.")
    ] = 10,
    ranks: Annotated[
        int, typer.Option(min=1, help="Processes on this machine that share the photographs.")
    ] = 1,
) -> None:
    """List photographs that are far from the others of their identity, and people who are alike.

    **Examples**

        pairdistill audit runs/first packs/mine/train --ranks 2

        pairdistill train second.toml data.exclude=audit.csv

    An angle is that of the embedding to the *dominant* centre: with head.sub_centres = 3 the one
    of three that most photographs of the identity are nearest to. Nothing is changed or removed:
    look at the lists, delete lines that are wrong, and train without the rest by data.exclude
    (docs/audit.md).
    """
    from distill.audit import Asked

    asked = Asked(out, degrees, alike_degrees, few)
    words = overrides or []
    if wants_local_ranks(ranks):
        with ExitStack() as stack:  # mistakes are found here, before any rank starts
            trained, _, _ = prepared(weights, words, pack, asked, stack)
            origin = trained.origin
        numbers = ("--degrees", degrees), ("--alike-degrees", alike_degrees), ("--few", few)
        options = [str(word) for pair in (("--out", out), *numbers) for word in pair]
        given = ["audit", *options, "--", str(origin), str(pack), *words]
        raise typer.Exit(on_local_ranks(given, ranks))
    audit_here(weights, words, pack, asked)


def prepared(
    weights: Path, words: Sequence[str], folder: Path, asked: Asked, stack: ExitStack
) -> tuple[TrainedBackbone, Stored, Pack]:
    """The network, its files and the pack, with everything checked that can be wrong.

    Raises:
        UserError: bad weights or settings, no pack, people who do not fit, or a file that cannot
            be written.
    """
    import torch

    from distill.audit.centres import Centres
    from distill.audit.run import classes_of_labels
    from distill.checkpoint import open_weights
    from distill.data.manifest import read_pack
    from distill.files import check_room_for
    from distill.trained import backbone_of

    check_room_for(asked.out)
    stored = open_weights(weights, stack, compared=is_local_rank())
    pack = read_pack(folder)
    Centres.of(stored, torch.device("cpu"))
    classes_of_labels(pack, stored)
    return backbone_of(stored, words), stored, pack


def audit_here(weights: Path, words: Sequence[str], folder: Path, asked: Asked) -> None:
    """Be one rank, in this process; rank 0 writes the lists and says what is in them."""
    from distill.audit import audit
    from distill.audit.run import may_be_others, no_bar
    from distill.cli.among_ranks import among_ranks, units_bar
    from distill.cli.pipes import results
    from distill.console import say, warn
    from distill.processes.spawn import spawned_rank

    with spawned_rank(), results(), ExitStack() as stack:
        trained, stored, pack = prepared(weights, words, folder, asked, stack)
        with among_ranks(trained) as ranks:
            if ranks.is_first and may_be_others(pack, stored):
                warn(
                    f"{pack.path} is no pack of the training, and people of both are numbers: equal"
                    " ones may be other people, and then all of them are listed"
                )
            bar = units_bar if ranks.is_first else no_bar
            summary = audit(trained, stored, pack, ranks, asked, bar)
        if summary is not None:
            people = asked.people_out if asked.alike_degrees else None
            for line in summary.lines(asked.out, people, asked.degrees):
                say(line)
