"""Does leaving out what `pairdistill audit` lists help? The demo's people, a part of them misnamed.

    make bench-audit AUDIT_ARGS="--seeds 201-206 --wrong 0.2 --degrees 75"

A seed draws the photographs that are held out, those to train on that get another person's name,
second images, weights and order. The held-out ones keep their names. Networks are the demo's, each
trained by one rank of one thread: with one centre a person (`K=1`), with three (`K=3`), and with
one on what is left without the photographs that an audit of the second lists, or without those that
were misnamed indeed (`truth`).
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from bench_pairs import QUIET, seeds_of

from distill.data.keyed import keyed_rng
from distill.data.pack import PackOptions, pack
from distill.data.sources import Sample
from distill.data.sources.openpeople import OpenPeopleSource
from distill.demo.arms import SETTINGS
from distill.demo.story import SECOND_PER_IMAGE, make_packs
from distill.evaluate import read_report, scalars
from distill.run_dir import RunDir

METRICS = ("clean/top1", "processed/top1", "clean/auc", "processed/auc")


@dataclass(frozen=True)
class Misnamed:
    """Some photographs of the embedded people, a part of them under another person's name."""

    kept: frozenset[str]
    wrong: float
    seed: int
    name: str = "misnamed"

    @property
    def expected(self) -> int:
        """How many samples there are."""
        return len(self.kept)

    def __iter__(self) -> Iterator[Sample]:
        samples = [one for one in OpenPeopleSource() if one.origin in self.kept]
        people = sorted({one.identity for one in samples})
        for one in samples:
            rng = keyed_rng(self.seed, one.origin, "misnamed")
            others = [name for name in people if name != one.identity]
            is_wrong = rng.random() < self.wrong
            identity = str(rng.choice(others)) if is_wrong else one.identity
            yield replace(one, identity=identity)


def program(log: Path, *words: object) -> None:
    """Run a command of ours, its output in a file."""
    with log.open("a") as file:
        line = [sys.executable, "-m", "distill", *map(str, words)]
        subprocess.run(line, check=True, stdout=file, stderr=file)


def trained(folder: Path, name: str, seed: int, words: Sequence[str]) -> dict[str, float]:
    """The numbers of one training, which is not made again."""
    run = folder / name
    if not RunDir(run).complete.exists():
        packs = f"data.train={folder}/noisy", f"data.evaluation={folder}/clean/evaluation"
        settings = *QUIET, f"run.seed={seed}", f"run.dir={run}", *packs, *words
        program(folder / f"{name}.log", "train", SETTINGS, *settings)
    return scalars(read_report(RunDir(run).report))


def audited(folder: Path, name: str, degrees: float, truth: set[str]) -> dict[str, float]:
    """Photographs listed by an audit with a network, against those that are misnamed."""
    out = folder / f"{name}.csv"
    words = "--degrees", degrees, "--out", out, "run.device=cpu"
    program(folder / f"{name}.log", "audit", folder / name, folder / "noisy", *words)
    listed = {row["photograph"] for row in read(out)}
    right = len(listed & truth)
    precision = right / len(listed) if listed else float("nan")
    return {"listed": len(listed), "precision": precision, "recall": right / len(truth)}


def read(path: Path) -> list[dict[str, str]]:
    """Rows of a table."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def of_seed(work: Path, wrong: float, degrees: float, seed: int) -> dict[str, dict[str, float]]:
    """All arms of a seed."""
    folder = work / f"seed-{seed}-{wrong:g}"
    folder.mkdir(parents=True, exist_ok=True)
    make_packs(OpenPeopleSource(), folder / "clean", seed)
    kept = frozenset(row["first"] for row in read(folder / "clean" / "train" / "pairs.csv"))
    options = PackOptions(second_per_image=SECOND_PER_IMAGE, seed=seed, glasses="draw",
                          overwrite=True)  # fmt: skip
    pack(Misnamed(kept, wrong, seed), folder / "noisy", options)
    rows = read(folder / "noisy" / "pairs.csv")
    truth = {row["first"] for row in rows if row["first"].split("/")[0] != row["identity"]}
    found = {
        "K=1": trained(folder, "K1", seed, ()),
        "K=3": trained(folder, "K3", seed, ["head.sub_centres=3"]),
    }
    for arm, run in (("K=1", "K1"), ("K=3", "K3")):
        found[arm] |= audited(folder, run, degrees, truth)
    words = [f"data.exclude={folder}/K3.csv"]
    found["K=3, audit, K=1"] = trained(folder, f"K3-{degrees:g}-again", seed, words)
    write_truth(folder, truth, rows)
    words = [f"data.exclude={folder}/truth.csv"]
    found["truth, K=1"] = trained(folder, "truth", seed, words)
    return found


def write_truth(folder: Path, truth: set[str], rows: list[dict[str, str]]) -> None:
    """The list that a perfect audit would write."""
    from distill.data.excluded import NEEDED, pack_key
    from distill.data.manifest import read_pack

    key = pack_key(read_pack(folder / "noisy"))
    with (folder / "truth.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(NEEDED)
        for name in sorted(truth):
            of = [n for n, row in enumerate(rows) if name in (row["first"], row["other"])]
            own = [n for n in of if rows[n]["first"] == name]
            also = " ".join(str(n) for n in of if n != own[0])
            table.writerow([key, own[0], also, rows[own[0]]["identity"]])


def show(results: list[dict[str, dict[str, float]]]) -> None:
    """Means and standard errors over seeds; differences to `K=1` seed by seed."""
    for arm in results[0]:
        for metric in (*METRICS, "listed", "precision", "recall"):
            if metric not in results[0][arm]:
                continue
            values = np.array([result[arm][metric] for result in results])
            line = f"{arm:20} {metric:16} {spread(values)}"
            if metric in METRICS:
                line += f"   less K=1: {spread(values - [r['K=1'][metric] for r in results])}"
            print(line)


def spread(values: np.ndarray) -> str:
    """Mean and standard error."""
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return f"{values.mean():+.3f} ± {error:.3f}"


def main() -> None:
    """Train what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seeds", type=seeds_of, default="201-206", help="as 1-8 (%(default)s)")
    parser.add_argument("--wrong", type=float, default=0.2, help="share misnamed (%(default)s)")
    parser.add_argument("--degrees", type=float, default=75.0, help="of the audits (%(default)s)")
    parser.add_argument("--work", type=Path, default=Path("runs/audit"), help="packs and runs")
    args = parser.parse_args()
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(partial(of_seed, args.work, args.wrong, args.degrees), args.seeds))
    show(results)
    (args.work / f"results-{args.wrong:g}-{args.degrees:g}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
