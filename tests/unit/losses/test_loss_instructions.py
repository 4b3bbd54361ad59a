"""`benchmarks/count_instructions.py` on code whose instructions are counted by hand."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
import count_instructions as counting

NAME = ".text._ZN1a7on_chipI13__nv_bfloat16EEvv:"
EXPONENTIALS = ["MUFU.EX2 R1, R2"] * 8

# A sweep that fetches, with a slow way round and one that fetches nothing; then one that writes.
CODE = [
    NAME,
    ".L_x_0:",
    "LDS.128 R4, [R3+0x1000]",
    "ISETP.NE.AND P0, PT, R1, UR4, PT",
    "@P0 BRA `(.L_x_2)",
    *EXPONENTIALS,
    "FFMA R1, R2, R3, -R4",
    "BRA `(.L_x_3)",
    ".L_x_2:",
    *["FMUL R1, R1, R1"] * 40,
    ".L_x_3:",
    "@!P1 BRA `(.L_x_4)",
    "IMAD.WIDE.U32 R8, R11, 0x10, R18",
    "LDGSTS.E.BYPASS.128 [R13+0x1000], desc[UR18][R8.64]",
    ".L_x_4:",
    "LDGDEPBAR",
    "@!P2 BRA `(.L_x_0)",
    ".L_x_5:",
    'BRX R2 -0x10 (*"BRANCH_TARGETS .L_x_6,.L_x_7"*)',
    ".L_x_6:",
    *EXPONENTIALS,
    "F2FP.BF16.F32.PACK_AB R1, R2, R3",
    "BRA P3, `(.L_x_8)",
    ".L_x_7:",
    *EXPONENTIALS,
    *["FSEL R1, R2, R3, P0"] * 8,
    ".L_x_8:",
    "STG.E.EF.128 desc[UR38][R2.64], R16",
    "UIADD3 UR6, UR9, 0x7, URZ",
    "@!PT LDS RZ, [RZ]",
    "@!P2 BRA `(.L_x_5)",
    "EXIT",
]


def printed(code: list[str]) -> str:
    """As nvdisasm prints it; encoding left out."""
    return "\n".join(
        line if line.startswith(".") else f"        /*{16 * i:04x}*/                   {line} ;"
        for i, line in enumerate(code)
    )


def test_the_shortest_ways_round_that_fetch_or_write_are_counted() -> None:
    (blocks,) = counting.functions(printed(CODE)).values()
    statistics, gradient = counting.loops(blocks)
    assert statistics == counting.Loop(
        False,
        Counter(LDS=1, ISETP=1, BRA=4, MUFU=8, FFMA=1, IMAD=1, LDGSTS=1, LDGDEPBAR=1),
    )
    assert gradient == counting.Loop(
        True, Counter(BRX=1, MUFU=8, F2FP=1, BRA=2, STG=1, UIADD3=1, LDS=1)
    )
    assert counting.by_unit(statistics.counts) == Counter(
        mufu=8, float32=2, alu=1, memory=2, control=5
    )


def test_code_that_goes_round_nowhere_is_no_loop() -> None:
    straight = [
        NAME,
        *EXPONENTIALS,
        "STG.E.EF.128 desc[UR38][R2.64], R16",
        "EXIT",
        ".L_x_9:",
        "NOP",
    ]
    (blocks,) = counting.functions(printed(straight)).values()
    assert counting.loops(blocks) == []


def test_bounds_are_what_the_units_need_over_what_the_bytes_need() -> None:
    """By another way: seconds of 10^9 positions, all multiprocessors together."""
    gpu, columns = counting.GPUS["h100"], 8
    loop = counting.Loop(False, Counter(MUFU=32, FFMA=64, LOP3=16, LDS=2))
    found = counting.bounds(loop, columns, 4, gpu)
    warps = 1e9 / 32 / columns  # times that a warp goes round
    bytes_s = 4 * 1e9 / 3.35e12
    units = {"issue": (114, 4), "mufu": (32, 0.5), "float32": (64, 4), "alu": (16, 2)}
    for unit, (instructions, warps_a_clock) in units.items():
        seconds = warps * instructions / warps_a_clock / 132 / 1.755e9
        assert found[unit] == pytest.approx(seconds / bytes_s), unit


def test_the_table_has_a_line_for_each_loop() -> None:
    lines = counting.table(printed(CODE), counting.GPUS["h100"])
    assert len(lines) == 4
    assert lines[2].startswith("| on_chip | bfloat16 | statistics | 2.2 | 1.0 | 0.2 |")
    assert lines[3].startswith("| on_chip | bfloat16 | gradient | 1.9 | 1.0 | 0.0 |")
