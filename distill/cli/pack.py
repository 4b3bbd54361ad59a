"""`pairdistill pack`: photographs of people in, pairs to train on out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distill.cli.alike import tell_alike
from distill.cli.arguments import at_most_one_a_core
from distill.cli.not_tried import tell_passed_over
from distill.cli.pack_options import PackWords
from distill.cli.source_options import SourceWords

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from distill.data.manifest import Manifest, Pack
    from distill.data.pack import PackOptions, PackResult
    from distill.data.sources import Source


def pack_command(
    source: Annotated[
        str,
        typer.Argument(
            help="Folder of people's folders, or train.rec, parquet, tar shards or a CSV list: a "
            "file, a folder or a pattern like 'a-{000..012}.tar'; or `openpeople`.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Folder of the pack.", show_default=False)],
    words: PackWords,
    where: SourceWords,
) -> None:
    """Find, align and pair the faces of a folder of people, and pack them for training.

    **Examples**

        pairdistill pack photographs/ packs/mine --holdout 0.2

        pairdistill pack ms1mv3/ packs/ms1mv3 --aligned --min-images 5

        pairdistill pack faces112/ packs/mine --aligned --without test-people.txt

        pairdistill pack faces112/ packs/mine --aligned --kinds forehead=0.5,blur=0.5 --workers 8

    Where a photograph shows several faces, the most prominent one is taken (large and near the
    middle). What cannot be used is listed with its reason in OUT/rejected.csv. The same request
    made twice is found to be done.
    """
    from distill.console import note, progress_bar, warn
    from distill.data.compiled import told_of_compiling
    from distill.data.pack import pack

    options, photographs = words.options(), where.open(source)
    if words.dry_run:
        show_estimate(photographs, options)
        tell_passed_over(photographs)
        return
    with told_of_compiling(note):
        few = replace(options, workers=at_most_one_a_core(options.workers))
        result = pack(photographs, out, few, progress_bar, warn)
    show_result(result, out)
    tell_alike({name for made in packs_of(result) for name in made.manifest.identities})
    tell_passed_over(photographs)


def show_estimate(source: Source, options: PackOptions) -> None:
    """Say what packing would take."""
    from distill.console import say
    from distill.data.pack.estimate import estimate

    found = estimate(source, options)
    say(
        f"{found.photographs} photographs; of the first {found.sampled}, "
        f"{found.usable:.0%} can be used"
    )
    for reason, count in found.reasons.items():
        say(f"  {count} cannot: {reason}")
    shards = -(-found.pack_bytes // options.shard_bytes)
    say(f"about {found.pairs} pairs, {found.pack_bytes / 1e9:.3g} GB in {shards} file(s)")
    say(f"about {found.scratch_bytes / 1e9:.3g} GB more while packing")
    say(f"about {_duration(found.seconds)} with {options.processes()} processes")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def show_result(result: PackResult, out: Path) -> None:
    """Say what was made below ``out``."""
    from distill.console import say, show

    if result.reused:
        say(f"{out}: up to date, made by the same request before")
    packs = packs_of(result)
    show(counts(packs))
    manifest = result.train.manifest
    rejected = f"{manifest.samples_rejected} of {manifest.samples_seen} photographs rejected"
    reasons = f"; the reasons are in {out / 'rejected.csv'}" if manifest.samples_rejected else ""
    say(rejected + reasons)
    if "without" in manifest.options:
        tell_left_out(out, again=result.reused)
    for made in packs:
        online = made.manifest.second == "online"
        note = "data.second = 'online'" if online else "pairs by kind: contact_sheet.png"
        say(f"{made.manifest.purpose}: {made.path} ({note})")


def tell_left_out(out: Path, *, again: bool) -> None:
    """Say what --without left out of the pack below ``out``.

    Args:
        out: the pack.
        again: warn of those whom it named in vain, as `pack` did when it made this.
    """
    import csv

    from distill.console import say, warn
    from distill.data.pack.enough import in_vain
    from distill.data.pack.photos import LEFT_OUT, NOBODY
    from distill.data.pack.standing import REJECTED_NAME

    if not (table := out / REJECTED_NAME).is_file():  # the pack is whole without it
        return
    photographs, nobody = 0, []
    with table.open(newline="", encoding="utf-8") as file:
        for path, reason in csv.reader(file):
            photographs += reason == LEFT_OUT
            if reason == NOBODY:
                nobody.append(path)
    say(f"{photographs} of them for --without")
    if again and nobody:
        warn(in_vain(nobody))


def packs_of(result: PackResult) -> list[Pack]:
    """The one or two packs that were made."""
    return [pack for pack in (result.train, result.evaluation) if pack is not None]


def counts(packs: list[Pack]) -> Table:
    """People, photographs and pairs of each processing, a column for each pack."""
    from rich.table import Table

    table = Table()
    table.add_column("")
    for pack in packs:
        table.add_column(pack.manifest.purpose, justify="right")
    for name, values in _rows([pack.manifest for pack in packs]).items():
        table.add_row(name, *map(str, values))
    return table


def _rows(manifests: list[Manifest]) -> dict[str, Sequence[int | str]]:
    """Lines of the table: a name, and a value for each pack."""
    kinds = [kind for kind in manifests[0].kinds if "+" not in kind]
    return {
        "people": [len(m.identities) for m in manifests],
        "photographs": [m.photographs for m in manifests],
        "pairs": [m.pairs for m in manifests],
        **{f"... with {kind}": [_pairs_with(kind, m) for m in manifests] for kind in kinds},
        "megabytes": [f"{m.total_bytes / 1e6:.1f}" for m in manifests],
    }


def _pairs_with(kind: str, manifest: Manifest) -> int | str:
    """Pairs whose second image was made by ``kind``, alone or among others."""
    if manifest.second == "online":
        return f"chance {manifest.kind_chances[kind]:g}"
    ways = manifest.pairs_per_kind.items()
    return sum(pairs for way, pairs in ways if kind in way.split("+"))
