"""`pairdistill evaluate`: measure a classifier on held-out photographs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distill.cli.arguments import RunWeights
from distill.cli.local_ranks import on_local_ranks, wants_local_ranks

if TYPE_CHECKING:
    from distill.data.manifest import Pack
    from distill.evaluate import Report
    from distill.ranks import Ranks
    from distill.trained import Trained


def evaluate_command(
    weights: RunWeights,
    pack: Annotated[
        Path,
        typer.Argument(help="Folder of the held-out pack.", metavar="PACK", show_default=False),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="a.b=c", help="Settings that replace those of the training."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for report.json and report.png.",
            show_default="RUN/report for a run folder, else ./report",
        ),
    ] = None,
    ranks: Annotated[
        int, typer.Option(min=1, help="Processes on this machine that share the photographs.")
    ] = 1,
    json: Annotated[
        bool, typer.Option("--json", help="Print report.json in place of the table.")
    ] = False,
) -> None:
    """Measure a classifier on held-out photographs, clean and processed in each way.

    **Examples**

        pairdistill evaluate runs/demo packs/evaluation --ranks 2

        pairdistill evaluate runs/demo/model.safetensors packs/evaluation evaluate.batch_images=256

    *top-1*, *top-5*: share of photographs whose person the classifier names first, or among five.
    *same*: share of processed photographs that get the same answer as their clean form.
    *AUC*, *EER*, *10-fold*, *TAR at FAR*: pairs of photographs, same person or not, by the cosine
    of the embeddings. A TAR is left out where too few pairs carry it; report.json says why.
    """
    words = overrides or []
    folder = out or default_folder(weights)
    if wants_local_ranks(ranks):
        raise typer.Exit(spawn(weights, pack, words, folder, ranks, as_json=json))
    evaluate_here(weights, pack, words, folder, as_json=json)


def default_folder(weights: Path) -> Path:
    """The report folder of a run, or ``report`` here."""
    from distill.run_dir import RunDir

    run = RunDir(weights)
    return run.report if run.checkpoints.is_dir() else Path("report")


def spawn(
    weights: Path, pack: Path, words: Sequence[str], folder: Path, ranks: int, *, as_json: bool
) -> int:
    """Evaluate on local ranks; mistakes are found here, before any of them starts."""
    origin = prepared(weights, words, pack, folder)[0].origin
    options = ["--out", str(folder), *(["--json"] if as_json else [])]
    return on_local_ranks(["evaluate", *options, "--", str(origin), str(pack), *words], ranks)


def prepared(weights: Path, words: Sequence[str], folder: Path, out: Path) -> tuple[Trained, Pack]:
    """The classifier and the pack, with everything checked that can be wrong.

    Raises:
        UserError: bad weights or settings, no evaluation pack, or a folder that cannot be written.
    """
    from distill.data.manifest import read_pack
    from distill.evaluate.run import check_purpose
    from distill.files import disk_errors
    from distill.trained import restore

    trained, pack = restore(weights, words), read_pack(folder)
    check_purpose(pack)
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    return trained, pack


def evaluate_here(
    weights: Path, folder: Path, words: Sequence[str], out: Path, *, as_json: bool
) -> None:
    """Be one rank, in this process; rank 0 writes and shows the report."""
    from distill.spawn import spawned_rank

    with spawned_rank():
        from distill.ranks import from_environment, set_threads

        trained, pack = prepared(weights, words, folder, out)
        ranks = from_environment(trained.config)
        set_threads(trained.config, ranks)
        report = measure(trained, pack, ranks, quiet=as_json)
        if ranks.is_first:
            show_report(report, out, as_json=as_json)


def measure(trained: Trained, pack: Pack, ranks: Ranks, *, quiet: bool) -> Report:
    """Evaluate together with the other ranks; a bar on rank 0 unless ``quiet``."""
    from contextlib import nullcontext

    from distill.console import progress_bar
    from distill.evaluate import evaluate
    from distill.ranks import init_process_group, leave_process_group

    model = trained.model.to(ranks.device)
    share = pack.manifest.pairs // ranks.world_size
    bar = nullcontext() if quiet or not ranks.is_first else progress_bar("evaluate", share)
    init_process_group(trained.config, ranks)
    try:
        with bar as shown:
            return evaluate(
                model,
                pack,
                trained.config,
                ranks,
                class_names=trained.identities,
                checkpoint=trained.source,
                advance=shown.advance if shown else lambda pairs: None,
            )
    finally:
        leave_process_group()


def show_report(report: Report, out: Path, *, as_json: bool) -> None:
    """Write the files, then print the table or the JSON."""
    from distill.console import say, show
    from distill.evaluate import write_report
    from distill.evaluate.folder import JSON_NAME, PICTURE_NAME
    from distill.evaluate.table import notes, report_table

    write_report(report, out)
    if as_json:
        sys.stdout.write((out / JSON_NAME).read_text(encoding="utf-8"))
        return
    show(report_table(report))
    for note in notes(report):
        say(note)
    say(f"report: {out / JSON_NAME}")
    say(f"picture: {out / PICTURE_NAME}")
