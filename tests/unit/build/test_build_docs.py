"""The documents: what they name is there, and the figures are those that were measured."""

from __future__ import annotations

import ast
import csv
import re
import shlex
import statistics
import sys
from collections.abc import Iterator, Sequence
from math import sqrt
from pathlib import Path

import pytest
import typer

from distill.cli.app import build_app
from distill.config import Config
from distill.config.explain import known_keys
from distill.losses import bench

ROOT = Path(__file__).parents[3]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("recipes/*.toml")],
)
HISTORY = {"log.md", "CHANGELOG.md"}
"""These tell of what was: commands and files of then."""
TODAY = [path for path in DOCUMENTS if path.name not in HISTORY]
FILE_ENDINGS = "toml|py|rec|idx|safetensors|pt|csv|png"


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8"))
    files = [link.partition("#")[0] for link in links if not link.startswith("http")]
    assert [file for file in files if not (document.parent / file).exists()] == []


@pytest.mark.parametrize("document", TODAY, ids=named)
def test_files_of_the_project_are_there(document: Path) -> None:
    folders = "distill|launcher|tests|benchmarks|docs|scripts|kernels|recipes"
    text = document.read_text(encoding="utf-8")
    paths = re.findall(rf"(?<![\w/.-])((?:{folders})/[\w./-]*\w)(?![\w*])", text)
    bases = [ROOT, document.parent]  # a document may name its neighbours from where it stands
    assert [path for path in paths if not any((base / path).exists() for base in bases)] == []


@pytest.mark.parametrize("document", TODAY, ids=named)
def test_settings_are_settings(document: Path) -> None:
    sections = "|".join(Config.model_fields)
    text = re.sub(r"```python\n.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = re.findall(rf"(?<![\w/.-])(?:{sections})\.(?!(?:{FILE_ENDINGS})\b)[a-z_0-9]+", text)
    assert sorted(set(found) - set(known_keys())) == []


@pytest.mark.parametrize("document", TODAY, ids=named)
def test_commands_have_the_options_that_are_named(document: Path) -> None:
    commands = typer.main.get_command(build_app()).commands  # type: ignore[attr-defined]
    text = document.read_text(encoding="utf-8").replace("\\\n", " ")
    for command, words in re.findall(
        r"(?:`|^ *#? +|\$ )pairdistill ([a-z]\w*)\b([^\n`#]*)", text, re.M
    ):
        assert command in commands
        known = {option for each in commands[command].params for option in each.opts}
        assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", words)) <= known, (command, words)


def test_the_walk_names_files_of_the_trainer() -> None:
    text = (ROOT / "docs" / "walk.md").read_text(encoding="utf-8")
    here = {
        path.name
        for folder in ("distill", "launcher", "tests")
        for path in (ROOT / folder).rglob("*.py")
    }
    files = re.findall(r"`([\w/]+\.py)`", text)
    assert len(files) > 60
    assert [file for file in files if Path(file).name not in here] == []
    places = [ROOT / "distill", ROOT / "distill" / "data", ROOT]
    whole = [file for file in files if "/" in file]
    assert [file for file in whole if not any((place / file).exists() for place in places)] == []


def test_the_tree_in_the_readme_is_the_tree() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = text.partition("## Where things are")[2].partition("`docs/walk.md`")[0]
    words = set(re.findall(r"[\w.]+", tree))
    inside = [path.name for path in (ROOT / "distill").iterdir() if not path.name.startswith("_")]
    assert [name for name in sorted(inside) if name not in words and name != "py.typed"] == []
    parts = re.findall(r"(?:^|[ (])([a-z_]+(?:/|\.py))(?=[ );\n])", tree)
    assert len(parts) > 40
    folders = [ROOT, *(ROOT / name for name in ("distill", "launcher", "tests", "slurm"))]
    there = {path.name for folder in folders for path in [*folder.iterdir(), *folder.glob("*/*")]}
    there |= {path.name for path in (ROOT / "distill" / "data").iterdir()}
    assert [part for part in parts if part.rstrip("/") not in there] == []


MEASURES = {
    "top-1, clean": "clean/top1",
    "top-1, processed": "processed/top1",
    "top-1, forehead covered": "forehead/top1",
    "same answer as clean": "processed/agreement",
    "cosine to clean embedding": "processed/cosine",
    "verified, AUC, processed": "processed/auc",
}
README_COLUMNS = ["first", "pairs", "kl", "ce", "kl-pairs", "ce-pairs"]
PAIRS_COLUMNS = ["first", "pairs", "kl", "ce", "mmd", "kl-pairs", "ce-pairs", "mmd-pairs"]


def measured(column: str, measure: str) -> tuple[float, float]:
    """Mean and standard error over the eight seeds, of an arm or of two seed by seed."""
    with (ROOT / "docs/benchmarks/pairs.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    arm, _, less = column.partition("-")
    lines = [line for line in lines if "head.scale" not in line["overrides"]]  # that is the control
    of = {(line["arm"], int(line["seed"])): float(line[measure]) for line in lines}
    seeds = range(201, 209)
    values = [of[arm, seed] - (of[less, seed] if less else 0.0) for seed in seeds]
    error = statistics.stdev(values) / sqrt(len(values))
    return statistics.fmean(values), error


def agree(cells: list[str], columns: list[str], measure: str) -> bool:
    """Whether ``0.919 ± 0.012`` and its like are what was measured, to the digits shown."""
    told = [[float(number) for number in cell.split(" ± ")] for cell in cells]
    found = [measured(column, measure) for column in columns]
    return told == [[pytest.approx(number, abs=5.1e-4) for number in pair] for pair in found]


def shown(document: str, heading: str) -> Iterator[tuple[str, list[str]]]:
    """The first cell and the others of each row with errors, below a heading."""
    text = (ROOT / document).read_text(encoding="utf-8").partition(f"\n## {heading}")[2]
    for line in text.partition("\n## ")[0].splitlines():
        cells = [cell.strip(" *") for cell in line.strip("|").split("|")]
        if line.startswith("| ") and "±" in line:
            yield cells[0], cells[1:]


def test_figures_of_the_readme_are_those_of_the_measurements() -> None:
    table = dict(shown("README.md", "What pairs and similarity do"))
    assert table.keys() == MEASURES.keys()
    for name, cells in table.items():
        assert agree(cells, README_COLUMNS, MEASURES[name]), name


def test_figures_of_the_pairs_are_those_of_the_measurements() -> None:
    table = dict(shown("docs/pairs.md", "Means"))
    assert table.keys() > set(MEASURES.values())
    for name, cells in table.items():
        assert agree(cells, PAIRS_COLUMNS, name), name


def minutes_on_a_gpu() -> str:
    text = (ROOT / "docs" / "benchmarks" / "README.md").read_text(encoding="utf-8")
    return text.partition("### On a machine for some minutes")[2].partition("\n## ")[0]


def imported(file: Path, *, at_load: bool = False) -> Iterator[str]:
    """Modules that a file imports when it is loaded, or when it is run as well; none for types."""
    later = (ast.FunctionDef, ast.Lambda) if at_load else ()
    nodes: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (node.module, *(f"{node.module}.{name.name}" for name in node.names))
        elif not isinstance(node, later) and "TYPE_CHECKING" not in ast.unparse(
            getattr(node, "test", ast.Pass())
        ):
            nodes += ast.iter_child_nodes(node)


def sources(name: str) -> Iterator[Path]:
    """The file of a module of ours and those of its packages; none for what is no module."""
    places = [ROOT / name.replace(".", "/"), *(ROOT / name.replace(".", "/")).parents]
    for place in places[: name.count(".") + 1]:
        found = place.with_suffix(".py"), place / "__init__.py"
        yield from (file for file in found if file.exists())


def loaded_with(files: Sequence[Path]) -> set[str]:
    """Packages that ``files`` import, and that modules of ours import when these load them."""
    names = {name for file in files for name in imported(file)}
    new, seen = set(names), set()
    while new:
        ours = {file for name in new if name.startswith("distill") for file in sources(name)}
        new = {name for file in ours - seen for name in imported(file, at_load=True)} - names
        names |= new
        seen |= ours
    return {name.partition(".")[0] for name in names}


def test_a_bare_python_is_told_of_all_that_the_loss_on_a_gpu_imports() -> None:
    losses = ROOT / "tests" / "unit" / "losses"
    helpers = [losses / "loss_cases.py", losses / "cuda_on_cpu" / "agreement.py"]
    tests = [file for file in ROOT.glob("tests/gpu/*l*_gpu.py") if file.name in minutes_on_a_gpu()]
    assert len(tests) == 4
    ours = [*ROOT.glob("distill/losses/bench*.py"), ROOT / "distill" / "doctor" / "loss.py"]
    files = [ROOT / "tests" / "conftest.py", *tests, *helpers, *ours]
    packages = (
        loaded_with(files) - sys.stdlib_module_names - {"distill", *(file.stem for file in helpers)}
    )
    told = minutes_on_a_gpu().partition("does for the loss")[0]
    assert [name for name in packages if not re.search(rf"\b(pytest-)?{name}\b", told)] == []


def test_benchmarks_for_a_gpu_have_the_options_that_are_named() -> None:
    text = minutes_on_a_gpu().replace("\\\n", " ")
    commands = re.findall(r"-m distill\.losses\.bench (.*?) 2>&1", text)
    found = [bench.parse(shlex.split(command)) for command in commands]
    assert [args.device for args in found] == ["cuda", "cuda"]
    assert len({args.save for args in found}) == 2, "one table would be written over the other"
