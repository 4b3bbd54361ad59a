"""Options that several commands share."""

from __future__ import annotations

import enum
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


Nodes = Annotated[int, typer.Option("--nodes", min=1, help="Machines.")]
RanksPerNode = Annotated[
    int,
    typer.Option(
        "--ranks-per-node",
        min=0,
        help="Processes on each; 0 for one a GPU.",
        show_default="one a GPU",
    ),
]
GpusPerNode = Annotated[int, typer.Option("--gpus-per-node", min=0, help="GPUs on each machine.")]
Cpus = Annotated[int, typer.Option("--cpus", min=1, help="Cores of each process.")]
MemGb = Annotated[
    int,
    typer.Option(
        "--mem-gb", min=0, help="Memory of each machine, GB.", show_default="the cluster's default"
    ),
]
Time = Annotated[
    str, typer.Option("--time", help="Time limit of one start: 24h, 90m, 1d12h or D-HH:MM:SS.")
]
Partition = Annotated[
    str, typer.Option("--partition", help="Queue.", show_default="the site's, or the cluster's")
]
Account = Annotated[
    str, typer.Option("--account", help="Who is charged.", show_default="the site's, or yours")
]
SiteName = Annotated[
    str, typer.Option("--site", help="Profile in slurm/sites/NAME.toml.", show_default="none")
]
ClusterName = Annotated[
    Cluster,
    typer.Option(
        "--cluster", help="`slurm`; `local`: this machine, in the background; `debug`: right here."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="a.b=c", help="Settings that replace those of the file."),
]
Runs = Annotated[
    list[Path] | None,
    typer.Argument(metavar="RUN", help="Run folders, or folders of them.", show_default="runs/"),
]
ConfigPath = Annotated[
    Path, typer.Argument(metavar="CONFIG.toml", help="Settings of the run.", show_default=False)
]
DEFAULT_TIME_LIMIT = DEFAULT_TIME


def resources(
    site: Site,
    *,
    nodes: int,
    ranks_per_node: int,
    gpus_per_node: int,
    cpus: int,
    mem_gb: int,
    time: str,
    partition: str,
    account: str,
    after: str = "",
) -> Resources:
    """A checked request, with what the site adds to it.

    Raises:
        UserError: a value that may not stand in a script, or a time limit in an unknown form.
    """
    partition, account = partition or site.partition, account or site.account
    return Resources(
        nodes=nodes,
        ranks_per_node=ranks_per_node or max(1, gpus_per_node),
        gpus_per_node=gpus_per_node,
        cpus_per_rank=cpus,
        mem_gb=mem_gb,
        time_min=minutes(time),
        partition=checked("partition", partition) if partition else "",
        account=checked("account", account) if account else "",
        after=checked("after", after) if after else "",
    )
