"""`pairdistill tensorboard`: the curves of runs, on this machine alone."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distill.errors import UserError
from launcher.commands import options

if TYPE_CHECKING:
    from distill.run_dir import RunDir

HOST = "127.0.0.1"


def tensorboard_command(
    runs: options.Runs = None,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port; 0 for any that is free.")
    ] = 6006,
) -> None:
    """Show the curves of runs side by side; reachable from this machine only.

    From elsewhere: `ssh -L 6006:localhost:6006 HOST`.

    Example: `pairdistill tensorboard runs/a runs/b`
    """
    from launcher.status import find_runs

    with tempfile.TemporaryDirectory(prefix="pairdistill-board-") as folder:
        link_runs(find_runs(runs or [Path("runs")]), Path(folder))
        argv = [sys.executable, "-m", "tensorboard.main", "--logdir", folder]
        argv += ["--host", HOST, "--port", str(port)]
        try:
            status = subprocess.run(argv, check=False).returncode
        except KeyboardInterrupt:
            status = 0
    raise typer.Exit(status)


def link_runs(runs: Sequence[RunDir], folder: Path) -> None:
    """Bring the event files of runs under one folder, whatever their paths are made of.

    Raises:
        UserError: none of them has any.
    """
    having = [run for run in runs if run.tensorboard.is_dir()]
    if not having:
        raise UserError("no run has TensorBoard files yet", fix="set monitor.tensorboard=true")
    for run in having:
        name = run.root.name
        names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        link = next(folder / name for name in names if not (folder / name).exists())
        link.symlink_to(run.tensorboard.absolute())
