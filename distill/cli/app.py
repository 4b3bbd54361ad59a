"""`pairdistill`: the commands, and what happens when one fails."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Annotated

import typer

from distill import __version__, console
from distill.cli.audit import audit_command
from distill.cli.classify import classify_command
from distill.cli.demo import demo_command
from distill.cli.doctor import doctor_command
from distill.cli.embed import embed_command
from distill.cli.evaluate import evaluate_command
from distill.cli.export import export_command
from distill.cli.forget import forget_command
from distill.cli.gallery import gallery_command
from distill.cli.groups import one_by_one
from distill.cli.inspect import inspect_command
from distill.cli.migrate import migrate_command
from distill.cli.pack import pack_command
from distill.cli.pipes import forget_progress, results
from distill.cli.plan import plan_command
from distill.cli.train import train_command
from distill.cli.verify import verify_command
from distill.errors import UserError, as_user_error
from distill.processes.interrupt import interrupted

COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo_command,
    "inspect": inspect_command,
    "pack": pack_command,
    "gallery": gallery_command,
    "verify": verify_command,
    "forget": forget_command,
    "migrate": migrate_command,
    "plan": plan_command,
    "train": train_command,
    "evaluate": evaluate_command,
    "audit": audit_command,
    "classify": classify_command,
    "embed": embed_command,
    "export": export_command,
    "doctor": doctor_command,
}

EXTENSIONS = "pairdistill.commands"
"""Entry points by which other packages add commands; so the trainer need not know them."""


def build_app() -> typer.Typer:
    """The program with all its commands."""
    app = typer.Typer(
        name="pairdistill",
        help="One face classifier, trained on pairs of images of the same person.",
        no_args_is_help=True,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    for name, command in COMMANDS.items():
        app.command(name)(results()(one_by_one(command)))
    for extension in entry_points(group=EXTENSIONS):
        app.command(extension.name)(results()(one_by_one(extension.load())))
    return app


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"pairdistill {__version__}")
        raise typer.Exit


def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the stack trace of an error.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """One face classifier, trained on pairs of images of the same person."""


def main() -> None:
    """Run the command line; users' mistakes become one line and exit status 2."""
    # Threads that wait for each other sleep, unless told otherwise. Spinning, as OpenMP has it by
    # itself, takes the cores from decoding threads and from other ranks. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names may hold letters that a terminal lacks
            stream.reconfigure(errors="backslashreplace")
    os.umask(0o077)  # faces, and models of them, are personal data
    try:
        with results():  # of --help and --version too
            build_app()()
    except (UserError, PermissionError) as error:
        told = as_user_error(error)
        if told is None or "--debug" in sys.argv or interrupted():
            raise
        console.fail(str(told))
        sys.exit(told.exit_status)
    finally:
        forget_progress()
