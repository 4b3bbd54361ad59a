"""Counts what the compiled CUDA kernels do for a class position, and what that allows at most.

    python benchmarks/count_instructions.py                 # of distill/_kernels.so, for sm_90
    python benchmarks/count_instructions.py --arch sm_80 --gpu a100

Needs `cuobjdump` and `nvdisasm` of a CUDA toolkit (or `pip install nvidia-cuda-cuobjdump
nvidia-cuda-nvdisasm`, and their folder in PATH), and no GPU. A class position is one class of both
images of a pair. For every stretch of code with at least 8 exponentials the shortest way round its
loop is counted that also fetches scores or writes a gradient: what almost all scores go through.

Counts are facts. The bounds beside them are times that no run can beat, as percent of the time in
which the device moves the loop's bytes at its peak: instructions issued (4 a clock and
multiprocessor), and the units for exponentials (16 threads' worth), float32 (128), and integers,
comparisons and conversions (64), by NVIDIA's table of arithmetic throughput. No time is measured.
"""

from __future__ import annotations

import argparse
import heapq
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

LIBRARY = Path(__file__).parents[1] / "distill" / "_kernels.so"
TYPES = {"13__nv_bfloat16": ("bfloat16", 2), "6__half": ("float16", 2), "f": ("float32", 4)}
RUN_BYTES, FEWEST_EXPONENTIALS = 16, 8

INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(@!?U?P\w+\s+)?([A-Z]\w*)(\S*)\s*(.*?);")
LABEL = re.compile(r"\.L_x_\d+")
KERNEL = re.compile(r"\d(on_chip|reduce_parts|gradient_parts)I(13__nv_bfloat16|6__half|f)E")
FUNCTION = re.compile(r"^\.text\.(\S+):$")
ENDS = ("BRA", "BRX", "EXIT", "RET")

FLOAT32 = ("FFMA", "FADD", "FMUL", "HFMA2", "HADD2", "HMUL2", "IMAD")
MEMORY = ("LDG", "LDS", "LDC", "LDGSTS", "STG", "STS", "LDL", "STL", "ULDC", "LDCU")
CONTROL = ("BRA", "BRX", "BSSY", "BSYNC", "BREAK", "DEPBAR", "LDGDEPBAR", "WARPSYNC", "EXIT")
THREADS_A_CLOCK = {"mufu": 16, "float32": 128, "alu": 64}
ISSUED_A_CLOCK = 4 * 32


class Gpu(NamedTuple):
    """Data-sheet figures of a device."""

    multiprocessors: int
    clock_hz: float
    bytes_s: float


GPUS = {
    "a100": Gpu(108, 1.41e9, 2.04e12),
    "h100": Gpu(132, 1.755e9, 3.35e12),
    "h200": Gpu(132, 1.755e9, 4.8e12),
}


@dataclass
class Block:
    """Instructions that run one after another, and where they may lead."""

    operations: list[tuple[str, str]] = field(default_factory=list)  # name, and all of its parts
    labels: list[str] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)
    falls_through: bool = True
    followers: list[int] = field(default_factory=list)


class Loop(NamedTuple):
    """The shortest way round a loop."""

    writes: bool  # a gradient; else it fetches scores
    counts: Counter[str]  # by the names of instructions


def functions(text: str) -> dict[str, list[Block]]:
    """The code of each function in what `nvdisasm -c` prints."""
    found: dict[str, list[Block]] = {}
    blocks: list[Block] = []
    for line in text.splitlines():
        if start := FUNCTION.match(line):
            blocks = found.setdefault(start[1], [Block()])
        elif line.startswith(".L_x_") and blocks:
            if blocks[-1].operations:
                blocks.append(Block())
            blocks[-1].labels.append(line.split(":")[0])
        elif (match := INSTRUCTION.search(line)) and blocks:
            _add(blocks, match)
    for code in found.values():
        _connect(code)
    return found


def _add(blocks: list[Block], match: re.Match[str]) -> None:
    predicate, name, parts, arguments = match.groups()
    block = blocks[-1]
    block.operations.append((name, name + parts))
    if name not in ENDS:
        return
    if name in ("BRA", "BRX"):
        block.targets = LABEL.findall(arguments)
    conditional = bool(predicate) or ".DIV" in parts or re.match(r"!?U?P\d", arguments) is not None
    block.falls_through = conditional
    blocks.append(Block())


def _connect(blocks: list[Block]) -> None:
    at = {label: i for i, block in enumerate(blocks) for label in block.labels}
    for i, block in enumerate(blocks):
        block.followers = [at[label] for label in block.targets if label in at]
        if block.falls_through and i + 1 < len(blocks):
            block.followers.append(i + 1)


def shortest_loop(blocks: list[Block], body: int, needed: str) -> Counter[str] | None:
    """Instructions of the shortest way from ``body`` to itself past an instruction ``needed``.

    None where there is none.
    """
    start = (body, False)
    best, queue = {start: 0}, [(0, start)]
    before: dict[tuple[int, bool], tuple[int, bool]] = {}
    while queue:
        length, here = heapq.heappop(queue)
        if length > best[here]:
            continue
        block = blocks[here[0]]
        met = here[1] or any(whole.startswith(needed) for _, whole in block.operations)
        for follower in block.followers:
            if follower == body and met:
                return _counted(blocks, here, before)
            then, longer = (follower, met), length + len(block.operations)
            if follower != body and longer < best.get(then, longer + 1):
                best[then], before[then] = longer, here
                heapq.heappush(queue, (longer, then))
    return None


def _counted(
    blocks: list[Block],
    end: tuple[int, bool],
    before: dict[tuple[int, bool], tuple[int, bool]],
) -> Counter[str]:
    way = [end]
    while way[-1] in before:
        way.append(before[way[-1]])
    return Counter(name for block, _ in way for name, _ in blocks[block].operations)


def loops(blocks: list[Block]) -> list[Loop]:
    """The loops with many exponentials, without those that differ in nothing counted.

    Steps that guard each product, which few scores need, select as often as they multiply.
    """
    found: list[Loop] = []
    for body, block in enumerate(blocks):
        names = Counter(name for name, _ in block.operations)
        if names["MUFU"] < FEWEST_EXPONENTIALS or names["FSEL"] >= FEWEST_EXPONENTIALS:
            continue
        writing = shortest_loop(blocks, body, "STG.E.EF.128")
        counts = writing or shortest_loop(blocks, body, "LDGSTS")
        loop = counts and Loop(writing is not None, counts)
        if loop and loop not in found:
            found.append(loop)
    return found


def by_unit(counts: Counter[str]) -> Counter[str]:
    """The same by what carries them out."""
    units: Counter[str] = Counter()
    for name, count in counts.items():
        if name == "MUFU":
            unit = "mufu"
        elif name in FLOAT32:
            unit = "float32"
        elif name in MEMORY:
            unit = "memory"
        elif name in CONTROL or name.startswith("U"):
            unit = "control"
        else:
            unit = "alu"
        units[unit] += count
    return units


def bounds(loop: Loop, columns: int, position_bytes: int, gpu: Gpu) -> dict[str, float]:
    """For each unit, its least time over that of the bytes."""
    clocks = position_bytes / (gpu.bytes_s / gpu.multiprocessors / gpu.clock_hz)
    units = by_unit(loop.counts)
    found = {"issue": loop.counts.total() * 32 / ISSUED_A_CLOCK / (32 * columns) / clocks}
    for unit, threads in THREADS_A_CLOCK.items():
        found[unit] = units[unit] / threads / columns / clocks
    return found


def disassembled(library: Path, arch: str) -> str:
    """What `nvdisasm` prints of the code for ``arch`` in a library."""
    for tool in ("cuobjdump", "nvdisasm"):
        if shutil.which(tool) is None:
            raise SystemExit(f"error: {tool} is not in PATH; it is part of the CUDA toolkit")
    with tempfile.TemporaryDirectory() as folder:
        extract = ["cuobjdump", "-arch", arch, "-xelf", "all", str(library.resolve())]
        subprocess.run(extract, cwd=folder, check=True, capture_output=True)
        files = sorted(Path(folder).glob("*.cubin"))
        if not files:
            raise SystemExit(f"error: {library} holds no code for {arch}")
        commands = [["nvdisasm", "-c", str(file)] for file in files]
        runs = [subprocess.run(c, check=True, capture_output=True, text=True) for c in commands]
    return "\n".join(run.stdout for run in runs)


def table(text: str, gpu: Gpu) -> list[str]:
    """One line for each loop of each kernel and type."""
    out = [
        "| kernel | scores | loop | instructions | mufu | float32 | alu | memory | control "
        "| bound: issue | mufu | float32 | alu |",
        "|" + "---|" * 13,
    ]
    for name, blocks in functions(text).items():
        match = KERNEL.search(name)
        for loop in loops(blocks) if match else []:
            assert match is not None
            scores, size = TYPES[match[2]]
            columns = RUN_BYTES // size
            moved = 4 * size if match[1] == "gradient_parts" else 2 * size
            units = by_unit(loop.counts)
            each = [units[u] / columns for u in ("mufu", "float32", "alu", "memory", "control")]
            cells = [match[1], scores, "gradient" if loop.writes else "statistics"]
            cells += [f"{x:.1f}" for x in (loop.counts.total() / columns, *each)]
            cells += [f"{share:.0%}" for share in bounds(loop, columns, moved, gpu).values()]
            out.append("| " + " | ".join(cells) + " |")
    return out


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("library", nargs="?", type=Path, default=LIBRARY)
    parser.add_argument("--arch", default="sm_90", help="of the code that is read (default sm_90)")
    parser.add_argument("--gpu", default="h100", choices=tuple(GPUS), help="for the bounds")
    args = parser.parse_args()
    gpu = GPUS[args.gpu]
    print("Instructions for a class position; bounds over the time of the loop's bytes on", end=" ")
    print(f"{args.gpu}: {gpu}")
    print(*table(disassembled(args.library, args.arch), gpu), sep="\n")


if __name__ == "__main__":
    main()
