"""What second images and the similarity term do to a network: the demo's arms over many seeds.

    make bench-pairs                                       # 8 seeds of five arms, about an hour
    make bench-pairs PAIRS_ARGS="--seeds 1-2 --arms first,pairs,kl"
    make bench-pairs PAIRS_ARGS="--arms pairs,kl/T=8/w=3 train.steps=800"

Packs, trains and evaluates by the demo's own code and settings (`distill/demo`). A seed draws the
photographs that are held out, their second images, the weights and the order of samples, the same
for all arms; so arms are compared seed by seed. Each training is one rank of one thread, in a
process of its own. What is finished stands in the CSV and is not trained again.

An arm is `first` (first images alone), `pairs` (no similarity) or a similarity, `kl`, `ce` or
`mmd`, with its temperature and its last weight where they differ from the demo's: `kl/T=8/w=0.3`.
Settings are chosen on other seeds than those that are reported: the demo's similarity on 101 to
108, reported are 201 to 208.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from pairs_apart import apart
from pairs_table import METRICS, Line, arms_of, read_lines, show, write_lines

from distill.config import dump_toml, load_config
from distill.data.sources.openpeople import OpenPeopleSource
from distill.demo.arms import ARMS, SETTINGS, Arm
from distill.demo.story import evaluation_numbers, make_packs, train_arm
from distill.evaluate.report import versions
from distill.losses.bench_table import processor_name

DEFAULT_ARMS = "first,pairs,kl,ce,mmd"
QUIET = (
    "run.device='cpu'",
    "run.threads_per_rank=1",
    "checkpoint.every_steps=0",
    "evaluate.every_steps=0",
    "monitor.images=false",
    "monitor.tensorboard=false",
)
"""What a training on the side leaves out; none of it changes the weights."""
LETTERS = {"T": "loss.temperature={}", "w": "loss.weight.end={}"}


class Job(NamedTuple):
    """One training: an arm with a seed, in a folder that all arms of the seed share."""

    arm: Arm
    seed: int
    folder: Path
    asked: tuple[str, ...]

    @property
    def overrides(self) -> tuple[str, ...]:
        """What all arms of the seed have."""
        return *QUIET, f"run.seed={self.seed}", *self.asked

    @property
    def settings(self) -> str:
        """A digest of all settings but the folders'."""
        config = load_config(SETTINGS, (*self.overrides, *self.arm.overrides))
        return hashlib.sha256(dump_toml(config).encode()).hexdigest()[:8]

    @property
    def key(self) -> tuple[str, str, str]:
        """What a line of the CSV is found by."""
        return self.arm.name, str(self.seed), self.settings


def arm_of(text: str) -> Arm:
    """The arm that ``text`` asks for.

    Raises:
        ValueError: it asks for none.
    """
    kind, *choices = text.split("/")
    known = {arm.name: arm for arm in ARMS}
    if kind in ("first", "pairs") and not choices:
        return Arm(text, known[kind].title, known[kind].overrides)
    if kind not in ("kl", "ce", "mmd"):
        raise ValueError(f"arm {text!r}: choose first, pairs, kl, ce or mmd")
    words = [f"loss.similarity='{kind}'"]
    for choice in choices:
        letter, equals, value = choice.partition("=")
        if not equals or letter not in LETTERS:
            raise ValueError(f"arm {text!r}: {choice!r} is neither T=NUMBER nor w=NUMBER")
        words.append(LETTERS[letter].format(float(value)))
    return Arm(text, text, tuple(words))


def seeds_of(text: str) -> list[int]:
    """``1-3,7`` as 1, 2, 3, 7."""
    ranges = [part.split("-") for part in text.split(",")]
    return [seed for ends in ranges for seed in range(int(ends[0]), int(ends[-1]) + 1)]


def jobs(args: argparse.Namespace) -> list[Job]:
    """Every training asked for, seed by seed."""
    arms = [arm_of(text) for text in args.arms.split(",")]
    return [
        Job(arm, seed, args.work / f"seed-{seed}", tuple(args.overrides))
        for seed in args.seeds
        for arm in arms
    ]


def run(job: Job) -> dict[str, Any]:
    """Train and evaluate in this process, which says what it does in a file; the CSV's line."""
    log = job.folder / f"{job.arm.name.replace('/', '_')}.log"
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    start = time.monotonic()
    trained = train_arm(job.arm, job.folder, 1, job.overrides)
    numbers = evaluation_numbers(trained) | apart(trained, job.folder / "packs" / "evaluation")
    common = {"arm": job.arm.name, "seed": str(job.seed), "settings": job.settings}
    facts = {
        "overrides": " ".join((*job.asked, *job.arm.overrides)),
        "seconds": f"{time.monotonic() - start:.0f}",
        "device": processor_name("cpu"),
        "date": time.strftime("%Y-%m-%d"),
        "versions": " ".join(f"{name} {number}" for name, number in versions().items()),
    }
    return common | {name: f"{numbers[name]:.4f}" for name in METRICS} | facts


def finished(missing: list[Job], processes: int, people: int) -> Iterator[dict[str, Any]]:
    """The lines of trainings, as they end; one seed after another."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["distill.train", "distill.evaluate"])
    for folder, of_seed in groupby(missing, key=lambda job: job.folder):
        folder.mkdir(parents=True, exist_ok=True)
        tasks = list(of_seed)
        make_packs(OpenPeopleSource(people), folder / "packs", tasks[0].seed)
        # DeepSpeed trains once in a process
        with ProcessPoolExecutor(processes, context, max_tasks_per_child=1) as pool:
            for done in as_completed([pool.submit(run, job) for job in tasks]):
                yield done.result()


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--arms", default=DEFAULT_ARMS, help="with commas (%(default)s)")
    parser.add_argument(
        "--seeds", type=seeds_of, default="201-208", help="as 1-8 or 1,2,7 (%(default)s)"
    )
    parser.add_argument("--people", type=int, default=10, help="of the embedded ones (10)")
    parser.add_argument("--processes", type=int, default=2, help="trainings at a time (2)")
    parser.add_argument("--work", type=Path, default=Path("runs/pairs"), help="packs and runs")
    parser.add_argument("--save", type=Path, help="folder of the table, pairs.csv, and its plot")
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="settings of all arms")
    return parser.parse_args()


def plotted(table: Path, lines: Sequence[Line]) -> str:
    """Draw what can be compared with pairs alone; what to say of it and of the table."""
    from pairs_plot import BASE, draw

    arms = arms_of(lines)
    if BASE not in arms or len(arms) == 1:
        return f"written: {table}; no plot, which is of {BASE!r} and another arm"
    draw(table.with_suffix(".png"), lines)
    return f"written: {table} and {table.with_suffix('.png').name}"


def main() -> None:
    """Train what is missing, then print the tables."""
    args = parse()
    args.work /= f"people-{args.people}"
    wanted = jobs(args)
    path = (args.save or args.work) / "pairs.csv"
    lines = read_lines(path)
    missing = [job for job in wanted if job.key not in lines]
    for count, line in enumerate(finished(missing, args.processes, args.people), start=1):
        lines[line["arm"], line["seed"], line["settings"]] = line
        write_lines(path, lines.values())
        print(f"{count}/{len(missing)} {line['arm']} seed {line['seed']}", flush=True)
    show([lines[job.key] for job in wanted])
    if args.save:
        print(plotted(path, [lines[job.key] for job in wanted]))


if __name__ == "__main__":
    main()
