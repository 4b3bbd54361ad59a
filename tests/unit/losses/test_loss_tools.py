"""The benchmark and the error tables run, and the polynomial in the sources is the one they fit."""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

import pytest

from distill.losses import bench, error_tables

sys.path.insert(0, str(Path(__file__).parent))
from loss_cases import needs_native

ROOT = Path(__file__).parents[3]


@needs_native
def test_benchmark_prints_a_line_for_each_case_and_writes_csv(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "loss.csv"
    options = ["--pairs", "2", "--classes", "50,70", "--types", "float32", "--rounds", "1"]
    bench.main([*options, "--similarities", "kl", "--csv", str(path)])
    assert capsys.readouterr().out.count("kl | float32") == 8
    lines = list(csv.DictReader(path.open()))
    assert [line["classes"] for line in lines] == ["50"] * 4 + ["70"] * 4
    assert all(float(line["ms"]) > 0 for line in lines)
    of_50 = {line["what"]: float(line["peak_bytes_per_logit"]) for line in lines[:4]}
    rows = 2 * 2 * 50  # values, answers and statistics of a row weigh little beside a row
    assert of_50["forward+backward"] == pytest.approx(4, abs=400 / rows)
    assert of_50["loss and gradient"] == pytest.approx(4, abs=200 / rows)
    assert of_50["the same in place"] == pytest.approx(0, abs=200 / rows)
    assert of_50["plain"] > 12


def test_exp_of_the_cpu_path_has_the_fitted_coefficients() -> None:
    coefficients, error = error_tables.fit_exp()
    source = (ROOT / "kernels" / "pair_loss_exp.h").read_text()
    start = source.index("float p = ")
    written = [float(x) for x in re.findall(r"([0-9.e-]+)f;", source[start : start + 300])]
    assert error < 3.2e-9
    assert written[4::-1] == pytest.approx(coefficients, rel=1e-5)
