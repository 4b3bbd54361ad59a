"""`pairdistill sweep`: many runs of one configuration as a job array, and what came of them."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distill.errors import UserError
from distill.files import disk_errors, make_folder
from launcher.commands import options
from launcher.commands.status import tell

if TYPE_CHECKING:
    from rich.table import Table

    from distill.inputs import Known
    from launcher.submit import Request
    from launcher.sweep import Result, Sweep


@dataclass(frozen=True)
class SweepWords:
    """Options of a new sweep."""

    folder: Annotated[
        Path, typer.Option("--dir", help="Folder of the sweep; it must not be there yet.")
    ] = Path("runs/sweep")
    random: Annotated[
        int, typer.Option("--random", min=0, help="Runs to draw at random; 0 for the whole grid.")
    ] = 0
    seed: Annotated[int, typer.Option("--seed", help="Seed of what is drawn.")] = 0
    metric: Annotated[
        str, typer.Option("--metric", help="Scalar of metrics.jsonl to compare by.")
    ] = "loss/total"
    parallel: Annotated[
        int,
        typer.Option("--parallel", min=0, help="Runs at a time.", show_default="as many as fit"),
    ] = 0

    def points(self, words: list[str]) -> list[dict[str, Any]]:
        """The settings of each run, for words that say what varies.

        Raises:
            UserError: there are none.
        """
        from launcher.points import draws, grid

        if not words:
            raise UserError("nothing to vary", fix="add words such as loss.weight=0.5,1,2")
        return draws(words, self.random, self.seed) if self.random else grid(words)


def sweep_command(
    what: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG.toml|SWEEP",
            help="Settings of all runs; or the folder of a sweep, to see its results.",
            show_default=False,
        ),
    ],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="a.b=1,2,3",
            help="What varies; with --random also a.b=0.1..10.",
        ),
    ] = None,
    *,
    wish: SweepWords,
    resubmit: Annotated[
        bool, typer.Option("--resubmit", help="Submit those again that failed, where they stand.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print results as JSON.")] = False,
    asked: options.Asked,
    site: options.SiteName = "",
) -> None:
    """Train many runs that differ in some settings, and compare them.

    **Examples**

        pairdistill sweep run.toml loss.temperature=1,2,4 loss.similarity=kl,mmd --gpus-per-node 1

        pairdistill sweep run.toml loss.weight=0.1..10 --random 20 --dir runs/weights

        pairdistill sweep runs/weights

        pairdistill sweep runs/weights --resubmit --exclude node7
    """
    from launcher.sweep import Sweep

    if what.is_dir():
        if resubmit:
            _only_exclude(asked, site)
            submit_again(Sweep.read(what.absolute()), asked.exclude)
        else:
            report(Sweep.read(what), as_json=json)
        return
    if not what.exists():
        raise UserError(
            f"{str(what)!r}: is not there", fix="name settings, or the folder of a sweep"
        )
    request = {
        "config": str(what.absolute()),
        "config_sha256": digest_of(what),
        "site": site,
        "resources": asdict(asked),
        "parallel": wish.parallel,
    }
    begin(Sweep(wish.folder.absolute(), wish.points(words or []), wish.metric, request))


def begin(sweep: Sweep) -> None:
    """Submit a new sweep."""
    if sweep.root.exists():
        raise _taken(sweep)
    _submit(sweep, list(range(len(sweep.points))), resume=False)


def _taken(sweep: Sweep) -> UserError:
    """Its folder is another sweep's, or holds something else."""
    return UserError(
        f"--dir {str(sweep.root)!r}: is there already",
        fix="choose another, or see it with `pairdistill sweep FOLDER`",
    )


def _only_exclude(asked: options.Asked, site: str) -> None:
    """Refuse what would not be heeded: runs that are submitted again ask for what they did.

    Raises:
        UserError: another option is given than the hosts to do without.
    """
    given, default = asdict(asked) | {"site": site}, asdict(options.Asked()) | {"site": ""}
    for name, value in given.items():
        if name != "exclude" and value != default[name]:
            raise UserError(
                f"--{name.replace('_', '-')} {value}: with --resubmit runs ask for what they"
                " were submitted with",
                fix="leave it away, or begin a new sweep; --exclude HOST alone may be added",
            )


def submit_again(sweep: Sweep, exclude: str) -> None:
    """Submit the failed runs of a sweep, as they were; they go on from their checkpoints.

    Args:
        sweep: the sweep.
        exclude: hosts to do without this time, beside those of then; empty for none.
    """
    from distill.console import say, warn
    from launcher.sweep import failed

    indices = failed(sweep)
    if not indices:
        say(f"{sweep.root}: none has failed")
        return
    config, then = Path(sweep.request["config"]), sweep.request.get("config_sha256")
    if then is not None and digest_of(config) != then:
        warn(
            f"{config} is not as it was when the sweep was submitted; its runs keep the settings of"
            f" then, e.g. {sweep.recorded(indices[0])}. For others begin a new sweep"
        )
    _submit(sweep, indices, resume=True, exclude=exclude)


def digest_of(config: Path) -> str:
    """SHA-256 of a file of settings; empty where it cannot be read."""
    try:
        return hashlib.sha256(config.read_bytes()).hexdigest()
    except OSError:
        return ""


def _submit(sweep: Sweep, indices: list[int], *, resume: bool, exclude: str = "") -> None:
    """Submit runs: fresh ones, or such as `failed` has just found to be over."""
    from distill.console import say
    from launcher.check_request import check_resources
    from launcher.sweep import most_cores, submit_sweep

    requests = {index: _request(sweep, index, exclude) for index in indices}
    check_resources(most_cores(requests))
    requests = _accepted(sweep, requests, resume=resume)
    if not resume:
        _take(sweep)
    number = submit_sweep(sweep, requests, int(sweep.request["parallel"]))
    say(f"job array {number} submitted: {len(requests)} run(s); folder {sweep.root}")
    say(f"see them with `pairdistill status {sweep.root}`, `pairdistill sweep {sweep.root}`")


def _take(sweep: Sweep) -> None:
    """Make the folder of a new sweep, which another may have begun there during the checks.

    Raises:
        UserError: it is there, or cannot be made.
    """
    make_folder(sweep.root.parent)
    with disk_errors(sweep.root):
        try:
            sweep.root.mkdir(mode=0o700)
        except FileExistsError:
            raise _taken(sweep) from None


def _accepted(sweep: Sweep, requests: dict[int, Request], *, resume: bool) -> dict[int, Request]:
    """The requests that can work: all of a new sweep, or those of the runs that may go on.

    A run that ended on a mistake would end on it again; the others need not wait for that.

    Raises:
        UserError: one of a new sweep cannot work, or none of those that would go on.
    """
    from distill.console import note, warn
    from launcher.check_request import check_run, check_settings

    note(f"checking {len(requests)} run(s)")
    known: Known = {}
    refused: dict[int, UserError] = {}
    for index, request in sorted(requests.items(), key=_reads):
        going_on = resume and bool(sweep.run(index).jobs())
        try:
            check_run(request.run, resume=going_on, is_over=going_on)
            check_settings(request, known)
        except UserError as error:
            refused[index] = error
            if not resume or len(refused) == len(requests):
                raise
    for index, why in sorted(refused.items()):
        warn(f"run {index:03d} is not submitted: {why}")
    return {index: request for index, request in requests.items() if index not in refused}


def _reads(numbered: tuple[int, Request]) -> tuple[str, list[str], int]:
    """By which runs that read the same stand side by side, in their order: it is read once."""
    index, request = numbered
    return request.config.data.model_dump_json(), request.config.evaluate.set_paths, index


def _request(sweep: Sweep, index: int, exclude: str) -> Request:
    """What one run asks for: its settings as they were submitted, where they were.

    Args:
        sweep: its sweep.
        index: of the run.
        exclude: hosts to do without, beside those that the sweep does without.
    """
    from distill.config import as_override, load_config
    from launcher.points import overrides_of
    from launcher.site import load_site
    from launcher.submit import Request, absolute

    site = load_site(sweep.request["site"])
    own = as_override("run.dir", str(sweep.run(index).root))
    settings = sweep.recorded(index) or sweep.request["config"]
    config = load_config(settings, [*overrides_of(sweep.points[index]), own])
    asked = options.Asked(**sweep.request["resources"])
    asked = replace(asked, exclude=",".join(filter(None, (asked.exclude, exclude))))
    wanted = asked.resources(site, workers=config.data.workers)
    return Request(absolute(config), wanted, site, "slurm")


def report(sweep: Sweep, *, as_json: bool) -> None:
    """Show the results as a table and draw them."""
    from distill.console import say, say_json, show
    from launcher.sweep import as_plain, results
    from launcher.sweep_picture import draw

    found, silence = results(sweep)
    tell(silence)
    if as_json:
        say_json([as_plain(result) for result in found])
        return
    show(table(found, sweep.metric))
    picture = sweep.root / "sweep.png"
    if draw(found, sweep.metric, picture):
        say(f"picture: {picture}")


def table(found: list[Result], metric: str) -> Table:
    """A row for each run."""
    from rich.table import Table
    from rich.text import Text

    shown = Table()
    for name in ("run", *found[0].point, "state", "step", metric):
        shown.add_column(name, justify="left" if name == "state" else "right")
    for number, result in enumerate(found):
        value = "" if result.value is None else f"{result.value:.4g}"
        settings = [Text(str(setting)) for setting in result.point.values()]
        state = Text(result.status.state)
        shown.add_row(f"{number:03d}", *settings, state, str(result.status.step), value)
    return shown
