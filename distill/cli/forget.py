"""`pairdistill forget`: remove a person from a pack, and prove it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def forget_command(
    identity: Annotated[str, typer.Argument(help="Name of the person, as in the manifest.")],
    pack: Annotated[
        Path, typer.Argument(help="Folder of a pack, or of its train and evaluation parts.")
    ],
) -> None:
    """Remove all pairs of a person from a pack, and look at everything that is left.

    The person's label stays empty, so that everybody else keeps theirs. Copies of the pack, the
    photographs it was made of, and models trained on it are not touched.

    **Example**

        pairdistill forget "jane doe" packs/mine
    """
    from distill.console import say
    from distill.data.forget import forget

    for done in forget(identity, pack):
        say(
            f"{done.pack.path}: {done.pairs} pairs removed, {done.shards} shard(s) renewed;"
            f" of all {done.scanned} images left none has label {done.label}, and none is one of"
            " those removed"
        )
