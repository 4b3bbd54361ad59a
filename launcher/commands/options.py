"""Options that several commands share."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from launcher.fields import checked
from launcher.resources import DEFAULT_TIME, Resources, minutes

if TYPE_CHECKING:
    from launcher.site import Site


class Cluster(enum.StrEnum):
    """Where a job runs."""

    SLURM = "slurm"
    LOCAL = "local"
    DEBUG = "debug"


SiteName = Annotated[
    str, typer.Option("--site", help="Profile in slurm/sites/NAME.toml.", show_default="none")
]
ClusterName = Annotated[
    Cluster,
    typer.Option(
        "--cluster", help="`slurm`; `local`: this machine, in the background; `debug`: right here."
    ),
]
Runs = Annotated[
    list[Path] | None,
    typer.Argument(metavar="RUN", help="Run folders, or folders of them.", show_default="runs/"),
]


@dataclass(frozen=True)
class Asked:
    """What a job asks of a cluster, as it was typed."""

    nodes: Annotated[int, typer.Option("--nodes", min=1, help="Machines.")] = 1
    ranks_per_node: Annotated[
        int,
        typer.Option(
            "--ranks-per-node",
            min=0,
            help="Processes on each; 0 for one a GPU.",
            show_default="one a GPU",
        ),
    ] = 0
    gpus_per_node: Annotated[
        int, typer.Option("--gpus-per-node", min=0, help="GPUs on each machine.")
    ] = 0
    cpus: Annotated[
        int,
        typer.Option(
            "--cpus",
            min=0,
            help="Cores of each process; 0 for as many as it has threads that decode.",
            show_default="data.workers with GPUs, else 1",
        ),
    ] = 0
    mem_gb: Annotated[
        int,
        typer.Option(
            "--mem-gb",
            min=0,
            help="Memory of each machine, GB.",
            show_default="the cluster's default",
        ),
    ] = 0
    time: Annotated[
        str,
        typer.Option(
            "--time",
            help="Time limit of one start: 24h, 90m, 1d12h or D-HH:MM:SS.",
            show_default=f"{DEFAULT_TIME}; none on this machine",
        ),
    ] = ""
    partition: Annotated[
        str,
        typer.Option("--partition", help="Queue.", show_default="the site's, or the cluster's"),
    ] = ""
    account: Annotated[
        str, typer.Option("--account", help="Who is charged.", show_default="the site's, or yours")
    ] = ""
    exclude: Annotated[
        str,
        typer.Option(
            "--exclude",
            metavar="HOSTS",
            help="Machines to do without, as in node7 or node[1-3,7]; those of the site too.",
            show_default="the site's",
        ),
    ] = ""

    def resources(
        self, site: Site, after: str = "", cluster: Cluster = Cluster.SLURM, *, workers: int = 1
    ) -> Resources:
        """A checked request, with what the site adds to it.

        On this machine, where nothing would start it again, a job has no limit but one asked for.

        Args:
            site: the cluster's profile.
            after: a job that comes first.
            cluster: where the job runs.
            workers: threads of a rank that decode, ``data.workers``. With fewer cores a GPU would
                wait for them.

        Raises:
            UserError: a value that may not stand in a script, or a time limit in an unknown form.
        """
        partition, account = self.partition or site.partition, self.account or site.account
        exclude = checked("exclude", self.exclude) if self.exclude else ""
        limit = self.time or (DEFAULT_TIME if cluster is Cluster.SLURM else "")
        return Resources(
            nodes=self.nodes,
            ranks_per_node=self.ranks_per_node or max(1, self.gpus_per_node),
            gpus_per_node=self.gpus_per_node,
            cpus_per_rank=self.cpus or (max(1, workers) if self.gpus_per_node else 1),
            mem_gb=self.mem_gb,
            time_min=minutes(limit) if limit else 0,
            partition=checked("partition", partition) if partition else "",
            account=checked("account", account) if account else "",
            after=checked("after", after) if after else "",
            exclude=",".join(filter(None, (site.exclude, exclude))),
        )
