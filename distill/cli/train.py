"""`pairdistill train`: train on a pack of pairs, or go on where a run left off."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distill.cli.arguments import MaybeConfigPath, Overrides
from distill.cli.local_ranks import on_local_ranks, wants_local_ranks
from distill.errors import UserError
from distill.run_dir import RunDir

if TYPE_CHECKING:
    from distill.config import Config

_KILLED = (signal.SIGKILL, signal.SIGABRT, signal.SIGBUS, signal.SIGSEGV)
"""What ends a rank that nobody asked to stop."""


def train_command(
    config_path: MaybeConfigPath = None,
    overrides: Overrides = None,
    ranks: Annotated[
        int, typer.Option(min=1, help="Processes on this machine; 1 for each CUDA device.")
    ] = 1,
    print_config: Annotated[
        bool,
        typer.Option("--print-config", help="Show the resolved settings, explained; no training."),
    ] = False,
) -> None:
    """Train on a pack of pairs, or go on where the run left off.

    **Examples**

        pairdistill train --print-config > run.toml

        pairdistill train run.toml

        pairdistill train run.toml --ranks 2 train.zero_stage=2 loss.weight=0.5

        pairdistill train run.toml 'loss.weight={start=0.0, end=1.0, over_steps=500}' --print-config

        torchrun --nproc-per-node 8 -m distill train run.toml

    The same command on the same run folder resumes from the newest verified checkpoint.
    Exit status: 0 done, 2 a mistake in the input, 3 stopped by a non-finite loss, 75 where a
    network file system does not show the last checkpoint (try again), 130, 143 or 140 after Ctrl-C,
    TERM (or a terminal that was closed) or USR2 with a checkpoint saved (a second Ctrl-C leaves at
    once).
    """
    from distill.config import explained_toml, load_config

    config = load_config(config_path, overrides or [])
    if print_config:
        typer.echo(explained_toml(config), nl=False)
        return
    if config_path is None:
        raise UserError(
            "CONFIG.toml is missing",
            fix="begin with `pairdistill train --print-config > run.toml` and set data.train",
        )
    raise typer.Exit(run_training(config, [str(config_path), *(overrides or [])], ranks))


def run_training(config: Config, words: list[str], ranks: int, *, apart: bool = False) -> int:
    """Train with ``config`` on this process's rank or on ``ranks`` local ones; the exit status.

    Args:
        config: settings.
        words: the arguments of ``train`` that give the same settings in another process.
        ranks: local ranks to start; 1 trains in this process.
        apart: even one rank gets a process of its own. DeepSpeed trains once in a process.

    Raises:
        UserError: a mistake in the settings or the input.
    """
    if not wants_local_ranks(ranks) and not apart:
        return _train_here(config)
    status = on_local_ranks(["train", "--", *words], ranks)
    if status == 1 or status - 128 in _KILLED:
        _say_what_is_left(RunDir(Path(config.run.dir)))
    return status


def _say_what_is_left(run: RunDir) -> None:
    """A rank failed or was killed, and could not say where the run can go on."""
    from distill.console import note

    if steps := run.checkpoint_steps():
        note(f"the same command goes on after step {steps[-1]}, which is saved")


def _train_here(config: Config) -> int:
    """Be one rank, in this process."""
    from distill.processes.spawn import spawned_rank

    with spawned_rank():
        from distill.ranks import from_environment
        from distill.train import train

        return train(config, from_environment(config)).exit_status
    raise AssertionError("a spawned rank that fails has left")
