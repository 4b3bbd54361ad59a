"""`pairdistill submit`: train as a job of a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from distill.cli.arguments import ConfigPath, Overrides
from launcher.commands import options
from launcher.commands.options import Cluster

if TYPE_CHECKING:
    from distill.errors import UserError
    from launcher.submit import Request
    from launcher.submitted import Submitted


def submit_command(
    config_path: ConfigPath,
    overrides: Overrides = None,
    *,
    asked: options.Asked,
    site: options.SiteName = "",
    cluster: options.ClusterName = Cluster.SLURM,
    after: Annotated[
        str, typer.Option("--after", help="Job that must end well first.", show_default="none")
    ] = "",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in run.dir, with today's sources.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the batch script; submit and write nothing.")
    ] = False,
) -> None:
    """Train as a job: submitted, requeued when it is stopped, resumed where it was.

    **Examples**

        pairdistill submit run.toml --nodes 4 --gpus-per-node 8 --time 24h --site mine

        pairdistill submit run.toml run.dir=runs/b loss.weight=0.5 --gpus-per-node 1 --dry-run

        pairdistill submit run.toml --cluster local --ranks-per-node 2

    The run folder keeps a copy of the sources, and the job runs that copy. Then:
    `pairdistill status`, `pairdistill logs RUN -f`, `pairdistill cancel RUN`.
    """
    from distill.config import load_config
    from launcher import slurm, submit
    from launcher.check_request import check_request
    from launcher.site import load_site

    profile = load_site(site)
    config = submit.absolute(load_config(config_path, overrides or []))
    wanted = asked.resources(profile, after, cluster, workers=config.data.workers)
    request = submit.Request(config, wanted, profile, cluster.value)
    # A script can be shown where no cluster answers; where one does, it is asked.
    silence = slurm.silence() if dry_run and cluster is Cluster.SLURM else None
    unasked = silence is not None
    check_request(request, resume=resume, ask_cluster=not unasked, is_over=unasked)
    if silence is not None:
        _say_what_was_not_asked(silence, site if profile.partitions else "")
    if dry_run:
        typer.echo(submit.dry_run(request), nl=False)
        return
    _say_what_follows(request, submit.submit(request))


def _say_what_was_not_asked(silence: UserError, site: str) -> None:
    """Name the checks that `submit` makes and a dry run without a cluster cannot."""
    from distill.console import warn

    instead = f" (they fit the profile --site {site})" if site else ""
    warn(
        f"{silence.what}. Not asked: whether partition, account, --after and limits are such as"
        f" the cluster has{instead}, and whether an earlier job of this run still lives"
    )


def _say_what_follows(request: Request, done: Submitted) -> None:
    from distill.console import say

    run, wanted = request.run.root, request.wanted
    if done.cluster == "debug":
        say(f"{run}: done")
        return
    size = f"{wanted.world_size} rank(s) on {wanted.nodes} node(s)"
    say(f"job {done.number} submitted: {size}; run folder {run}")
    say("follow it with `pairdistill status`, `pairdistill logs RUN -f`; stop it with `cancel RUN`")
