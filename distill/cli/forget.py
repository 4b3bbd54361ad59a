"""`pairdistill forget`: remove people from a pack, and prove it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def forget_command(
    identities: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IDENTITY", help="Names of people, as in the manifest.", show_default=False
        ),
    ] = None,
    *,
    pack: Annotated[
        Path, typer.Argument(help="Folder of a pack, or of its train and evaluation parts.")
    ],
    names: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Text file with more names, one a line.", show_default="none"
        ),
    ] = None,
) -> None:
    """Remove all pairs of people from a pack, and look at everything that is left.

    A person's label stays empty, so that everybody else keeps theirs. If one of the names is not
    known, nobody is removed. Copies of the pack, the photographs it was made of, and models trained
    on it are not touched.

    **Examples**

        pairdistill forget "jane doe" packs/mine

        pairdistill forget "jane doe" "richard roe" packs/mine

        pairdistill forget --names requests.txt packs/mine
    """
    from distill.console import say
    from distill.data.forget import forget
    from distill.data.forget_names import read_names
    from distill.errors import UserError

    people = [*(identities or []), *(read_names(names) if names else [])]
    if not people:
        raise UserError(
            f"{pack}: nobody to remove from it", fix="give a name before it, or --names FILE"
        )
    for done in forget(people, pack):
        labels = "label" if len(done.labels) == 1 else "one of the labels"
        say(
            f"{done.pack.path}: {done.pairs} pairs removed, {done.shards} shard(s) renewed;"
            f" of all {done.scanned} images left none has {labels}"
            f" {', '.join(map(str, done.labels))}, and none is one of those removed"
        )
