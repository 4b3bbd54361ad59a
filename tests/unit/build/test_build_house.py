"""How the sources must look, and what no linter knows about who may import what."""

from __future__ import annotations

import ast
import itertools
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = [folder for folder in ("distill", "launcher") if (ROOT / folder).is_dir()]
MAX_LINES = 300
MAX_MEDIAN = 15
EXCUSE = "over 300 lines:"
SOURCES = ("*.py", "*.sh", "*.h", "*.cpp", "*.cu")
HEAVY = ("torch", "deepspeed", "ffcv", "numba", "cv2", "sklearn", "matplotlib", "submitit")


def python_files(*folders: str) -> list[Path]:
    return sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))


def functions(file: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def imported_names(tree: ast.AST) -> Iterator[str]:
    """Every name that any import statement or `import_module("...")` of ``tree`` asks for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant))


def importers(package: str, *folders: str) -> set[str]:
    """The files, relative to the repository, that import ``package`` anywhere, in any way."""
    return {
        str(file.relative_to(ROOT))
        for file in python_files(*folders)
        for name in imported_names(ast.parse(file.read_text()))
        if name.split(".")[0] == package
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_the_median_function_is_short(package: str) -> None:
    lengths = [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for file in python_files(package)
        for node in functions(file)
    ]
    assert statistics.median(lengths) < MAX_MEDIAN


def test_files_are_short_or_say_why() -> None:
    folders = [*PACKAGES, "kernels", "scripts", "tests", "benchmarks"]
    files = itertools.chain.from_iterable(
        (ROOT / folder).rglob(pattern) for folder in folders for pattern in SOURCES
    )
    long = {}
    for file in files:
        text = file.read_text()
        if len(text.splitlines()) >= MAX_LINES and EXCUSE not in text:
            long[str(file.relative_to(ROOT))] = len(text.splitlines())
    assert long == {}


def test_the_trainer_never_imports_the_launcher() -> None:
    assert importers("launcher", "distill") == set()


def test_one_file_imports_deepspeed_and_two_ffcv() -> None:
    assert importers("deepspeed", *PACKAGES) == {"distill/engine.py"}
    readers = {"distill/data/ffcv_import.py", "distill/data/ffcv_reader.py"}
    assert importers("ffcv", *PACKAGES) == readers


def test_optional_libraries_stay_optional() -> None:
    assert importers("timm", *PACKAGES) <= {"distill/models/timm_backbone.py"}
    assert importers("torchvision", *PACKAGES) == set()
    assert importers("kernels", *PACKAGES) == set()


@pytest.mark.parametrize("module", ["pickle", "cPickle", "cloudpickle", "dill", "shelve", "joblib"])
def test_no_pickle(module: str) -> None:
    assert importers(module, "distill") == set()


def calls(tree: ast.AST, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == name:
            yield node


def test_nothing_loads_pickles_through_libraries() -> None:
    """numpy and torch would unpickle where they are asked to."""
    for file in python_files("distill"):
        tree = ast.parse(file.read_text())
        assert not list(calls(tree, "torch.load")), file
        for call in [*calls(tree, "np.load"), *calls(tree, "numpy.load")]:
            assert "allow_pickle" not in {word.arg for word in call.keywords}, file


def run_python(code: str) -> str:
    argv = [sys.executable, "-c", code]
    return subprocess.run(argv, capture_output=True, text=True, check=True, cwd=ROOT).stdout


def test_help_comes_without_heavy_imports() -> None:
    """`pairdistill train --help` answers at once: no torch, no DeepSpeed, no FFCV."""
    loaded = run_python(
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from importlib.metadata import entry_points\n"
        "from distill.cli.app import COMMANDS, EXTENSIONS, build_app\n"
        "for command in [*COMMANDS, *entry_points(group=EXTENSIONS).names]:\n"
        "    assert CliRunner().invoke(build_app(), [command, '--help']).exit_code == 0\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    assert loaded.split() == []


def test_importing_the_engine_does_not_start_deepspeed() -> None:
    assert run_python("import sys, distill.engine; print('deepspeed' in sys.modules)") == "False\n"


def test_using_a_trained_network_loads_no_compiler() -> None:
    """torch's own takes as long to import as torch; it is loaded where something is compiled."""
    code = "import sys, distill.classify, distill.evaluate; print('torch._dynamo' in sys.modules)"
    assert run_python(code) == "False\n"


def test_slow_files_come_first(request: pytest.FixtureRequest) -> None:
    """In the order in which workers get them; one at the end would leave the others idle."""
    slow = [item.path for item in request.session.items if item.get_closest_marker("slow")]
    order = [item.path in slow for item in request.session.items]
    assert order == sorted(order, reverse=True)


def test_public_things_are_described() -> None:
    """ruff checks that docstrings are there; this checks that every module has one too."""
    silent = [
        str(file.relative_to(ROOT))
        for file in python_files(*PACKAGES)
        if ast.get_docstring(ast.parse(file.read_text())) is None
    ]
    assert silent == []
