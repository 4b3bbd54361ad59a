"""The table of docs/planner.md, which `python -m distill.planner.growth` prints."""

from __future__ import annotations

from distill.config import load_config
from distill.planner.choose import Comparison, Row, compare
from distill.planner.clock import Machine
from distill.planner.gpus import gpu_named

IDENTITIES = {"93 k": 93_431, "360 k": 360_232, "2 M": 2_059_906, "10 M": 10**7, "30 M": 3 * 10**7}
GPUS = (8, 32, 256)
PAIRS_A_GPU = 32
HEAD = """\
| identities | GPUs | fastest that fits | GiB a GPU | sent, MB a step | step, ms | slowest | \
replicated, plain, ZeRO 1: GiB |
|---:|---:|---|---:|---:|---:|---|---:|"""


def compared(classes: int, ranks: int) -> Comparison:
    """All choices for ResNet-100 in bf16 on H100s, 32 pairs each."""
    words = ["model.name=iresnet100", "train.precision=bf16", "head.margin=cosface"]
    words.append(f"train.global_batch_pairs={PAIRS_A_GPU * ranks}")
    machine = Machine(gpu_named("h100"))
    return compare(load_config(None, words), classes, machine, ranks, remedies=False)


def markdown() -> str:
    """The table."""
    lines = [HEAD]
    for name, classes in IDENTITIES.items():
        lines += [_line(name, compared(classes, ranks)) for ranks in GPUS]
    return "\n".join(lines) + "\n"


def _line(name: str, found: Comparison) -> str:
    usual = next(row for row in found.rows if row.choice.overrides == _USUAL)
    cells = [name, str(found.job.ranks), *_of_best(found), _gib(usual)]
    return f"| {' | '.join(cells)} |"


_USUAL = ["train.zero_stage=1", "head.placement=replicated", "loss.form=plain"]


def _of_best(found: Comparison) -> list[str]:
    row = found.best
    if row is None:
        return ["none", "", "", "", ""]
    choice = row.choice
    sent = sum(one.bytes_a_rank(found.job.ranks) for one in row.traffic)
    return [
        f"{choice.placement}, {choice.form}, ZeRO {choice.zero_stage}",
        _gib(row),
        f"{sent / 1e6:.0f}",
        f"{1e3 * row.seconds.step:.0f}",
        row.seconds.bound_by,
    ]


def _gib(row: Row) -> str:
    return f"{row.memory.peak_bytes / 2**30:.1f}"


if __name__ == "__main__":
    print(markdown(), end="")
