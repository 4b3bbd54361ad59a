"""Site profiles: what differs between clusters, in `slurm/sites/NAME.toml`, not in the code."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from distill.config import Section
from distill.errors import UserError, one_line
from launcher.fields import check_path, check_text, checked
from launcher.resources import minutes

SITES = "PAIRDISTILL_SITES"
"""Variable with a folder of profiles that is looked into first."""


class PartitionProfile(Section):
    """What one partition has, where Slurm cannot be asked (with ``--dry-run`` elsewhere)."""

    nodes: Annotated[int, Field(ge=1)] = 1_000_000
    """Largest number of nodes of a job."""
    gpus_per_node: Annotated[int, Field(ge=0)] = 0
    """GPUs of a node."""
    cpus_per_node: Annotated[int, Field(ge=1)] = 1_000_000
    """Cores of a node."""
    mem_gb_per_node: Annotated[int, Field(ge=1)] = 1_000_000
    """Memory of a node, in GB."""
    max_time: str = ""
    """Longest time limit, as in `--time`; empty for any."""


class Site(Section):
    """One cluster."""

    partition: str = ""
    """Partition where `--partition` names none; empty for the cluster's default."""
    account: str = ""
    """Account where `--account` names none; empty for the user's default."""
    accounts: list[str] = Field(default_factory=list)
    """Accounts that may be named; empty for any that the cluster knows."""
    qos: str = ""
    """Quality of service; empty for the default."""
    constraint: str = ""
    """Features that nodes must have, joined by & or |."""
    reservation: str = ""
    """Reservation whose nodes a job takes; empty for none."""
    exclusive: bool = False
    """Whether a job shares its nodes with no other."""
    gpu_type: str = ""
    """Which GPUs, as `sinfo -o %G` names them: `h100` asks for `h100:8`; empty for any."""
    exclude: str = ""
    """Hosts that no job takes, as in `node7` or `node[1-3,7]`; `--exclude` adds more."""
    signal_seconds: Annotated[int, Field(ge=10, le=3600)] = 120
    """How long before the time limit the job is told to save and leave. Slurm is up to a minute
    early."""
    modules_init: str = ""
    """Script that defines `module`, e.g. `/etc/profile.d/modules.sh`; empty if it is defined."""
    modules: list[str] = Field(default_factory=list)
    """Modules to load before the ranks start."""
    container: list[str] = Field(default_factory=list)
    """Words in front of the ranks' Python, e.g. `["apptainer", "exec", "--nv", "/i/t.sif"]`, or
    options of srun such as `["--container-image=/i/t.sqsh"]`."""
    python: str = ""
    """The ranks' Python, where the container brings its own; that of `pairdistill` otherwise."""
    variables: dict[str, str] = Field(default_factory=dict)
    """Environment variables of the ranks, e.g. `NCCL_SOCKET_IFNAME = "ib0"`."""
    scratch: str = ""
    """Folder on each node's own disk; packs are copied there and read from it. Empty for none."""
    min_allreduce_gb_per_s: Annotated[float, Field(ge=0)] = 0.0
    """Slowest all-reduce, in GB/s, that the start-up check lets pass; 0 for any."""
    max_clock_skew_seconds: Annotated[float, Field(gt=0)] = 5.0
    """Largest difference between the clocks of the nodes that the start-up check lets pass."""
    partitions: dict[str, PartitionProfile] = Field(default_factory=dict)
    """What the partitions have."""


def load_site(name: str) -> Site:
    """The profile of that name; with an empty name one that leaves all to the cluster.

    Raises:
        UserError: no such profile, or something wrong in it (file and field are named).
    """
    if not name:
        return Site()
    checked("site", name)
    path = _find(name)
    try:
        site = Site.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"site profile {path} cannot be read: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(
            f"site profile {path}: {where} = {first['input']!r}: {one_line(first['msg'])}",
            fix=f"the keys are {', '.join(Site.model_fields)}",
        ) from None
    _check(site, str(path))
    return site


def folders() -> list[Path]:
    """Where profiles are looked for, in order."""
    named = [Path(os.environ[SITES])] if os.environ.get(SITES) else []
    with_sources = Path(__file__).resolve().parents[1] / "slurm" / "sites"
    return [*named, Path("slurm/sites"), Path.home() / ".config/pairdistill/sites", with_sources]


def _find(name: str) -> Path:
    for folder in folders():
        if (folder / f"{name}.toml").is_file():
            return folder / f"{name}.toml"
    known = sorted({path.stem for folder in folders() for path in folder.glob("*.toml")})
    raise UserError(
        f"--site {name!r}: no such profile (there are: {', '.join(known) or 'none'})",
        fix=f"write slurm/sites/{name}.toml, or name the folder of yours in {SITES}",
    )


def _check(site: Site, path: str) -> None:
    """Nothing of a profile may break out of its place in the script, and times must be times."""
    for field in ("partition", "account", "qos", "constraint", "reservation", "exclude"):
        if value := getattr(site, field):
            checked(field, value, name=f"{path}: {field}")
    if site.gpu_type:
        checked("gpu-type", site.gpu_type, name=f"{path}: gpu_type")
    for account in site.accounts:
        checked("account", account, name=f"{path}: accounts")
    for module in site.modules:
        checked("module", module, name=f"{path}: modules")
    for word in site.container:
        check_text(f"{path}: container", word)
    for name, value in site.variables.items():
        checked("variable", name, name=f"{path}: variables")
        check_text(f"{path}: variables.{name}", value)
    for name, has in site.partitions.items():
        if has.max_time:
            minutes(has.max_time, name=f"{path}: partitions.{name}.max_time =")
    check_path(f"{path}: scratch", site.scratch)
    check_path(f"{path}: modules_init", site.modules_init)
    check_path(f"{path}: python", site.python)
