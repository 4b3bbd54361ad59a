"""Whether what is to be submitted can work, found out here and not hours later, on a node."""

from __future__ import annotations

import errno
import functools
import shlex
from typing import TYPE_CHECKING

from distill.config import ModelConfig
from distill.console import warn
from distill.errors import UserError, one_line
from distill.run_dir import RunDir
from launcher import slurm
from launcher.fields import check_folder
from launcher.guard import check_private
from launcher.limits import check_time, check_with_cluster, check_with_profile
from launcher.submitted import Submitted

if TYPE_CHECKING:
    from distill.config import Config
    from distill.inputs import Known
    from launcher.submit import Request

_OF_LIBRARIES = {None, errno.ENOMEM}
"""Of an OSError where a shared library cannot be loaded; those of files have others."""


def check_request(
    request: Request, *, resume: bool, ask_cluster: bool, is_over: bool = False
) -> None:
    """Refuse a request that cannot work.

    With ``is_over`` the run's last job counts as ended, and Slurm is not asked for it.

    Raises:
        UserError: more than the cluster can give, a run that is there already or that another job
            owns, or settings that the ranks would refuse.
    """
    check_resources(request, ask_cluster=ask_cluster)
    check_run(request.run, resume=resume, is_over=is_over)
    check_settings(request)
    check_run(request.run, resume=resume, is_over=is_over)  # another may have come meanwhile


def check_resources(request: Request, *, ask_cluster: bool = True) -> None:
    """What a request asks for against what its cluster can give, or what the profile says of it.

    Raises:
        UserError: no such partition or account, or more than there is.
    """
    if request.wanted.time_min and request.cluster != "debug":
        check_time(request.wanted, request.site)
    if request.cluster == "slurm":
        if ask_cluster:
            slurm.require("sbatch", "srun", "sinfo")
        check = check_with_cluster if ask_cluster else check_with_profile
        check(request.wanted, request.site)
    elif request.wanted.nodes > 1:
        raise UserError(
            f"--nodes {request.wanted.nodes}: --cluster {request.cluster} has one machine",
            fix="leave --nodes away",
        )


def check_settings(request: Request, known: Known | None = None) -> None:
    """Settings against ranks, and all that the run reads, as the ranks themselves will check them.

    Where this machine cannot load torch (a login node with little memory or without CUDA's
    libraries; the ranks may have another Python), that is warned of, and left to the ranks.
    Of several requests ``known`` holds what was read for the last one, see `read_inputs`.

    Raises:
        UserError: the first thing that does not fit, in the words of `train`.
    """
    try:
        from distill.plan import check_elsewhere  # torch: seconds, when all else is well

        check_elsewhere(_known_here(request), request.wanted.world_size, known)
    except (ImportError, MemoryError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _OF_LIBRARIES:
            raise
        _warn_unchecked(one_line(str(error)) or type(error).__name__)


@functools.cache
def _warn_unchecked(reason: str) -> None:
    """Say so once, and not for each run of a sweep."""
    warn(f"the settings are not checked here ({reason}); the ranks will check them")


def _known_here(request: Request) -> Config:
    """The settings without what cannot be known here and now.

    That is a network which only another Python than this one may have, and weights to start from
    where a job comes first, which may be the one that trains them.
    """
    config, model = request.config, request.config.model
    if request.site.python and model.name.startswith("timm:"):
        model = ModelConfig()
    elif request.wanted.after:
        model = model.model_copy(update={"init_from": ""})
    return config.model_copy(update={"model": model})


def check_run(run: RunDir, *, resume: bool, is_over: bool = False) -> None:
    """A fresh folder for a fresh run; one's own for a resumed one, whose last job may be over.

    Raises:
        UserError: another job works or waits for it, there is (or is not) a run to go on with, or
            Python could not find sources there.
    """
    check_folder("run.dir", str(run.root))
    before = Submitted.of(run)
    if before is not None and not is_over and (state := _state_if_alive(before)):
        raise UserError(
            f"run.dir = {str(run.root)!r}: job {before.number} ({state}) owns it",
            fix=f"wait for it, `pairdistill cancel {shlex.quote(str(run.root))}`,"
            " or choose another run.dir",
        )
    exists = before is not None or bool(run.checkpoint_steps())
    if exists and not resume:
        raise UserError(
            f"run.dir = {str(run.root)!r}: there is a run already",
            fix="add --resume to go on with it, or choose another run.dir",
        )
    if run.root.exists():
        with run.acquire():  # nobody else holds it
            check_private(run.root)


def _state_if_alive(job: Submitted) -> str:
    """State of a job that runs or is to run; empty where it has ended."""
    if job.cluster != "slurm":
        return "RUNNING" if job.lives_here() else ""
    known = slurm.accounted([job.number]).get(job.number)
    return known.state if known and not known.has_ended else ""
