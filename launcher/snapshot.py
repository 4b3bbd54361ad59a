"""What a run was made with: a copy of the sources that really is what runs, and where it came from.

The copy lies in the job's folder, and its PYTHONPATH points there: edits of the sources while a job
waits in the queue, or between two starts of it, change nothing.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import distill
from distill.files import write_whole
from distill.run_dir import JobDir

PACKAGES = ("distill", "launcher")
_LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*", "*.orig", "*.rej")
_RECORDED = re.compile(
    r"(CUDA|NCCL|GLOO|OMP|MKL|TORCH|PYTORCH|PAIRDISTILL|DS|LD|PYTHON|CONDA|VIRTUAL)_?[A-Z0-9_]*|PATH"
    r"|SLURM_CONF|HOSTNAME|LANG|MODULEPATH|LOADEDMODULES"
)
_SECRET = re.compile(r"TOKEN|SECRET|PASS|KEY|CREDENTIAL", re.IGNORECASE)
_AS_BYTES = "surrogateescape"
"""What git shows of sources need not be UTF-8; it is kept as it is."""


def take_snapshot(job: JobDir) -> str:
    """Copy the packages into the job's folder and write down where they came from.

    Returns:
        The digest of the copy, which every node compares before the first step.
    """
    sources = Path(distill.__file__).resolve().parents[1]
    for package in PACKAGES:
        shutil.copytree(sources / package, job.code / package, ignore=_LEFT_OUT)
    digest = code_digest(job.code)
    revision = _git(sources, "rev-parse", "HEAD").strip()
    state = _git(sources, "status", "--porcelain", "--", *PACKAGES).splitlines()
    about = {"revision": revision, "changed": state, "digest": digest, "from": str(sources)}
    write_whole(job.code_json, json.dumps(about, indent=1).encode())
    patch = ("diff", "--no-color", "--no-ext-diff", "--binary", "HEAD", "--")
    write_whole(job.code_diff, _git(sources, *patch, *PACKAGES).encode(errors=_AS_BYTES))
    write_whole(job.environment, json.dumps(environment(), indent=1).encode())
    return digest


def code_digest(folder: Path) -> str:
    """SHA-256 over names and contents of the sources and native libraries in ``folder``."""
    total = hashlib.sha256()
    for package in PACKAGES:
        for file in sorted((folder / package).rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                content = hashlib.sha256(file.read_bytes()).hexdigest()
                total.update(f"{file.relative_to(folder)} {content}\n".encode())
    return total.hexdigest()


def environment() -> dict[str, object]:
    """Versions and those variables that bear on a run; nothing that looks like a secret."""
    # One that an installation has left half-way has no name.
    found = ((d.metadata["Name"], d.version) for d in importlib.metadata.distributions())
    packages = {name: version for name, version in found if name}
    variables = {
        name: value
        for name, value in sorted(os.environ.items())
        if _RECORDED.fullmatch(name) and not _SECRET.search(name)
    }
    return {
        "python": sys.version,
        "executable": sys.executable,
        "platform": platform.platform(),
        "packages": dict(sorted(packages.items())),
        "variables": variables,
    }


def _git(folder: Path, *words: str) -> str:
    """What git says of the sources; empty where they are no repository or git is missing."""
    if shutil.which("git") is None:
        return ""
    argv = ["git", "-C", str(folder), *words]
    done = subprocess.run(
        argv, capture_output=True, encoding="utf-8", errors=_AS_BYTES, check=False
    )
    return done.stdout
