"""A pack names the version of every library that its pixels come from."""

import ast
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

from distill.data import faces, images, second
from distill.data.pack.options import PackOptions, request_digest, versions

DECIDING = [Path(images.__file__), Path(faces.__file__), Path(second.__file__).parent]
"""From bytes to pixels, to aligned faces, to second images."""


def imported(file):
    """Modules that a file imports, by the name that comes first."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def test_every_library_that_touches_a_pixel_is_named():
    files = [file for place in DECIDING for file in ([place, *place.rglob("*.py")])]
    modules = {name for file in files if file.is_file() for name in imported(file)}
    others = modules - set(sys.stdlib_module_names) - {"distill"}
    distributions = {packages_distributions()[name][0].lower() for name in others}
    assert distributions >= {"numpy", "numba"}
    assert distributions <= {name.lower() for name in versions()}


def test_another_version_of_any_of_them_is_another_request(monkeypatch):
    now = versions()
    digests = {request_digest("", PackOptions())}
    for name in now:
        monkeypatch.setattr(
            "distill.data.pack.options.versions", lambda name=name: now | {name: "0"}
        )
        digests.add(request_digest("", PackOptions()))
    assert len(digests) == 1 + len(now)
