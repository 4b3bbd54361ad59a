"""Trains as arcface_torch does beside arcface_torch itself, and tells how far apart they are.

    python benchmarks/arcface_parity.py --peer PATH_TO_INSIGHTFACE [--cases decay] [--steps 20]

For each case a configuration of theirs is written; `pairdistill migrate` makes ours of it; its
networks' first state is turned into safetensors by the lines of docs/arcface.md; and a whole run of
ours starts from that (`model.init_from`). Each batch of ours is then given to theirs as well, after
our step, and loss, weights and head are compared. Faces are those of `openpeople`, on the CPU.

A case with a second line has a difference that docs/arcface.md names: the first line is with
it, the second without it (`Ways`), where nothing but rounding may be left.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from arcface_beside import BATCH, CLASSES, NETWORK, WIDTH, Pair
from arcface_peer import Ways, backbone_of, text_of

from distill.config import load_config
from distill.data.sources.open import open_source
from distill.engine_parts.head import HeadTrainer
from distill.processes.spawn import spawn_local, spawned_rank
from distill.ranks import from_environment
from distill.train import train

if TYPE_CHECKING:
    from distill.engine import Engine
    from distill.step import Recipe

ROOT = Path(__file__).parents[1]
HEADING = (
    "case | ranks | theirs | steps | first loss | last loss | losses apart | weights apart, largest"
    " | backbone, of its way | head | backbone after one step | head"
)
COSFACE, ARCFACE, BOTH = (1.0, 0.0, 0.4), (1.0, 0.5, 0.0), (1.0, 0.3, 0.2)


@dataclass(frozen=True)
class Case:
    """What is compared.

    Attributes:
        values: of their configuration.
        ways: what is left as it is there; of each a line.
        ranks: of both sides.
        words: settings of ours behind those of `migrate`.
    """

    values: dict[str, Any]
    ways: dict[str, Ways]
    ranks: int = 1
    words: tuple[str, ...] = ()


CALM = {"margin_list": COSFACE, "weight_decay": 0.0, "lr": 1e-3}
EXACT = Ways(half_gradients=False)
FLOAT = {"float gradients": EXACT}
CASES = {
    "cosface": Case(CALM, FLOAT),
    "cosface on 2": Case(CALM, {"as there": Ways(), **FLOAT}, ranks=2),
    "one norm": Case(CALM, FLOAT, words=("optimizer.clip_head=true",)),
    "arcface": Case(CALM | {"margin_list": ARCFACE}, FLOAT),
    "exact slope": Case(CALM | {"margin_list": ARCFACE}, FLOAT, words=("head.margin_slope=exact",)),
    "two margins": Case(CALM | {"margin_list": BOTH}, FLOAT),
    "decay": Case(
        CALM | {"weight_decay": 0.5},
        FLOAT | {"and no decay of vectors": replace(EXACT, decay_all=False)},
    ),
    "warm-up": Case(
        CALM | {"warmup_epoch": 1}, FLOAT | {"and no offset": replace(EXACT, offset=False)}
    ),
    "two passes": Case(
        CALM | {"gradient_acc": 2, "weight_decay": 0.01},
        {
            "and no decay of vectors": replace(EXACT, decay_all=False),
            "and no offset": replace(EXACT, decay_all=False, offset=False),
        },
        ranks=2,
    ),
    "sampled": Case(
        CALM | {"sample_rate": 0.5},
        FLOAT | {"and no momentum": replace(EXACT, momentum=0.0)},
        ranks=2,
    ),
}


def config_of(case: Case, steps: int) -> str:
    """A configuration of theirs, in which an epoch is a quarter of the steps."""
    passes = case.values.get("gradient_acc", 1)
    known = {
        "num_classes": CLASSES,
        "num_image": BATCH * max(1, steps // 4),
        "num_epoch": 4,
        "batch_size": BATCH // case.ranks // passes,
        "seed": 7,
    }
    return text_of({"network": NETWORK, "embedding_size": WIDTH, **known, **case.values})


def make_pack(root: Path) -> None:
    """Photographs of `openpeople` as if of 40 people, who are called by numbers."""
    if (root / "pack").is_dir():
        return
    faces = Counter[int]()
    for number, sample in enumerate(open_source("openpeople")):
        person = number % CLASSES
        path = root / "faces" / str(person) / f"{faces[person]:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sample.read())
        faces[person] += 1
    pairdistill("pack", str(root / "faces"), str(root / "pack"), "--layout", "singles")


def pairdistill(*words: str) -> None:
    """Run a command of ours."""
    command = [sys.executable, "-m", "distill", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)


def first_state(checkout: Path, root: Path, ranks: int) -> None:
    """Checkpoints of theirs before the first step, and what docs/arcface.md makes of them."""
    torch.manual_seed(3)
    backbone = backbone_of(checkout, NETWORK, WIDTH).state_dict()
    rows = torch.normal(0, 0.01, (CLASSES, WIDTH)).tensor_split(ranks)
    files = [root / f"checkpoint_gpu_{rank}.pt" for rank in range(ranks)]
    for path, weight in zip(files, rows, strict=True):
        head = {"weight": weight.clone()}
        torch.save({"state_dict_backbone": backbone, "state_dict_softmax_fc": head}, path)
    page = (ROOT / "docs" / "arcface.md").read_text()
    code = re.search(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert code is not None, "docs/arcface.md shows how"
    given = [*map(str, files), str(root / "first.safetensors")]
    subprocess.run([sys.executable, "-c", code[1], *given], check=True)


def rank_main(case: Path) -> None:
    """Be one rank of both."""
    asked = json.loads(case.read_text())
    ranks = from_environment(config := load_config(Path(asked["settings"])))
    pairs: list[Pair] = []
    module: Any = sys.modules["distill.train"]
    ours, take = module.train_step, HeadTrainer.take
    rows: list[torch.Tensor | None] = [None]
    found: dict[str, float] = {}

    def remember(trainer: HeadTrainer, taken: torch.Tensor | None) -> None:
        rows[0] = taken
        take(trainer, taken)

    def both(
        engine: Engine, batches: Any, recipe: Recipe, step: int, *rest: Any, **more: Any
    ) -> Any:
        if not pairs:
            pairs.append(Pair(asked, engine, recipe))
        report = ours(engine, batches, recipe, step, *rest, **more)
        pairs[0].rows = rows[0]
        pairs[0].step(batches, report.scalars["loss/total"], step)
        if step == 0:
            one = {f"{name}, one step": value for name, value in pairs[0].apart().items()}
            found.update(one)
        if step + 1 == recipe.total_steps:
            found.update(pairs[0].apart())
            if ranks.is_first:
                case.with_suffix(".found").write_text(json.dumps(found))
        return report

    HeadTrainer.take = remember  # type: ignore[method-assign]
    module.train_step = both
    train(config, ranks)


def measured(root: Path, peer: Path, case: Case, ways: Ways, steps: int) -> dict[str, float]:
    """Both sides trained, in processes of their own."""
    (root / "theirs.py").write_text(config_of(case, steps))
    first_state(peer, root, case.ranks)
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder, "run.toml")
        words = [
            f"data.train={root / 'pack'}", f"run.dir={folder}/run", "run.device=cpu",
            f"model.init_from={root / 'first.safetensors'}", "data.reader=python",
            "run.threads_per_rank=1",
            f"train.steps={steps}", f"optimizer.momentum={ways.momentum}",
        ]  # fmt: skip
        to = ["--ranks", str(case.ranks), "--out", str(settings)]
        pairdistill("migrate", str(root / "theirs.py"), *words, *case.words, *to)
        asked = {"peer": str(peer), "root": str(root), "settings": str(settings)}
        asked |= {"values": case.values, "ways": asdict(ways)}
        path = Path(folder, "case.json")
        path.write_text(json.dumps(asked))
        program = [sys.executable, __file__, "--case", str(path)]
        if status := spawn_local([], case.ranks, program=program):
            raise SystemExit(status)
        found: dict[str, float] = json.loads(path.with_suffix(".found").read_text())
        return found


def row(name: str, case: Case, ways: str, steps: int, found: dict[str, float]) -> str:
    """A line of the table."""
    cells = [name, str(case.ranks), ways, str(steps)]
    cells += [f"{found[one]:.4f}" for one in ("first", "last")]
    apart = ("loss", "largest", "backbone", "head", "backbone, one step", "head, one step")
    cells += [f"{found[one]:.1e}" for one in apart]
    return " | ".join(cells)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--peer", type=Path, help="a checkout of insightface, or its arcface_torch")
    parser.add_argument("--cases", default=",".join(CASES), help="with commas")
    parser.add_argument("--steps", type=int, default=20, help="of each (20)")
    parser.add_argument("--pack", type=Path, help="folder to keep the pack in")
    parser.add_argument("--case", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        with spawned_rank():
            return rank_main(args.case)
    if args.peer is None:
        parser.error("--peer is needed")
    print(HEADING, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        root = args.pack or Path(folder)
        make_pack(root)
        for name in args.cases.split(","):
            case = CASES[name]
            for ways, changed in case.ways.items():
                found = measured(root, args.peer.resolve(), case, changed, args.steps)
                print(row(name, case, ways, args.steps, found), flush=True)
    return None


if __name__ == "__main__":
    main()
