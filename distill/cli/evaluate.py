"""`pairdistill evaluate`: measure a classifier on held-out photographs, or on verification sets."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distill.cli.among_ranks import as_rank
from distill.cli.arguments import RunWeights, settings_like
from distill.cli.local_ranks import is_local_rank, on_local_ranks, wants_local_ranks
from distill.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from distill.data.manifest import Pack
    from distill.data.protocols.found import AnySet
    from distill.evaluate import Report
    from distill.evaluate.set_report import SetReport
    from distill.ranks import Ranks
    from distill.trained import Trained, TrainedBackbone


def evaluate_command(
    weights: RunWeights,
    pack: Annotated[
        Path,
        typer.Argument(
            metavar="PACK",
            help="Folder of the held-out pack; or a verification set: lfw.bin, a folder of such, "
            "LFW's pairs.txt, a folder of IJB-B or IJB-C.",
            show_default=False,
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="a.b=c",
            help="Settings that replace those of the training; more verification sets.",
            autocompletion=settings_like,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for report.json and report.png (of verification sets sets.json and "
            "sets.png).",
            show_default="RUN/report for a run folder, else ./report",
        ),
    ] = None,
    ranks: Annotated[
        int, typer.Option(min=1, help="Processes on this machine that share the photographs.")
    ] = 1,
    json: Annotated[
        bool, typer.Option("--json", help="Print the JSON file in place of the table.")
    ] = False,
) -> None:
    """Measure a classifier on held-out photographs, clean and processed in each way.

    **Examples**

        pairdistill evaluate runs/demo packs/evaluation --ranks 2

        pairdistill evaluate runs/demo/model.safetensors packs/evaluation evaluate.batch_images=256

        pairdistill evaluate runs/demo lfw.bin cfp_fp.bin /data/lfw/pairs.txt /data/IJBC

    *top-1*, *top-5*: share of photographs whose person the classifier names first, or among five.
    *same*: share of processed photographs that get the same answer as their clean form.
    *AUC*, *EER*, *10-fold*, *TAR at FAR*: pairs of photographs, same person or not, by the cosine
    of the embeddings. A TAR is left out where too few pairs carry it; report.json says why.
    Verification sets are InsightFace's .bin files, the lists of LFW, CALFW and CPLFW beside their
    photographs, and InsightFace's folders of IJB-B and IJB-C; the numbers are those published for
    them (docs/evaluation.md).
    """
    check_there(pack)
    words = overrides or []
    folder = out or default_folder(weights)
    if wants_local_ranks(ranks):
        raise typer.Exit(spawn(weights, pack, words, folder, ranks, as_json=json))
    evaluate_here(weights, pack, words, folder, as_json=json)


def check_there(pack: Path) -> None:
    """A mistyped path may have meant a pack or a set.

    Raises:
        UserError: nothing is there.
    """
    if not pack.exists():
        raise UserError(
            f"{pack}: No such file or folder",
            fix="give the evaluation part of a pack, a set such as lfw.bin or pairs.txt, or a"
            " folder of IJB-B or IJB-C",
        )


def default_folder(weights: Path) -> Path:
    """The report folder of a run, or ``report`` here."""
    from distill.run_dir import RunDir

    run = RunDir(weights)
    return run.report if run.checkpoints.is_dir() else Path("report")


def spawn(
    weights: Path, pack: Path, words: Sequence[str], folder: Path, ranks: int, *, as_json: bool
) -> int:
    """Evaluate on local ranks; mistakes are found here, before any of them starts."""
    from distill.data.protocols.found import is_set

    check = prepared_for_sets if is_set(pack) else prepared
    origin = check(weights, words, pack, folder)[0].origin
    options = ["--out", str(folder), *(["--json"] if as_json else [])]
    return on_local_ranks(["evaluate", *options, "--", str(origin), str(pack), *words], ranks)


def prepared(weights: Path, words: Sequence[str], folder: Path, out: Path) -> tuple[Trained, Pack]:
    """The classifier and the pack, with everything checked that can be wrong.

    Raises:
        UserError: bad weights or settings, no evaluation pack, or a folder that cannot be written.
    """
    from distill.data.manifest import read_pack
    from distill.data.protocols.found import is_set_word
    from distill.evaluate.run import check_purpose
    from distill.files import make_folder
    from distill.trained import restore

    if more := [word for word in words if is_set_word(word)]:
        raise UserError(
            f"{more[0]!r} behind the pack {folder}: neither a setting a.b=c nor measured with it",
            fix="evaluate packs and verification sets one after the other",
        )
    trained, pack = restore(weights, words, compared=is_local_rank()), read_pack(folder)
    check_purpose(pack)
    make_folder(out)
    return trained, pack


def evaluate_here(
    weights: Path, folder: Path, words: Sequence[str], out: Path, *, as_json: bool
) -> None:
    """Be one rank, in this process; rank 0 writes and shows the report."""
    from distill.cli.pipes import results
    from distill.processes.spawn import spawned_rank

    with spawned_rank(), results():
        from distill.data.protocols.found import is_set

        if is_set(folder):
            evaluate_sets_here(weights, folder, words, out, as_json=as_json)
            return
        trained, pack = prepared(weights, words, folder, out)
        pairs = pack.manifest.pairs
        with as_rank(trained, "evaluate", pairs) as (ranks, advance):
            report = measure(trained, pack, ranks, advance)
        if ranks.is_first:
            show_report(report, out, as_json=as_json)


def measure(trained: Trained, pack: Pack, ranks: Ranks, advance: Callable[[int], None]) -> Report:
    """Evaluate together with the other ranks."""
    from distill.evaluate import evaluate

    return evaluate(
        trained.model,
        pack,
        trained.config,
        ranks,
        class_names=trained.identities,
        checkpoint=trained.source,
        advance=advance,
    )


def prepared_for_sets(
    weights: Path, words: Sequence[str], first: Path, out: Path
) -> tuple[TrainedBackbone, list[AnySet]]:
    """As `prepared`, for verification sets: ``first``, and those among ``words``."""
    from distill.data.protocols.found import is_set_word, read_sets
    from distill.files import make_folder
    from distill.trained import restore_backbone

    more = [word for word in words if is_set_word(word)]
    settings = [word for word in words if word not in more]
    trained = restore_backbone(weights, settings, compared=is_local_rank())
    sets = read_sets([first, *map(Path, more)])
    make_folder(out)
    return trained, sets


def evaluate_sets_here(
    weights: Path, first: Path, words: Sequence[str], out: Path, *, as_json: bool
) -> None:
    """Be one rank, in this process, and measure on verification sets."""
    from distill.evaluate.set_report import SetReport
    from distill.evaluate.sets import evaluate_sets

    trained, sets = prepared_for_sets(weights, words, first, out)
    config, images = trained.config, sum(map(len, sets))
    with as_rank(trained, "evaluate", images) as (ranks, advance):
        results = evaluate_sets(
            trained.model.backbone,
            sets,
            ranks,
            batch_images=config.evaluate.batch_images,
            advance=advance,
        )
    if ranks.is_first:
        plain = config.model_dump(mode="json")
        show_sets(SetReport(results, trained.source, plain, ranks.world_size), out, as_json=as_json)


def show_sets(report: SetReport, out: Path, *, as_json: bool) -> None:
    """Write the files, then print the table or the JSON."""
    from distill.evaluate import set_report as made

    tables = made.set_tables(report)
    with shown_anyway(tables):
        made.write_set_report(report, out)
    files = out / made.JSON_NAME, out / made.PICTURE_NAME
    show_written(*files, tables, made.set_notes(report), as_json=as_json)


def show_report(report: Report, out: Path, *, as_json: bool) -> None:
    """Write the files, then print the table or the JSON."""
    from distill.evaluate import folder, write_report
    from distill.evaluate.table import notes, report_table

    tables = [report_table(report)]
    with shown_anyway(tables):
        write_report(report, out)
    files = out / folder.JSON_NAME, out / folder.PICTURE_NAME
    show_written(*files, tables, notes(report), as_json=as_json)


@contextmanager
def shown_anyway(tables: Sequence[Table]) -> Iterator[None]:
    """Print what the block cannot write: it may have taken hours."""
    from distill.console import show

    try:
        yield
    except UserError:
        for table in tables:
            show(table)
        raise


def show_written(
    numbers: Path, picture: Path, tables: Sequence[Table], notes: Sequence[str], *, as_json: bool
) -> None:
    """Print the file of numbers; or the table, its notes, and where the files are."""
    from distill.console import paragraph, say, show

    if as_json:
        sys.stdout.write(numbers.read_text(encoding="utf-8"))
        return
    for table in tables:
        show(table)
    for note in notes:
        paragraph(note)
    say(f"report: {numbers}")
    say(f"picture: {picture}")
