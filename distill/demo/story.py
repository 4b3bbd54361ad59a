"""The demo from photographs to answers; each part is skipped where nothing has changed."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distill import console
from distill.config import dump_toml
from distill.data.manifest import Pack
from distill.data.sources import Source
from distill.data.sources.openpeople import OpenPeopleSource
from distill.demo.arms import ARMS, Arm, arm_config
from distill.demo.comparison import Numbers, comparison_json, comparison_table
from distill.errors import UserError
from distill.files import disk_errors, write_together, write_whole
from distill.processes.spawn import STOP_SIGNALS

HOLDOUT = 0.3
SECOND_PER_IMAGE = 4


def run_demo(out: Path, ranks: int, people: int, overrides: Sequence[str] = ()) -> None:
    """Pack, train three times, compare, classify; writes everything below ``out``.

    Args:
        out: folder for packs, runs, report and photographs.
        ranks: local ranks of each training.
        people: how many of the embedded people take part.
        overrides: settings that replace those of ``demo.toml``.

    Raises:
        UserError: a part failed; its own error has been shown.
    """
    seconds: dict[str, float] = {}
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    source = OpenPeopleSource(people)
    with timed("pack", seconds):
        evaluation = make_packs(source, out / "packs")
    runs: dict[str, Path] = {}
    for arm in ARMS:
        with timed(f"train, {arm.title}", seconds):
            runs[arm.name] = train_arm(arm, out, ranks, tuple(overrides), apart=True)
    results = {name: evaluation_numbers(run) for name, run in runs.items()}
    compare(out, evaluation, runs, results, {"machine": machine(), "seconds": seconds})
    with timed("classify", seconds):
        name_photographs(source, evaluation, runs["similarity"], out / "photos")
    point_out(out, runs, seconds)


@contextmanager
def timed(title: str, seconds: dict[str, float]) -> Iterator[None]:
    """Announce a part and keep how long it took."""
    console.heading(title, results=False)
    start = time.monotonic()
    yield
    seconds[title] = round(time.monotonic() - start, 1)


def make_packs(source: Source, folder: Path, seed: int = 0) -> Pack:
    """Pack the embedded people, some photographs of each held out; the held-out pack.

    Args:
        seed: decides which photographs are held out, and the second images.
    """
    from distill.cli.pack import show_result
    from distill.data.pack import PackOptions, pack

    options = PackOptions(
        holdout=HOLDOUT,
        second_per_image=SECOND_PER_IMAGE,
        seed=seed,
        glasses="draw",
        overwrite=True,
    )
    result = pack(source, folder, options, console.progress_bar)
    show_result(result, folder)
    assert result.evaluation is not None, "photographs were held out"
    return result.evaluation


def train_arm(
    arm: Arm, out: Path, ranks: int, overrides: tuple[str, ...], *, apart: bool = False
) -> Path:
    """Train one arm on ``ranks`` local ranks; its run folder.

    Args:
        apart: a single rank gets a process of its own too, as where this one trains several arms.

    Raises:
        UserError: the training failed.
    """
    from distill.cli.train import run_training

    config = arm_config(arm, out / "packs", out / "runs", overrides)
    settings = out / "settings" / f"{arm.name}.toml"
    with disk_errors(settings):
        settings.parent.mkdir(exist_ok=True)
    write_whole(settings, dump_toml(config).encode())
    status = run_training(config, [str(settings)], ranks, apart=apart)
    if status != 0:
        stopped = status - 128 in STOP_SIGNALS
        ended = "was stopped" if stopped else f"ended with exit status {status}; see above"
        failed = UserError(
            f"training of the arm {arm.title!r} {ended}",
            fix="the same command goes on from there",
        )
        failed.exit_status = status
        raise failed
    return Path(config.run.dir)


def evaluation_numbers(run: Path) -> Numbers:
    """The scalars of a run's last evaluation."""
    from distill.evaluate import read_report, scalars
    from distill.run_dir import RunDir

    return scalars(read_report(RunDir(run).report))


def compare(
    out: Path,
    evaluation: Pack,
    runs: dict[str, Path],
    results: dict[str, Numbers],
    facts: dict[str, Any],
) -> None:
    """Show the table of the three arms, and write it as JSON and as a picture, both or neither."""
    from distill.demo.figure import comparison_picture

    kinds = evaluation.manifest.kinds
    photographs = evaluation.manifest.photographs
    console.heading("the three arms")
    console.show(comparison_table(results, kinds, photographs))
    numbers = comparison_json(results, runs, {"photographs": photographs, **facts})
    drawn = comparison_picture(results, kinds)
    write_together({out / "report.json": numbers, out / "report.png": drawn})


def name_photographs(source: Source, evaluation: Pack, run: Path, folder: Path) -> None:
    """Classify a few held-out photographs with the trained network and show the answers."""
    from distill.classify import classify
    from distill.cli.classify import show_rows
    from distill.demo.photos import write_photographs

    paths = write_photographs(source, evaluation, folder)
    show_rows(classify(run, paths, top=2))


def point_out(out: Path, runs: dict[str, Path], seconds: dict[str, float]) -> None:
    """Say where everything is."""
    packs = out / "packs"
    places = {
        "pairs to look at": packs / "train" / "contact_sheet.png",
        "report": out / "report.png",
        "its numbers": out / "report.json",
        "report of the third arm": runs["similarity"] / "report" / "report.png",
        "TensorBoard": f"pairdistill tensorboard {out / 'runs'}",
    }
    console.heading("where it all is")
    for title, place in places.items():
        console.say(f"{title + ':':<26}{place}")
    console.say(f"{'took:':<26}{sum(seconds.values()):.0f} s")


def machine() -> dict[str, str]:
    """What the numbers were taken on."""
    import torch

    cores = torch.get_num_threads()
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": str(cores),
        "date": time.strftime("%Y-%m-%d"),
    }
