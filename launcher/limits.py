"""Whether a cluster can give what a job asks for, found out before it waits in a queue for days."""

from __future__ import annotations

from collections.abc import Sequence

from distill.console import warn
from distill.errors import UserError
from launcher import slurm
from launcher.resources import Resources, minutes
from launcher.site import Site
from launcher.slurm import NodeKind

MIN_WORKING_SECONDS = 30


def check_time(wanted: Resources, site: Site) -> None:
    """A start must have time for more than to be told to leave.

    Raises:
        UserError: the limit is not longer than the warning before it.
    """
    needed = site.signal_seconds + MIN_WORKING_SECONDS
    if wanted.time_min * 60 < needed:
        raise UserError(
            f"--time {wanted.time_min}m: the job is told to save {site.signal_seconds} s before"
            " its limit, which leaves no time to train",
            fix=f"ask for at least {-(-needed // 60)}m, or lower the site's signal_seconds",
        )


def check_with_cluster(wanted: Resources, site: Site) -> None:
    """Compare a request with what Slurm says of itself.

    Raises:
        UserError: unknown partition or account, or more than any node of the partition has; or
            Slurm names no partition.
    """
    known, default = slurm.partitions()
    if not known:
        raise UserError(
            "sinfo names no partition: there is nothing that a job could run on",
            fix="see `sinfo -a` and the cluster's documentation, or ask who looks after it",
        )
    partition = wanted.partition or default
    if partition and partition not in known:
        raise UserError(f"--partition {partition!r}: no such partition", fix=_one_of(known))
    if wanted.account:
        check_account(wanted.account, site.accounts or _accounts_of_user())
    if wanted.after and not slurm.accounted([wanted.after]):
        raise UserError(f"--after {wanted.after}: Slurm knows no such job", fix="see `squeue`")
    if partition:  # else a plugin of the cluster chooses one, or sbatch says no
        check_nodes(wanted, partition, slurm.node_kinds(partition))


def _accounts_of_user() -> list[str]:
    """Accounts that the user may charge; none, with a warning, where the accounting is silent.

    The controller goes on without it, and takes jobs.
    """
    try:
        return slurm.accounts_of_user()
    except UserError as error:
        warn(f"{error.what}. Whether you may charge that account is left to sbatch")
        return []


def check_with_profile(wanted: Resources, site: Site) -> None:
    """The same with what the profile says, where there is no Slurm to ask.

    Raises:
        UserError: as in `check_with_cluster`, as far as the profile tells.
    """
    check_account(wanted.account, site.accounts)
    if not site.partitions:
        return
    if wanted.partition not in site.partitions:
        raise UserError(
            f"--partition {wanted.partition!r}: the site profile has no such partition",
            fix=_one_of(list(site.partitions)),
        )
    has = site.partitions[wanted.partition]
    limit = minutes(has.max_time) if has.max_time else None
    kind = NodeKind(has.nodes, has.cpus_per_node, has.mem_gb_per_node, has.gpus_per_node, limit)
    check_nodes(wanted, wanted.partition, [kind])


def check_account(account: str, known: Sequence[str]) -> None:
    """Refuse an account that is none of ``known``; an empty list knows nothing.

    Slurm writes all names of accounts in small letters, and takes them in any.

    Raises:
        UserError: it is another.
    """
    if account and known and account.lower() not in map(str.lower, known):
        raise UserError(f"--account {account!r}: not one that you may charge", fix=_one_of(known))


def check_nodes(wanted: Resources, partition: str, kinds: Sequence[NodeKind]) -> None:
    """Refuse what no kind of node of the partition has.

    Raises:
        UserError: the first quantity that is too large, and what there is.
    """
    limits = [kind.max_time_min for kind in kinds if kind.max_time_min is not None]
    _at_most("gpus-per-node", wanted.gpus_per_node, max(k.gpus for k in kinds), partition)
    fitting = [kind for kind in kinds if kind.gpus >= wanted.gpus_per_node]
    cores = max(k.cpus for k in fitting)
    less = "ask for less (--cpus is data.workers where there are GPUs and it is not given)"
    _at_most("ranks-per-node x --cpus", wanted.cpus_per_node, cores, partition, less)
    _at_most("mem-gb", wanted.mem_gb, max(k.mem_gb for k in fitting), partition)
    if len(limits) == len(kinds):
        _at_most("time (minutes)", wanted.time_min, max(limits), partition)
    _at_most("nodes", wanted.nodes, sum(k.count for k in fitting), partition)


def _at_most(
    option: str, value: int, most: int, partition: str, less: str = "ask for less"
) -> None:
    if value > most:
        raise UserError(
            f"--{option} = {value}: partition {partition!r} has {most} at most",
            fix=f"{less}, or name another partition",
        )


def _one_of(names: Sequence[str]) -> str:
    return f"use one of {', '.join(names)}"
