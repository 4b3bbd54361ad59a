"""`pairdistill verify`: read all of a pack and say what is not as it was packed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def verify_command(
    pack: Annotated[
        Path, typer.Argument(help="Folder of a pack, or of its train and evaluation parts.")
    ],
    threads: Annotated[int, typer.Option(min=1, help="Shards read at a time.")] = 2,
) -> None:
    """Compare every byte of a pack with the digests in its manifest.

    A flipped bit is found; the shard and the pair it is in are named. The exit status is 1 then.

    **Example**

        pairdistill verify packs/mine
    """
    from distill.console import fail, progress_bar, say
    from distill.data.manifest import read_pack
    from distill.data.pack.standing import parts_at
    from distill.data.verify import verify_pack

    bad = False
    for folder in parts_at(pack):
        opened = read_pack(folder)
        with progress_bar(f"reading {folder}, bytes", opened.manifest.total_bytes) as bar:
            faults = verify_pack(opened, threads, bar.advance)
        for fault in faults:
            fail(f"{folder}/{fault}")
        shards = len(opened.manifest.shards)
        if not faults:
            say(f"{folder}: {opened.manifest.pairs} pairs in {shards} shard(s), all as packed")
        bad = bad or bool(faults)
    if bad:
        raise typer.Exit(1)
